"""Pictures between ComfyUI and the library. ComfyUI's IMAGE is a torch tensor, float32 of [pictures, height, width, 3], 0 to 1."""
from __future__ import annotations

import hashlib
import os
from typing import Any, Iterable, Optional, Sequence

import numpy as np

from .messages import NodeError

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "pictures")
# Class word of each bundled subject, which is its folder too.
EXAMPLES = ("fox", "dog", "robot")


def split(images: Any, field: str = "images") -> list[np.ndarray]:
    """Single pictures, float32 of [height, width, 3], 4 with transparency, out of a batch, a list of batches of any sizes, or one picture."""
    found: list[np.ndarray] = []
    for batch in images if isinstance(images, (list, tuple)) else [images]:
        if batch is None:
            continue
        array = _array(batch)
        if array.ndim == 3:
            array = array[None]
        if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape:
            raise NodeError(
                f"{field}: {list(array.shape)} is no batch of pictures; [pictures, height, width, 3] is. Connect an IMAGE output."
            )
        found += [_coloured(one) for one in array]
    if not found:
        raise NodeError(f"{field}: there is no picture. Connect an IMAGE output with at least one.")
    return found


def batch(pictures: Sequence[np.ndarray]) -> Any:
    """ComfyUI's IMAGE of pictures of one size, uint8 or float."""
    import torch

    array = np.stack(list(pictures))
    if array.dtype == np.uint8:
        # As LoadImage does it, so that a saved and loaded picture is the same tensor.
        array = array.astype(np.float32) / 255.0
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def captions_for(count: int, captions: Optional[Iterable[Optional[str]]]) -> Optional[list[str]]:
    """One caption for each picture, or None for templates: as core's MakeTrainingDataset takes them."""
    given = [text or "" for text in captions] if captions is not None else []
    if not any(text.strip() for text in given):
        return None
    if len(given) == 1:
        return given * count
    if len(given) != count:
        raise NodeError(f"captions: {len(given)} for {count} pictures. Connect one for each picture, or one alone for all.")
    empty = sum(not text.strip() for text in given)
    if empty:
        raise NodeError(f"captions: {empty} of {count} are empty. Give all pictures a caption, or none.")
    return given


def in_order(pictures: list[np.ndarray], captions: Optional[list[str]]) -> tuple[list[np.ndarray], Optional[list[str]]]:
    """By content: folder loaders list files in any order, and the same pictures have to give the same subject."""
    texts = captions or [""] * len(pictures)
    rows = sorted(zip(pictures, texts), key=lambda row: (digest(row[0]), row[1]))
    return [row[0] for row in rows], [row[1] for row in rows] if captions else None


def digest(picture: np.ndarray) -> str:
    """Of size and pixels."""
    return hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def examples(subject: str) -> list[np.ndarray]:
    """The bundled reference pictures of a subject."""
    from PIL import Image

    if subject not in EXAMPLES:
        raise NodeError(f"subject: {subject!r} is not bundled; there are {', '.join(EXAMPLES)}.")
    folder = os.path.join(FOLDER, subject)
    return [
        np.asarray(Image.open(os.path.join(folder, file)).convert("RGBA"))
        for file in sorted(os.listdir(folder)) if file.endswith(".png")
    ]


def on_white(picture: np.ndarray) -> np.ndarray:
    """Without transparency."""
    if picture.shape[2] == 3:
        return picture
    alpha = picture[:, :, 3:]
    return picture[:, :, :3] * alpha + (1.0 - alpha)


def _array(image: Any) -> np.ndarray:
    # A torch tensor, of half precision too; numpy knows no bfloat16.
    if hasattr(image, "detach"):
        image = image.detach().cpu().float().numpy()
    return np.asarray(image, np.float32)


def _coloured(picture: np.ndarray) -> np.ndarray:
    picture = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    # Resizing nodes overshoot a little; NaN would be refused by the library.
    return np.ascontiguousarray(np.clip(np.nan_to_num(picture), 0.0, 1.0), np.float32)
