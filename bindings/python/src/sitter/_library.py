"""The shared library: found and loaded at first use, every call checked."""
from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import weakref
from ctypes import byref, c_char_p, c_size_t, c_void_p
from typing import Any, NoReturn, Optional

from . import _abi
from .errors import LibraryError, from_status

# What cargo names it.
FILE = {"win32": "sitter.dll", "darwin": "libsitter.dylib"}.get(sys.platform, "libsitter.so")
VARIABLE = "SITTER_LIBRARY"

_lock = threading.Lock()
_loaded: Optional["Library"] = None


class Library:
    """A loaded library. Its functions release the GIL."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._functions: dict[str, Any] = {}
        try:
            self._dll = ctypes.CDLL(path)
        except OSError as e:
            raise LibraryError(f"{path} cannot be loaded: {e}") from e
        self.call("sitter_require_abi", _abi.ABI_MAJOR, _abi.ABI_MINOR)

    def function(self, name: str) -> Any:
        """A function with its types set."""
        found = self._functions.get(name)
        if found is None:
            try:
                found = getattr(self._dll, name)
            except AttributeError:
                message = f"{self.path} has no function {name}: it is not a Sitter library, or too old for this package"
                raise LibraryError(message) from None
            found.restype, found.argtypes = _abi.PROTOTYPES[name]
            self._functions[name] = found
        return found

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function that returns a status and takes an error last. Raises what it reports."""
        error = c_void_p()
        status = self.function(name)(*arguments, byref(error))
        if status != _abi.OK:
            self._fail(status, error, [a.decode("utf-8", "replace") for a in arguments if isinstance(a, bytes)])

    def _fail(self, status: int, error: c_void_p, given: "list[str]") -> NoReturn:
        def text(name: str) -> str:
            return bytes(self.function(name)(error)).decode("utf-8", "replace")

        try:
            message, detail = text("sitter_error_message"), text("sitter_error_detail")
        finally:
            self.function("sitter_error_free")(error)
        raise from_status(status, message, detail, given)


class Handle:
    """Owns one handle of the library: frees it when nothing in Python holds it any more, from whatever thread.

    A call that is under way holds it too, so no other thread can free what the call works with.
    """

    def __init__(self, noun: str, pointer: c_void_p) -> None:
        # ctypes passes this where a function takes a pointer.
        self._as_parameter_ = pointer
        finalizer = weakref.finalize(self, library().function(f"sitter_{noun}_free"), pointer)
        # At exit the system takes back what is left. Freed then, handles would go from under the feet of daemon threads.
        finalizer.atexit = False

    def __reduce__(self) -> NoReturn:
        raise TypeError("objects of the sitter library cannot be pickled or copied deeply: open or load them again")


def library() -> Library:
    """The library, loaded at the first call."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = Library(_find())
    return _loaded


def _find() -> str:
    chosen = os.environ.get(VARIABLE)
    if chosen:
        if not os.path.isfile(chosen):
            raise LibraryError(f"the library {chosen!r}, named by the variable {VARIABLE}, is not there")
        return os.path.abspath(chosen)
    inside = os.path.join(os.path.dirname(os.path.abspath(__file__)), FILE)
    if not os.path.isfile(inside):
        raise LibraryError(
            f"the Sitter library was not found: {inside} is not there and the variable {VARIABLE} is not set; install the "
            f"package with pip, or build the library with cargo and set {VARIABLE} to its path"
        )
    return inside


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the library and raises what it reports."""
    library().call(name, *arguments)


def make(noun: str, name: str, *arguments: Any) -> Handle:
    """Calls a function whose result is a handle."""
    out = c_void_p()
    library().call(name, *arguments, byref(out))
    return Handle(noun, out)


def read_json(name: str, *arguments: Any) -> Any:
    """Calls a function that copies a JSON text out."""
    needed = c_size_t()
    call(name, *arguments, None, 0, byref(needed))
    buffer = ctypes.create_string_buffer(needed.value)
    call(name, *arguments, buffer, needed.value, byref(needed))
    return json.loads(buffer.value.decode("utf-8"))


def static_text(name: str) -> str:
    """Calls a function without arguments that gives a text."""
    return bytes(library().function(name)()).decode("utf-8")


def utf8(text: str, name: str) -> bytes:
    """A text as the library takes it."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    return _terminated(text.encode("utf-8", "surrogateescape"), name)


def path_utf8(path: "str | os.PathLike[str]", name: str = "path") -> bytes:
    """A path as the library takes it: UTF-8 on every system."""
    try:
        plain = os.fspath(path)
    except TypeError:
        raise TypeError(f"{name} must be a path, not {type(path).__name__}") from None
    return _terminated(plain, name) if isinstance(plain, bytes) else utf8(plain, name)


def _terminated(text: bytes, name: str) -> bytes:
    if b"\0" in text:
        raise from_status(_abi.E_INVALID_ARGUMENT, f"{name}: contains a NUL character")
    return text


def pointers(handles: "list[Handle]") -> Any:
    """An array of handles."""
    return (c_void_p * len(handles))(*[h._as_parameter_ for h in handles])


def texts(values: "list[bytes]") -> Any:
    """An array of texts."""
    return (c_char_p * len(values))(*values)
