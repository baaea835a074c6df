"""What travels on our wires. Values stay in ComfyUI's cache for long and never change."""
from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .messages import NodeError, explain, missing

log = logging.getLogger("sitter")

# Of one weight.
BYTES = {"f32": 4.0, "bf16": 2.0, "q8_0": 1.0625, "q4_k": 0.5625}


def library() -> Any:
    """The Python package, imported at the first use: the nodes are listed without it."""
    try:
        import sitter
    except ImportError as error:
        raise missing(error) from error
    return sitter


class ModelWire:
    """SITTER_MODEL: how to open a model, and the opened model while it is in memory.

    ComfyUI may take it out of memory at any time between two nodes (`close`); whoever uses it next opens it again.
    """

    def __init__(self, path: str, device: str, dtype: str, threads: int) -> None:
        self.path, self.device, self.dtype, self.threads = path, device, dtype, threads
        self.info: dict[str, Any] = {}
        self._model: Any = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def open(self, progress: Optional[Callable[[Any], None]] = None) -> Any:
        """The `sitter.Model`."""
        with self._lock:
            if self._model is None:
                sitter = library()
                self._model = sitter.Model.open(
                    self.path, device=self.device, dtype=self.dtype, threads=self.threads, progress=progress,
                    # What is drawn so far is decoded beside the drawing.
                    max_jobs=2,
                )
                self.info = self._model.info
            return self._model

    def close(self) -> None:
        """Gives the memory back; a call that is under way keeps it until its end."""
        with self._lock:
            if self._model is not None:
                log.info("Sitter: model %s left memory", self.info.get("name", self.path))
                self._model.close()
                self._model = None

    @property
    def bytes(self) -> int:
        """Of the weights; 0 before the first opening."""
        return int((self.info.get("parameters") or 0) * BYTES.get(self.info.get("dtype", ""), 4))


@dataclass(frozen=True)
class TokensWire:
    """SITTER_TOKENS: the tokens of a batch of pictures of one size."""

    tokens: tuple[Any, ...]
    model: str

    def check(self, model: ModelWire) -> None:
        """Codes of another model's codebook would give noise."""
        if self.model != model.info.get("fingerprint", self.model):
            raise NodeError("tokens: were made with another model. Connect the model that made them.")


def subjects_of(*given: Any) -> list[Any]:
    """The connected subjects; two with one identifier are refused here, where the inputs have names."""
    found = [(f"subject_{i + 1}" if i else "subject", one) for i, one in enumerate(given) if one is not None]
    taken: dict[str, str] = {}
    for field, one in found:
        name = one.info["identifier"]
        if name in taken:
            raise NodeError(
                f"{field}: its identifier {name} is that of {taken[name]}. Train one of them with another identifier, e.g. [W]."
            )
        taken[name] = field
    return [one for _, one in found]


def call(work: Callable[[], Any], field: Optional[str] = None) -> Any:
    """Runs a call of the library and turns its errors into ours."""
    sitter = library()
    try:
        return work()
    except sitter.Error as error:
        raise explain(error, field) from error
