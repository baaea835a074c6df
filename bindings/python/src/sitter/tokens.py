"""Grids of image tokens, and what was drawn."""
from __future__ import annotations

import os
from ctypes import POINTER, byref, c_size_t, c_uint32
from typing import TYPE_CHECKING, Any, Iterable, Optional

import numpy as np
import numpy.typing as npt

from ._library import Handle, call, make, path_utf8
from .errors import InvalidArgument
from .images import Pixels, to_array
from .run import Job, Progress, Run

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Grid = npt.NDArray[np.int64]


class Tokens:
    """The image tokens of one picture: a grid of indices into the model's codebook, or one for each scale of models that draw
    scale after scale (Infinity). Never changes.

    `Tokens(grid)` makes them from an array of whole numbers, [height, width], `Tokens.of_grids(grids)` from several, coarse to
    fine; whether a model knows them is checked where they meet one.
    """

    def __init__(self, grid: npt.ArrayLike) -> None:
        codes = _codes(grid, "grid")
        height, width = codes.shape
        self._handle = make("tokens", "sitter_tokens_from_array", _pointer(codes), width, height)
        self._grids: Optional[tuple[Grid, ...]] = None

    @classmethod
    def of_grids(cls, grids: Iterable[npt.ArrayLike]) -> "Tokens":
        """Tokens of several grids, each whole numbers in [height, width], coarse to fine."""
        arrays = [_codes(grid, f"grids[{i}]") for i, grid in enumerate(grids)]
        heights, widths = (np.array([array.shape[axis] for array in arrays], np.uint32) for axis in (0, 1))
        codes = np.concatenate([array.ravel() for array in arrays] or [np.empty(0, np.uint32)])
        pointers = (_pointer(codes), _pointer(widths), _pointer(heights))
        return cls._of(make("tokens", "sitter_tokens_from_grids", *pointers, len(arrays)))

    @classmethod
    def _of(cls, handle: Handle) -> "Tokens":
        tokens = cls.__new__(cls)
        tokens._handle, tokens._grids = handle, None
        return tokens

    @property
    def grids(self) -> tuple[Grid, ...]:
        """All grids, coarse to fine: int64 of [height, width] each, not writable. Most models have one."""
        if self._grids is None:
            count, needed, shapes = c_size_t(), c_size_t(), []
            call("sitter_tokens_grid_count", self._handle, byref(count))
            for i in range(count.value):
                width, height = c_uint32(), c_uint32()
                call("sitter_tokens_grid_at", self._handle, i, byref(width), byref(height))
                shapes.append((height.value, width.value))
            codes = np.empty(sum(height * width for height, width in shapes), np.uint32)
            call("sitter_tokens_copy", self._handle, _pointer(codes), codes.size, byref(needed))
            grids, first = [], 0
            for height, width in shapes:
                grid = codes[first:first + height * width].astype(np.int64).reshape(height, width)
                grid.flags.writeable = False
                grids.append(grid)
                first += height * width
            self._grids = tuple(grids)
        return self._grids

    @property
    def grid(self) -> Grid:
        """int64 of [height, width], not writable; of several grids, the last one."""
        return self.grids[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in tokens; of several grids, of the last one."""
        height, width = self.grid.shape
        return height, width

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> npt.NDArray[Any]:
        return np.array(self.grid, dtype) if copy or dtype is not None else self.grid

    def __repr__(self) -> str:
        scales = f" in {len(self.grids)} scales" if len(self.grids) > 1 else ""
        return f"<sitter.Tokens {self.shape[0]}x{self.shape[1]}{scales}>"


def _codes(grid: npt.ArrayLike, name: str) -> "npt.NDArray[np.uint32]":
    array = np.asarray(grid)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        message = f"{name}: whole numbers in [height, width] are needed, not {array.dtype} in {list(array.shape)}"
        raise InvalidArgument(message)
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**32:
        raise InvalidArgument(f"{name}: codes go from 0 up, these from {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, np.uint32)


def _pointer(numbers: "npt.NDArray[np.uint32]") -> Any:
    return numbers.ctypes.data_as(POINTER(c_uint32))


def as_tokens(tokens: "Tokens | npt.ArrayLike") -> Tokens:
    """Tokens of tokens or of a grid."""
    return tokens if isinstance(tokens, Tokens) else Tokens(tokens)


def decode(model: Handle, tokens: Tokens, progress: Progress, run: Optional[Run]) -> Handle:
    """The picture of tokens, as a handle."""
    with Job(run, progress) as job:
        return job.perform(lambda r: make("image", "sitter_image_decode", model, tokens._handle, r))


class Sample:
    """A picture that a model drew: its tokens, and the picture once it is asked for."""

    def __init__(self, model: Handle, tokens: Tokens) -> None:
        self.tokens = tokens
        self._model = model
        self._decoded: Optional[Handle] = None

    @property
    def _picture(self) -> Handle:
        if self._decoded is None:
            self._decoded = decode(self._model, self.tokens, None, None)
        return self._decoded

    @property
    def image(self) -> Pixels:
        """uint8 of [height, width, 3]. Decoded at the first use, which takes about as long as `Model.decode`."""
        return to_array(self._picture)

    @property
    def image_pil(self) -> "PillowImage":
        """As a Pillow image; needs Pillow."""
        from PIL import Image

        return Image.fromarray(self.image)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Writes a PNG file with a text chunk `sitter` that says what made the picture: model, prompt, seed, options. The
        file appears whole or not at all."""
        call("sitter_image_save_png", self._picture, path_utf8(path))

    def __repr__(self) -> str:
        return f"<sitter.Sample of {self.tokens!r}>"
