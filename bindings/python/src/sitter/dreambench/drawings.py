"""Pictures inside a page: thumbnails as data, curves and bars as SVG."""
from __future__ import annotations

import base64
import struct
import zlib
from html import escape
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from ..images import Pixels, picture, to_array


def thumbnail(path: Path, side: int) -> Optional[str]:
    """A small picture as a data address; None if the file cannot be read."""
    try:
        pixels = to_array(picture(path))
    except (OSError, ValueError):
        return None
    return "data:image/png;base64," + base64.b64encode(png(smaller(pixels, side))).decode("ascii")


def smaller(pixels: Pixels, side: int) -> Pixels:
    """Each pixel the mean of those that it stands for; pictures that are small already stay as they are."""
    height, width = pixels.shape[:2]
    scale = max(height, width) / side
    if scale <= 1:
        return pixels
    rows, columns = (np.linspace(0, n, max(1, round(n / scale)) + 1).astype(int)[:-1] for n in (height, width))
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float64), rows, 0), columns, 1)
    counts = np.diff([*rows, height])[:, None, None] * np.diff([*columns, width])[None, :, None]
    # Fewer levels make the file half as long; nobody sees it at this size.
    level: Pixels = (np.round(sums / counts / 8) * 8).clip(0, 255).astype(np.uint8)
    return level


def png(pixels: Pixels) -> bytes:
    """A PNG file of RGB pixels, each row as what it differs from the one above."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, width * 3).astype(np.int16)
    differences = np.diff(rows, axis=0, prepend=np.zeros((1, width * 3), np.int16)).astype(np.uint8)
    lines = np.concatenate([np.full((height, 1), 2, np.uint8), differences], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def histogram(values: "Sequence[float]", title: str, marks: "Sequence[tuple[str, float]]" = (), bins: int = 24) -> str:
    """Bars over the range of the values, with marked places."""
    width, height, foot = 300, 110, 18
    low, high = min([*values, *(at for _, at in marks)]), max([*values, *(at for _, at in marks)])
    low, high = (low - 0.01, high + 0.01)
    counts = np.histogram(values, bins, (low, high))[0]
    most, step = max(int(counts.max()), 1), width / bins

    def place(value: float) -> float:
        return (value - low) / (high - low) * width

    parts = [
        f'<rect x="{i * step:.1f}" y="{height - n / most * height:.1f}" width="{step - 1:.1f}" height="{n / most * height:.1f}"/>'
        for i, n in enumerate(counts.tolist()) if n
    ]
    parts += [
        f'<line class="mark" x1="{place(at):.1f}" x2="{place(at):.1f}" y1="0" y2="{height}"><title>{escape(name)} {at:.3f}</title></line>'
        for name, at in marks
    ]
    ends = f'<text x="0" y="{height + 14}">{low:.2f}</text><text x="{width}" y="{height + 14}" text-anchor="end">{high:.2f}</text>'
    mean = f"mean {np.mean(values):.3f}, {len(values)} pictures"
    return (f'<figure><svg viewBox="0 0 {width} {height + foot}" class="bars" role="img"><title>{escape(title)}</title>'
            f'{"".join(parts)}{ends}</svg><figcaption>{escape(title)}: {mean}</figcaption></figure>')


def curve(losses: "Sequence[tuple[str, int, float]]") -> str:
    """Losses over the steps, a line for each stage."""
    width, height, most = 300, 80, 200
    values = [loss for _, _, loss in losses]
    low, high = min(values), max(values)
    scale = (high - low) or 1.0
    lines = []
    for stage in dict.fromkeys(stage for stage, _, _ in losses):
        points = [(i, loss) for i, (of, _, loss) in enumerate(losses) if of == stage]
        every = max(1, len(points) // most)
        path = " ".join(
            f"{i / max(1, len(losses) - 1) * width:.1f},{(high - loss) / scale * height:.1f}" for i, loss in points[::every]
        )
        lines.append(f'<polyline class="{escape(stage)}" points="{path}"><title>{escape(stage)}</title></polyline>')
    text = f'<text x="2" y="10">{high:.2f}</text><text x="2" y="{height}">{low:.2f}</text>'
    return f'<svg viewBox="0 0 {width} {height}" class="curve" role="img"><title>loss</title>{"".join(lines)}{text}</svg>'
