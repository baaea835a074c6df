"""Files of jobs that travel: to a worker that does not see the driver's folders, and what it made back."""
from __future__ import annotations

from pathlib import Path
from typing import Iterable

from . import store


def pack(root: Path, paths: "Iterable[Path]") -> "dict[str, bytes]":
    """Files and all that is in folders, by their paths below `root`. What is not there is left out."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def unpack(files: "dict[str, bytes]", root: Path) -> None:
    """Into a folder that nobody else looks into."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def keep(files: "dict[str, bytes]", output: Path, root: Path) -> None:
    """What a job made takes its place below `root`, whole or not at all."""
    name = output.relative_to(root).as_posix()
    if name in files:
        store.write_bytes(output, files[name])
        return
    inside = name + "/"
    with store.folder(output) as folder:
        unpack({path[len(inside):]: data for path, data in files.items() if path.startswith(inside)}, folder)
