"""Grids of image tokens, and what was drawn."""
from __future__ import annotations

import os
from ctypes import POINTER, byref, c_size_t, c_uint32
from typing import TYPE_CHECKING, Any, Optional

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
    """The image tokens of one picture: a grid of indices into the model's codebook. Never changes.

    `Tokens(grid)` makes them from an array of whole numbers, [height, width]; whether a model knows them is checked where
    they meet one.
    """

    def __init__(self, grid: npt.ArrayLike) -> None:
        array = np.asarray(grid)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            message = f"grid: whole numbers in [height, width] are needed, not {array.dtype} in {list(array.shape)}"
            raise InvalidArgument(message)
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**32:
            raise InvalidArgument(f"grid: codes go from 0 up, these from {array.min()} to {array.max()}")
        height, width = array.shape
        codes = np.ascontiguousarray(array, np.uint32)
        pointer = codes.ctypes.data_as(POINTER(c_uint32))
        self._handle = make("tokens", "sitter_tokens_from_array", pointer, width, height)
        self._grid: Optional[Grid] = None

    @classmethod
    def _of(cls, handle: Handle) -> "Tokens":
        tokens = cls.__new__(cls)
        tokens._handle, tokens._grid = handle, None
        return tokens

    @property
    def grid(self) -> Grid:
        """int64 of [height, width], not writable."""
        if self._grid is None:
            width, height, needed = c_uint32(), c_uint32(), c_size_t()
            call("sitter_tokens_grid", self._handle, byref(width), byref(height))
            codes = np.empty((height.value, width.value), np.uint32)
            pointer = codes.ctypes.data_as(POINTER(c_uint32))
            call("sitter_tokens_copy", self._handle, pointer, codes.size, byref(needed))
            grid = codes.astype(np.int64)
            grid.flags.writeable = False
            self._grid = grid
        return self._grid

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in tokens."""
        height, width = self.grid.shape
        return height, width

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> npt.NDArray[Any]:
        return np.array(self.grid, dtype) if copy or dtype is not None else self.grid

    def __repr__(self) -> str:
        return f"<sitter.Tokens {self.shape[0]}x{self.shape[1]}>"


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
