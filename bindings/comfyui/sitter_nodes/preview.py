"""Pictures that a node shows while it works: what is drawn so far, the loss curve, the subject every so many steps."""
from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Optional

import numpy as np
from PIL import Image

from . import drawings
from .wires import library

Clock = Callable[[], float]

# Seconds before the first picture that grows, and between two; decoding takes at most a tenth of the time.
FIRST, PAUSE, SHARE = 0.3, 1.0, 0.1
# Seconds between two loss curves.
CURVE_PAUSE = 0.7
WIDTH = 512
# Of what is not drawn yet.
GREY = 128
# Samples of a training that are shown side by side.
STRIP = 4


class Decoder:
    """Decodes grids beside a call of the same model, in a thread, one after the other."""

    def __init__(self, model: Any) -> None:
        self._model, self._closed, self._run = model, False, None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sitter-preview")

    def begin(self, tokens: Any, height: int) -> "Future[Any]":
        """The future picture of tokens, filled up with grey to `height` rows of tokens; one that comes scale after scale is whole
        from the first, and small."""
        return self._thread.submit(self._decode, tokens, height)

    def close(self) -> None:
        """Stops what is under way and waits for it."""
        self._closed = True
        if self._run is not None:
            self._run.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _decode(self, tokens: Any, height: int) -> Any:
        self._run = library().Run()
        if self._closed:
            self._run.cancel()
        picture = self._model.decode(tokens, run=self._run)
        # The first scale is one token, which is no row of any picture.
        scales = len(tokens.grids) > 1 or tokens.shape == (1, 1)
        return enlarged(picture) if scales else Image.fromarray(filled(picture, tokens.shape[0], height))


class Growing:
    """What a call draws, its first picture, as it grows. Give it to a `Watch` as its picture; a context manager."""

    def __init__(self, model: Any, run: Any, clock: Clock = time.monotonic) -> None:
        self.decoder, self._run, self._clock = Decoder(model), run, clock
        self._next, self._begun_at = clock() + FIRST, 0.0
        # Which picture is being decoded, and how many of its tokens.
        self._begun = (-1, 0)
        self._future: "Optional[Future[Any]]" = None

    def __enter__(self) -> "Growing":
        return self

    def __exit__(self, *_: Any) -> None:
        self.decoder.close()

    def __call__(self, event: Any, _: Any = ()) -> Any:
        """A picture if there is a new one. Begins with the next if it is time to."""
        picture = self._taken(event.item)
        if event.stage == "sample" and self._future is None and self._clock() >= self._next:
            tokens = self._run.tokens()
            drawn = sum(grid.size for grid in tokens.grids) if tokens is not None else 0
            if tokens is not None and (event.item, drawn) != self._begun:
                self._begun, self._begun_at = (event.item, drawn), self._clock()
                self._future = self.decoder.begin(tokens, event.total // tokens.shape[1])
        return picture

    def _taken(self, item: int) -> Any:
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        took = self._clock() - self._begun_at
        self._next = self._clock() + max(PAUSE, took / SHARE - took)
        return result(future) if self._begun[0] == item else None


class Curve:
    """The loss curve, for a `Watch`."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self._drawn_at, self._steps = clock, float("-inf"), 1

    def __call__(self, _: Any, losses: drawings.Losses) -> Any:
        if len(losses) <= self._steps or self._clock() - self._drawn_at < CURVE_PAUSE:
            return None
        self._drawn_at, self._steps = self._clock(), len(losses)
        return drawings.loss_curve([("", losses)], WIDTH, 320)


class Learning:
    """The loss curve, and below it the newest samples of the subject, which grow while they are drawn. A context manager."""

    def __init__(self, model: Any, run: Any, clock: Clock = time.monotonic) -> None:
        self._curve, self._growing, self._run = Curve(clock), Growing(model, run, clock), run
        self._drawn: Any = None
        # By number of the sample: the picture below the curve, and what is still to be decoded.
        self._tiles: dict[int, Any] = {}
        self._waiting: "dict[int, tuple[str, Future[Any]]]" = {}
        self._finished = -1

    def __enter__(self) -> "Learning":
        return self

    def __exit__(self, *_: Any) -> None:
        self._growing.__exit__()

    def __call__(self, event: Any, losses: drawings.Losses) -> Any:
        curve = self._curve(event, losses)
        self._drawn, decoded = curve or self._drawn, self._decoded()
        # Class pictures for prior preservation are drawn before anything is learned.
        sampled = self._sample(event, f"step {len(losses)}") if event.stage == "sample" and losses else False
        if curve is None and not decoded and not sampled:
            return None
        return stacked(self._drawn, [self._tiles[item] for item in sorted(self._tiles)[-STRIP:]])

    def complete(self) -> None:
        """Waits for what is still to be decoded."""
        wait([future for _, future in self._waiting.values()])

    def _sample(self, event: Any, label: str) -> bool:
        """Whether there is a new tile of the sample that is being drawn."""
        growing, tokens = self._growing(event), self._run.tokens()
        if event.done == event.total and event.item != self._finished and tokens is not None:
            self._finished = event.item
            self._waiting[event.item] = label, self._growing.decoder.begin(tokens, tokens.shape[0])
        if growing is not None:
            self._tiles[event.item] = labelled(growing, label)
        return growing is not None

    def _decoded(self) -> bool:
        """Whether there is a new tile of a sample that was drawn."""
        done = [item for item, (_, future) in self._waiting.items() if future.done()]
        for item in done:
            label, future = self._waiting.pop(item)
            picture = result(future)
            if picture is not None:
                self._tiles[item] = labelled(picture, label)
        return bool(done)


def result(future: "Future[Any]") -> Any:
    """None where it was stopped or failed: a preview is not worth an error."""
    return None if future.cancelled() or future.exception() is not None else future.result()


def still(picture: np.ndarray) -> Any:
    """A picture as it is."""
    return Image.fromarray(picture)


def enlarged(picture: np.ndarray) -> Any:
    """A picture brought to the size in which it is shown, if it is smaller, so that it does not jump from scale to scale."""
    height, width, _ = picture.shape
    factor = WIDTH / max(height, width)
    image = Image.fromarray(picture)
    if factor <= 1:
        return image
    return image.resize((max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BICUBIC)


def filled(picture: np.ndarray, rows: int, height: int) -> np.ndarray:
    """A picture of the upper `rows` of `height` rows of tokens, with grey for the others."""
    missing = picture.shape[0] // rows * (height - rows)
    return np.concatenate([picture, np.full((max(missing, 0), *picture.shape[1:]), GREY, picture.dtype)])


def labelled(picture: Any, label: str) -> Any:
    """A tile of the strip."""
    side = WIDTH // STRIP
    return drawings.contact_sheet([(label, [np.asarray(picture)])], side - 16)


def stacked(curve: Any, tiles: list[Any]) -> Any:
    """The tiles in a row below the curve, which there may not be yet."""
    top = curve.height if curve is not None else 0
    sheet = Image.new("RGB", (WIDTH, top + max((tile.height for tile in tiles), default=0)), drawings.PAPER)
    if curve is not None:
        sheet.paste(curve, (0, 0))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i * (WIDTH // STRIP), top))
    return sheet
