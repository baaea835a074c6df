"""What can go wrong. Every exception that comes from the library is an `Error`."""
from __future__ import annotations

import errno
import os
import re
from typing import Any, Optional, Sequence

from . import _abi


class Error(Exception):
    """A call failed. The message names the file, tensor or field, what was expected and what was found.

    `status` is the number in sitter.h; `detail` the chain of causes, a line each, often empty.
    """

    default_status: int = _abi.E_INTERNAL

    def __init__(self, message: str, status: Optional[int] = None, detail: str = "") -> None:
        super().__init__(message)
        self.status = self.default_status if status is None else status
        self.detail = detail


class InvalidArgument(Error, ValueError):
    """A value out of its range, or one that contradicts another."""

    default_status = _abi.E_INVALID_ARGUMENT


class WrongModel(InvalidArgument):
    """A subject was trained on another model."""

    default_status = _abi.E_WRONG_MODEL


class InvalidState(Error, RuntimeError):
    """An object is closed or used up, or a call was made from inside a progress function."""

    default_status = _abi.E_INVALID_STATE


# What the library says about files: the path, and what is the matter with it. If that is the system's own refusal, it ends in
# a number and has no colon.
_REFUSAL = re.compile(r"(.*): .*? \(os error (\d+)\)", re.DOTALL)


class FileError(Error, OSError):
    """The system refused to read or write. `errno`, `strerror` and `filename` are set where they are known."""

    default_status = _abi.E_IO
    _default_errno: Optional[int] = None

    def __init__(self, message: str, status: Optional[int] = None, detail: str = "", filename: Optional[str] = None) -> None:
        super().__init__(message, status, detail)
        refusal = _REFUSAL.fullmatch(message)
        self.errno = int(refusal[2]) if refusal else self._default_errno
        if self.errno is not None:
            self.strerror = os.strerror(self.errno)
        self.filename = filename or (refusal[1] if refusal else None)

    def __str__(self) -> str:
        # OSError would print its number and path instead.
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status, self.detail, self.filename)


class NotFound(FileError, FileNotFoundError):
    """A file or folder is not there."""

    default_status = _abi.E_NOT_FOUND
    _default_errno = errno.ENOENT


class OutOfMemory(Error, MemoryError):
    """Not enough memory, of the machine or of its device."""

    default_status = _abi.E_RESOURCE_EXHAUSTED


class DeviceError(Error, RuntimeError):
    """The device failed or does not exist."""

    default_status = _abi.E_DEVICE


class BadFormat(Error, ValueError):
    """A file is not what its name says: truncated, malformed, incomplete, or with impossible numbers in it."""

    default_status = _abi.E_BAD_FORMAT


class UnsupportedModel(BadFormat):
    """A model of a family, or with a feature, that this library does not know."""

    default_status = _abi.E_UNSUPPORTED_MODEL


class Cancelled(Error):
    """The call was stopped by `Run.cancel`."""

    default_status = _abi.E_CANCELLED


class NotSupported(Error):
    """This build or this machine cannot do it."""

    default_status = _abi.E_NOT_SUPPORTED


class LibraryError(NotSupported):
    """The shared library is missing, does not load, or is too old for this package."""

    default_status = _abi.E_ABI_MISMATCH


class Forked(NotSupported):
    """The object belongs to the process that this one was forked from; open it again here, or start processes by spawn."""

    default_status = _abi.E_FORKED


class InternalError(Error, RuntimeError):
    """A defect of the library; please report it."""


_BY_STATUS: dict[int, type[Error]] = {
    _abi.E_INVALID_STATE: InvalidState,
    _abi.E_REENTRANT: InvalidState,
    _abi.E_WRONG_MODEL: WrongModel,
    _abi.E_IO: FileError,
    _abi.E_NOT_FOUND: NotFound,
    _abi.E_RESOURCE_EXHAUSTED: OutOfMemory,
    _abi.E_DEVICE: DeviceError,
    _abi.E_UNSUPPORTED_MODEL: UnsupportedModel,
    _abi.E_ABI_MISMATCH: LibraryError,
    _abi.E_FORKED: Forked,
}

# Statuses of one hundred are of one sort, those that later libraries add too.
_BY_GROUP: dict[int, type[Error]] = {
    1: InvalidArgument, 3: BadFormat, 4: Cancelled, 5: NotSupported, 9: InternalError,
}


def from_status(status: int, message: str, detail: str = "", paths: Sequence[str] = ()) -> Error:
    """The exception for a status of the C library, from a call that was given some texts, paths among them."""
    kind = _BY_STATUS.get(status) or _BY_GROUP.get(status // 100, Error)
    message = message or f"the library failed with status {status}"
    if issubclass(kind, FileError):
        return kind(message, status, detail, _path(message, paths))
    return kind(message, status, detail)


def _path(message: str, paths: Sequence[str]) -> Optional[str]:
    """The path that a message begins with: one of those given, or one inside of it."""
    for path in paths:
        if path and message.startswith(path):
            end = message.find(": ", len(path))
            return message[:end] if end > 0 else None
    return None
