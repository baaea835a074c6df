"""Errors as the user of a node needs them: which field, what is wrong, what to change."""
from __future__ import annotations

from typing import Any, Optional

INSTALL = (
    "The Python package `sitter`, which holds the native library, {problem}. Install it into ComfyUI's own Python "
    "(`python -m pip install path/to/sitter/bindings/python`, or the wheel that you built; PyPI's package of that name is "
    "another one) and restart ComfyUI."
)

# By the class name of sitter's exception. {field} is the node's input.
ADVICE = {
    "WrongModel": "Connect the model that the subject was trained on, or train the subject again on this one.",
    "NotFound": "Look whether the file is still there, press R to refresh the lists, and choose again.",
    "FileError": "Look whether ComfyUI may read and write there and whether the disk is full.",
    "BadFormat": "The file is damaged, incomplete or of another kind: fetch or save it again.",
    "UnsupportedModel": "Choose a folder with a model of the Chameleon family, such as Lumina-mGPT.",
    "OutOfMemory": "In Train Subject lower batch_size or raise accumulation (Training Options), in Sample lower count or the "
                   "size; in Load Model choose dtype bf16; or free other models (ComfyUI's Unload Models).",
    "DeviceError": "In Load Model choose another device.",
    "InternalError": "This is a defect of Sitter; please report it with this text.",
}


class NodeError(Exception):
    """Shown in ComfyUI's error dialog."""


def missing(error: Exception) -> NodeError:
    """For a package that cannot be imported or a library that does not load."""
    problem = "is not installed" if isinstance(error, ImportError) else f"does not work: {error}"
    return NodeError(INSTALL.format(problem=problem))


def explain(error: Exception, field: Optional[str] = None) -> NodeError:
    """`field: what the library said. What to change.` The library names its own options, which the inputs are named after."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if "LibraryError" in kinds:
        return missing(error)
    said = str(error).rstrip(".")
    if field and not said.startswith(field + ":"):
        said = f"{field}: {said}"
    advice = next((ADVICE[kind] for kind in kinds if kind in ADVICE), "")
    detail = getattr(error, "detail", "")
    parts = [said + ".", advice, f"\n{detail}" if detail else ""]
    return NodeError(" ".join(part for part in parts if part))


def one_of(field: str, value: Any, allowed: "list[str]", advice: str = "") -> NodeError:
    """A choice that is not, or not any more, among the allowed."""
    known = ", ".join(allowed) if allowed else "none"
    return NodeError(f"{field}: {value!r} is not there; there are: {known}. {advice}".rstrip())
