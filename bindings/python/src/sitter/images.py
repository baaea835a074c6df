"""Pictures in every form that Python programs have them in."""
from __future__ import annotations

import os
import sys
from ctypes import POINTER, c_float, c_size_t, c_uint8, c_uint32, byref
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from ._library import Handle, call, make, path_utf8
from .errors import InvalidArgument

Pixels = npt.NDArray[np.uint8]

ImageLike = Union[str, "os.PathLike[str]", npt.NDArray[Any], Any]
"""A path to a PNG, JPEG or WebP file; a Pillow image; or an array, also a torch tensor on any device: uint8, or float from 0
to 1, of shape [height, width] (grey), or [height, width, channels] with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA)
channels. Transparency is laid on white; of references that are transparent in places a training learns what shows the subject only
(`masked_training`). A batch [pictures, height, width, channels] is as many pictures.

Floats a little out of 0 to 1, as resampling leaves them, are clipped; those that go from -1 or up to 255 are refused."""

# Floats beyond these are of another scale; what sharp edges overshoot by is less.
LOWEST, HIGHEST = -0.25, 2.0


def pictures(images: "ImageLike | list[ImageLike] | tuple[ImageLike, ...]") -> list[Handle]:
    """The pictures in anything that holds some."""
    if isinstance(images, (list, tuple)):
        return [handle for image in images for handle in pictures(image)]
    if isinstance(images, (str, os.PathLike)):
        return [make("image", "sitter_image_open", path_utf8(images, "image"))]
    if _is_pillow(images):
        return [_from_array(_pillow_pixels(images))]
    array = _as_array(images)
    if array.ndim == 4:
        return [_from_array(one) for one in array]
    return [_from_array(array)]


def picture(image: ImageLike) -> Handle:
    """One picture."""
    found = pictures(image)
    if len(found) != 1:
        raise InvalidArgument(f"image: one picture is needed, {len(found)} were given")
    return found[0]


def to_array(image: Handle) -> Pixels:
    """The pixels of a picture of the library: uint8 of [height, width, 3]."""
    width, height = c_uint32(), c_uint32()
    call("sitter_image_size", image, byref(width), byref(height))
    pixels = np.empty((height.value, width.value, 3), np.uint8)
    needed = c_size_t()
    call("sitter_image_copy_rgb8", image, pixels.ctypes.data_as(POINTER(c_uint8)), pixels.size, byref(needed))
    return pixels


def _is_pillow(image: Any) -> bool:
    # Who has a Pillow image has imported Pillow.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _pillow_pixels(image: Any) -> Pixels:
    """As the library reads files: upright, transparency kept for `_from_array`, high bytes of 16-bit grey."""
    from PIL import ImageOps

    # Older versions of Pillow read 16-bit PNG files so; else the numbers may be of any size.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode[0] in "IF" and not deep:
        raise InvalidArgument(f"image: Pillow's mode {image.mode} does not say what is white; convert it to L, I;16 or RGB")
    if image.mode == "LAB":
        raise InvalidArgument("image: Pillow cannot convert its mode LAB; convert it to RGB with PIL.ImageCms")
    image = ImageOps.exif_transpose(image)
    if deep:
        return np.asarray(np.asarray(image) >> 8, np.uint8)
    # A single transparent colour of an RGB picture is no transparency to the library either.
    transparent = "A" in image.getbands() or "a" in image.getbands() or ("transparency" in image.info and image.mode != "RGB")
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _as_array(image: Any) -> npt.NDArray[Any]:
    # A torch tensor, without importing torch: away from its graph and its device, and in a type that numpy knows.
    if hasattr(image, "detach") and hasattr(image, "cpu"):
        image = image.detach().cpu()
        try:
            return np.asarray(image)
        except TypeError:
            return np.asarray(image.float())
    if not isinstance(image, np.ndarray) and not hasattr(image, "__array__"):
        raise TypeError(f"image must be a path, a Pillow image or an array, not {type(image).__name__}")
    return np.asarray(image)


def _from_array(array: npt.NDArray[Any]) -> Handle:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise InvalidArgument(
            f"image: an array of shape {_shape(array)} is no picture; [height, width], [height, width, channels] and batches of "
            "these are, with 1 to 4 channels last"
        )
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise InvalidArgument(f"image: an array of shape {_shape(array)} has no pixels")
    transparent = array.shape[2] in (2, 4)
    name, item = ("sitter_image_from_rgba8" if transparent else "sitter_image_from_rgb8"), c_uint8
    pixels: npt.NDArray[Any]
    if array.dtype == np.uint8:
        pixels = np.ascontiguousarray(_coloured(array), np.uint8)
    elif array.dtype.kind == "f":
        # Clipped by the library; but another scale is a mistake that would come out as a white picture, or one without shadows.
        low, high = array.min(), array.max()
        if np.isnan(high):
            raise InvalidArgument("image: pixels contain NaN")
        if high >= HIGHEST:
            raise InvalidArgument(f"image: float pixels go from 0 to 1, these up to {high:g}; divide by 255?")
        if low < LOWEST:
            raise InvalidArgument(f"image: float pixels go from 0 to 1, these from {low:g}; bring them there by (x + 1) / 2?")
        if transparent:
            pixels = np.ascontiguousarray(np.rint(np.clip(_coloured(array), 0, 1) * 255), np.uint8)
        else:
            name, pixels, item = "sitter_image_from_f32", np.ascontiguousarray(_coloured(array), np.float32), c_float
    else:
        hint = "; for a grid of tokens use sitter.Tokens(grid)" if array.dtype.kind in "iu" else ""
        raise InvalidArgument(f"image: pixels are uint8 or float, these are {array.dtype}{hint}")
    height, width = pixels.shape[:2]
    if max(height, width) > 0xFFFF_FFFF:
        raise InvalidArgument(f"image: {width}x{height} pixels are too many")
    return make("image", name, pixels.ctypes.data_as(POINTER(item)), width, height, 0)


def _coloured(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """RGB of grey, RGBA of grey with alpha."""
    return array[:, :, [0, 0, 0, 1][: array.shape[2] + 2]] if array.shape[2] < 3 else array


def _shape(array: npt.NDArray[Any]) -> str:
    return "[" + ", ".join(map(str, array.shape)) + "]"
