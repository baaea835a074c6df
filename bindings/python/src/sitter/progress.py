"""A progress bar on stderr, in one line."""
from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from .run import Event

WIDTH = 24
# Seconds between two redraws.
PAUSE = 0.1


class Bar:
    """Draws each stage's events: `layers 12/45 [######------------------] 8 s, loss 2.31`. A line is kept for each stage; where
    stderr is no terminal, that line alone is written."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._live = bool(self._stream) and self._stream.isatty()
        self._shown: Optional[Event] = None
        self._drawn_at = 0.0

    def __call__(self, event: Event) -> None:
        before, now = self._shown, time.monotonic()
        if before is not None and before.stage != event.stage:
            self.close()
            before = None
        self._shown = event
        changed = before is None or (before.done, before.elapsed // 1) != (event.done, event.elapsed // 1)
        finished = event.total > 0 and event.done == event.total
        if self._live and changed and (finished or now - self._drawn_at >= PAUSE):
            self._drawn_at = now
            self._write("\r" + _line(event) + "\x1b[K")

    def close(self) -> None:
        """Ends the line."""
        event, self._shown = self._shown, None
        if event is not None and event.stage != "waiting":
            self._write(("\r" if self._live else "") + _line(event) + ("\x1b[K\n" if self._live else "\n"))

    def _write(self, text: str) -> None:
        if self._stream:
            self._stream.write(text)
            self._stream.flush()


def _line(event: Event) -> str:
    full = WIDTH * event.done // event.total if event.total else 0
    bar = "#" * full + "-" * (WIDTH - full)
    loss = f", loss {event.loss:.3f}" if event.loss is not None else ""
    return f"{event.stage:<9} {event.done}/{event.total or '?'} [{bar}] {event.elapsed:.0f} s{loss}"
