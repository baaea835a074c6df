"""Options by name: which there are, and which types they take, stands in the prototypes of the C setters."""
from __future__ import annotations

import difflib
import inspect
import operator
import os
import textwrap
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_uint32, c_uint64
from typing import Any, Callable, NoReturn, Optional, TypeVar

import numpy as np

from . import _abi
from ._library import Handle, call, make, path_utf8, read_json, texts, utf8
from ._options import MEANINGS
from .errors import InvalidArgument

F = TypeVar("F", bound=Callable[..., Any])

_BITS: dict[Any, int] = {c_uint32: 32, c_uint64: 64}
_NUMPY: dict[Any, Any] = {c_uint32: np.uint32, c_float: np.float32}


class Options:
    """An option object of the library: `kind` is "model", "sample" or "train", `origin` the function that makes it."""

    def __init__(self, kind: str, *arguments: Any, origin: str = "new") -> None:
        self._prefix = f"sitter_{kind}_options_"
        self._kind = kind
        self.handle: Handle = make(f"{kind}_options", self._prefix + origin, *arguments)

    def names(self) -> list[str]:
        """All options that can be set."""
        setter = self._prefix + "set_"
        return [name[len(setter):] for name in _abi.PROTOTYPES if name.startswith(setter)]

    def set(self, name: str, value: Any) -> None:
        """Sets one option. TypeError for an unknown name or a value of another type, InvalidArgument for one out of range."""
        if name not in self.names():
            self._unknown(name)
        # The options, the value, or an array and its length, and the error.
        types = _abi.PROTOTYPES[f"{self._prefix}set_{name}"][1][1:-1]
        values = [_scalar(types[0], value, name)] if len(types) == 1 else _array(types[0]._type_, value, name)
        call(f"{self._prefix}set_{name}", self.handle, *values)

    def update(self, **values: Any) -> None:
        """Sets those that are not None."""
        for name, value in values.items():
            if value is not None:
                self.set(name, value)

    def as_dict(self) -> dict[str, Any]:
        """All options with their values."""
        found: dict[str, Any] = read_json(self._prefix + "get_json", self.handle)
        return found

    def _unknown(self, name: str) -> NoReturn:
        near = difflib.get_close_matches(name, self.names(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "there are " + ", ".join(self.names())
        raise TypeError(f"{self._kind}: there is no option {name!r}; {hint}")


def engine(threads: int, max_jobs: int) -> Handle:
    """An engine that works with so many threads a call and so many calls at a time."""
    options = Options("engine")
    options.set("threads", threads)
    options.set("max_jobs", max_jobs)
    return make("engine", "sitter_engine_new", options.handle)


def explaining(kind: str) -> "Callable[[F], F]":
    """Adds to a function's documentation the options that it takes by name beside its arguments, and what each means."""

    def explain(function: F) -> F:
        own = inspect.signature(function).parameters
        lines = []
        for name, meaning in MEANINGS[kind].items():
            if name not in own:
                lines += textwrap.wrap(f"{name}: {meaning}", 116, initial_indent=" " * 8, subsequent_indent=" " * 12)
        function.__doc__ = (function.__doc__ or "").rstrip() + "\n\n" + "\n".join(lines) + "\n        "
        return function

    return explain


def _scalar(kind: Any, value: Any, name: str) -> Any:
    if kind is c_char_p:
        if value is None:
            return None
        return path_utf8(value, name) if isinstance(value, os.PathLike) else utf8(value, name)
    if kind is c_int32:
        return _flag(value, name)
    if kind is c_double:
        return _number(value, name)
    return whole(value, _BITS[kind], name)


def _array(item: Any, value: Any, name: str) -> list[Any]:
    """A pointer and a count; None and an empty list are none."""
    if value is None:
        return [None, 0]
    if item is c_char_p:
        if isinstance(value, (str, bytes)):
            _wrong(name, "a list of str", value)
        found = [utf8(text, name) for text in _items(value, name, "a list of str")]
        return [texts(found), len(found)]
    numbers: list[Any]
    if item is c_uint32:
        numbers = [whole(one, 32, name) for one in _items(value, name, "a list of int")]
    else:
        rows = np.asarray(value).ravel().tolist() if isinstance(value, (list, tuple, np.ndarray)) else value
        numbers = [_number(one, name) for one in _items(rows, name, "a list of float")]
    array = np.asarray(numbers, _NUMPY[item])
    return [array.ctypes.data_as(POINTER(item)), len(array)]


def _items(value: Any, name: str, wanted: str) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        _wrong(name, wanted, value)


def _flag(value: Any, name: str) -> int:
    if not isinstance(value, (bool, np.bool_)) and not (type(value) is int and value in (0, 1)):
        _wrong(name, "a bool", value)
    return int(value)


def _number(value: Any, name: str) -> float:
    if isinstance(value, (bool, np.bool_, str, bytes)):
        _wrong(name, "a number", value)
    number: float = _converted(float, value, name, "a number")
    return number


def whole(value: Any, bits: int, name: str, allowed: Optional[range] = None) -> int:
    """A whole number that fits into so many bits, or is one of the allowed ones."""
    if isinstance(value, (bool, np.bool_)):
        _wrong(name, "an int", value)
    number: int = _converted(operator.index, value, name, "an int")
    if allowed is not None and number not in allowed:
        raise InvalidArgument(f"{name}: is {number}; allowed are {allowed[0]} to {allowed[-1]}")
    # ctypes would cut it down without a word. Which numbers are allowed is for the library to say, of those that it can be given.
    if number < 0:
        raise InvalidArgument(f"{name}: is {number}; negative numbers are not allowed")
    if number >= 2**bits:
        raise InvalidArgument(f"{name}: is {number}; numbers of {bits} bits are the largest that can be given")
    return number


def _converted(convert: Callable[[Any], Any], value: Any, name: str, wanted: str) -> Any:
    try:
        return convert(value)
    except TypeError:
        _wrong(name, wanted, value)


def _wrong(name: str, wanted: str, value: Any) -> NoReturn:
    raise TypeError(f"{name} must be {wanted}, not {value!r}")
