"""Files that appear whole or not at all, also on a machine that stops in the middle."""
from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

# How names of unfinished files begin.
UNFINISHED = ".unfinished-"


def unfinished(path: Path) -> Path:
    """A name beside `path` that no other process uses."""
    return path.with_name(f"{UNFINISHED}{path.name}-{socket.gethostname()}-{os.getpid()}")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces the file, or leaves the older one as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def append_line(path: Path, value: Any) -> None:
    """Adds a line of JSON to a log. A line that was cut off by a power failure hurts nobody."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False) + "\n")


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """An empty folder that becomes `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        try:
            os.rename(temporary, path)
        except OSError:
            # Another worker was quicker; its result is the same.
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clean(root: Path) -> None:
    """Removes what processes that are gone left unfinished. Only for who holds the lock."""
    for path in sorted(root.rglob(UNFINISHED + "*"), reverse=True):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class Busy(RuntimeError):
    """Another run is at work in the folder."""


@contextmanager
def lock(root: Path) -> Iterator[None]:
    """Held by the one driver that works in a folder. The system lets go of it when the process ends, however it ends."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "a+", encoding="utf-8") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            # Windows: the lock is what keeps two drivers apart that were started by mistake; without it they do work twice.
            pass
        except OSError as e:
            raise Busy(f"{root}: another run is at work in this folder; wait for it, or name another --out") from e
        yield
