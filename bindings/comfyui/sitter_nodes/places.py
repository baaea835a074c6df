"""Folders and files: which a workflow may name, and how to tell that they changed. Workflows come from strangers."""
from __future__ import annotations

import hashlib
import os
import re
from typing import Iterable, Optional

from .messages import NodeError, one_of

EMBEDDED = "embedded:"
# Those that the package of Sitter has inside.
INSIDE = (EMBEDDED, "embedded:infinity")
SUBJECT_ENDING = ".safetensors"
WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".index.json")
# Of each file, enough to notice an exchange that kept size and time.
SAMPLE_BYTES = 4096
# Quantised weights that Sitter writes into a model's folder: made of the other files, they say nothing new.
KEPT = ("sitter.q8_0.safetensors", "sitter.q4_k.safetensors")
NAME = re.compile(r"[\w .\-]+")


def below(root: str, name: str) -> Optional[str]:
    """The path of `name` below `root`; None where the name leads elsewhere. Links inside are the owner's own and are followed."""
    if not name or "\0" in name or os.path.isabs(name) or os.path.splitdrive(name)[0] or name[0] in "/\\":
        return None
    base = os.path.abspath(root)
    path = os.path.abspath(os.path.join(base, name.replace("\\", "/")))
    inside = path != base and os.path.commonpath([base, path]) == base
    return path if inside else None


def models(roots: Iterable[str]) -> list[str]:
    """The models inside the library, and the folders directly or two levels below the roots that hold a model."""
    found = set()
    for root in roots:
        for name in _folders(root):
            if _is_model(os.path.join(root, name)):
                # What lies in it is a part of it.
                found.add(name)
                continue
            inner = (f"{name}/{part}" for part in _folders(os.path.join(root, name)))
            found.update(inside for inside in inner if _is_model(os.path.join(root, inside)))
    return [*INSIDE, *sorted(found)]


def _is_model(path: str) -> bool:
    """A folder with a configuration; or, as Infinity is published, with weights and beside them a folder that has one."""
    if os.path.isfile(os.path.join(path, "config.json")):
        return True
    parts = any(os.path.isfile(os.path.join(path, name, "config.json")) for name in _folders(path))
    return parts and any(name.endswith(WEIGHTS) for name in os.listdir(path))


def model_path(name: str, roots: Iterable[str]) -> str:
    """Where a model lies that `models` listed."""
    if name in INSIDE:
        return name
    roots = list(roots)
    for root in roots:
        path = below(root, name)
        if path and _is_model(path):
            return path
    raise one_of("model", name, models(roots), "Put the model's folder into models/sitter and press R.")


def subjects(roots: Iterable[str]) -> list[str]:
    """Subject files below the roots, newest first."""
    found: dict[str, float] = {}
    for root in roots:
        for folder, _, files in os.walk(root):
            for file in files:
                path = os.path.join(folder, file)
                name = os.path.relpath(path, root).replace(os.sep, "/")
                if file.endswith(SUBJECT_ENDING) and below(root, name):
                    found.setdefault(name, os.path.getmtime(path))
    return sorted(found, key=lambda name: (-found[name], name))


def subject_path(name: str, roots: Iterable[str]) -> str:
    """Where a subject lies that `subjects` listed."""
    roots = list(roots)
    for root in roots:
        path = below(root, name)
        if path and path.endswith(SUBJECT_ENDING) and os.path.isfile(path):
            return path
    raise one_of("subject", name, subjects(roots), "Save one with Save Subject, press R, and choose it.")


def new_file(root: str, prefix: str, ending: str = SUBJECT_ENDING) -> str:
    """A path below `root` that nothing has yet: `prefix_00001.safetensors`. Makes its folder."""
    parts = [part for part in prefix.replace("\\", "/").split("/") if part]
    if not parts or any(not NAME.fullmatch(part) or set(part) <= {".", " "} for part in parts):
        raise NodeError(
            f"filename_prefix: {prefix!r} is no name; use letters, digits, spaces, - and _, and / for a folder."
        )
    if below(root, "/".join(parts)) is None:
        raise NodeError(f"filename_prefix: {prefix!r} leads out of {os.path.basename(root)}; remove what leads there.")
    folder = os.path.join(root, *parts[:-1])
    os.makedirs(folder, exist_ok=True)
    taken = re.compile(re.escape(parts[-1]) + r"_(\d+)" + re.escape(ending))
    numbers = [int(m.group(1)) for m in map(taken.fullmatch, os.listdir(folder)) if m]
    return os.path.join(folder, f"{parts[-1]}_{max(numbers, default=0) + 1:05d}{ending}")


def fingerprint(path: str) -> str:
    """Changes when a file, or a file in a folder, changes; what Sitter itself keeps beside a model does not count. Never raises: a node whose fingerprint raises is never cached."""
    digest = hashlib.sha256()
    try:
        for file in _files(path):
            if os.path.basename(file) in KEPT:
                continue
            state = os.stat(file)
            name = os.path.relpath(file, path)
            digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
            with open(file, "rb") as stream:
                digest.update(stream.read(SAMPLE_BYTES))
    except OSError as error:
        return f"unreadable: {error.errno}"
    return digest.hexdigest()


def size(path: str) -> int:
    """Bytes of a file or of the files in a folder; 0 for what is not there."""
    try:
        return sum(os.path.getsize(file) for file in _files(path))
    except OSError:
        return 0


def _files(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    return sorted(os.path.join(folder, file) for folder, _, files in os.walk(path) for file in files)


def _folders(root: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
