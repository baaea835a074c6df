"""The two pictures that nodes draw themselves: loss curves and contact sheets. Pillow and numpy only."""
from __future__ import annotations

import math
from typing import Any, Optional, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Losses = Sequence[tuple[str, int, float]]

INK, GREY, FAINT, PAPER = "#222222", "#777777", "#dddddd", "#ffffff"
# Distinguishable with the common forms of colour blindness (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def loss_curve(curves: Sequence[tuple[str, Losses]], width: int = 800, height: int = 480, smooth: int = 9) -> Any:
    """A Pillow image: the loss of each step, faint, and its running mean; a dashed line where a curve enters the second stage."""
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    font = _font(13 if width >= 400 else 10)
    drawn = [(label, [x for x in losses if math.isfinite(x[2])]) for label, losses in curves]
    values = [x[2] for _, losses in drawn for x in losses]
    if not values:
        draw.text((10, 10), "no steps", INK, font)
        return image
    left, top, right, bottom = 46, 14, width - 12, height - 34
    steps = max(len(losses) for _, losses in drawn)
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or 0.5
    low, high = low - margin, high + margin

    def at(step: int, loss: float) -> tuple[float, float]:
        x = left + (right - left) * step / max(steps - 1, 1)
        return x, bottom - (bottom - top) * (loss - low) / (high - low)

    for value in _ticks(low, high):
        y = at(0, value)[1]
        draw.line([(left, y), (right, y)], FAINT)
        draw.text((left - 6, y), f"{value:g}", GREY, font, anchor="rm")
    for value in _ticks(0, max(steps - 1, 1)):
        if value == int(value):
            draw.text((at(int(value), low)[0], bottom + 5), f"{value:g}", GREY, font, anchor="mt")
    draw.text(((left + right) / 2, height - 4), "step", GREY, font, anchor="mb")
    draw.text((left + 5, top - 2), "loss, nats per token", GREY, font)
    draw.line([(left, top), (left, bottom), (right, bottom)], INK)
    for i, (label, losses) in enumerate(drawn):
        colour = COLOURS[i % len(COLOURS)]
        raw = [x[2] for x in losses]
        if len(raw) > 1:
            draw.line([at(k, v) for k, v in enumerate(raw)], _faded(colour))
            draw.line([at(k, v) for k, v in enumerate(_running_mean(raw, smooth))], colour, 2)
        for k in range(1, len(losses)):
            if losses[k][0] != losses[k - 1][0]:
                _dashed(draw, at(k, low)[0], top, bottom, colour)
        if label:
            y = top + 16 + 18 * i
            draw.line([(right - 190, y), (right - 170, y)], colour, 3)
            draw.text((right - 164, y), label, INK, font, anchor="lm")
    return image


def contact_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], cell: int = 160, columns: int = 8) -> Any:
    """A Pillow image: a titled row for each entry, pictures of any size (uint8 or float to 1) fitted into square cells."""
    columns = max(1, min(columns, max((len(pictures) for _, pictures in rows), default=1)))
    gap, font = 8, _font(max(12, cell // 11))
    title = font.getbbox("Ag")[3] + 8
    lines = [-(-len(pictures) // columns) for _, pictures in rows]
    titles = [_shortened(label, font, columns * (cell + gap)) for label, _ in rows]
    height = gap + sum((title if text else 0) + count * (cell + gap) for text, count in zip(titles, lines))
    sheet = Image.new("RGB", (gap + columns * (cell + gap), height), PAPER)
    draw, y = ImageDraw.Draw(sheet), gap
    for (_, pictures), text in zip(rows, titles):
        if text:
            draw.text((gap, y), text, INK, font)
            y += title
        for i, picture in enumerate(pictures):
            if i and i % columns == 0:
                y += cell + gap
            tile = _fitted(picture, cell)
            x = gap + (i % columns) * (cell + gap)
            sheet.paste(tile, (x + (cell - tile.width) // 2, y + (cell - tile.height) // 2))
        y += cell + gap if len(pictures) else 0
    return sheet


def pixels(image: Any) -> np.ndarray:
    """uint8 of [height, width, 3]."""
    return np.asarray(image.convert("RGB"))


def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size.
        return ImageFont.load_default()


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    half = width // 2
    return [float(np.mean(values[max(0, k - half):k + half + 1])) for k in range(len(values))]


def _faded(colour: str) -> tuple[int, ...]:
    return tuple((int(colour[i:i + 2], 16) + 3 * 255) // 4 for i in (1, 3, 5))


def _dashed(draw: Any, x: float, top: int, bottom: int, colour: str) -> None:
    for y in range(top, bottom, 8):
        draw.line([(x, y), (x, min(y + 4, bottom))], colour)


def _fitted(picture: np.ndarray, cell: int) -> Any:
    array = picture if picture.dtype == np.uint8 else np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(array)
    scale = cell / max(image.size)
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def _shortened(text: Optional[str], font: Any, width: int) -> str:
    text = (text or "").strip()
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text
