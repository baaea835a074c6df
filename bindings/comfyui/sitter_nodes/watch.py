"""Progress and Stop of one long call."""
from __future__ import annotations

import time
from typing import Any, Callable, Optional, Protocol, TypeVar

T = TypeVar("T")

# Seconds between two updates of the bar: they go over a web socket.
PAUSE = 0.1
TRAINING = ("embedding", "layers")
WORDS = {
    "waiting": "waiting for another job", "open": "reading the model", "encode": "reading pictures",
    "prior": "drawing class pictures", "embedding": "learning the word", "layers": "training layers",
    "sample": "drawing", "score": "scoring", "decode": "decoding",
}


class Stopped(Exception):
    """The user pressed Stop."""


class HostInterrupt(Exception):
    """ComfyUI's own exception was raised under our hands, and its flag cleared with it."""


class Host(Protocol):
    """What a watch needs of ComfyUI."""

    def interrupted(self) -> bool:
        """Whether Stop was pressed, without clearing the flag."""

    def interrupt_again(self) -> None:
        """Sets the flag."""

    def show(self, done: int, total: int, text: str, picture: Any) -> None:
        """Moves the bar. May raise HostInterrupt."""


# A picture for the node, from the event and the losses so far; None where there is no new one.
Picture = Callable[[Any, list[tuple[str, int, float]]], Any]


class Watch:
    """The progress function of one call.

    Stop raises `Stopped` out of the call; with `keep` it ends a training early instead, once a step was learned. Nothing but
    ComfyUI's flag decides, and it is asked at every event: the library sends one at least every 100 ms.
    """

    def __init__(
        self,
        host: Host,
        finish_early: Optional[Callable[[], None]] = None,
        picture: Optional[Picture] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kept, self.picture = False, picture
        self._host, self._finish_early, self._clock = host, finish_early, clock
        self._shown_at = float("-inf")
        self._stage = ""
        self._last: Any = None
        self._learned: Any = None
        self._losses: list[tuple[str, int, float]] = []

    def once_more(self) -> None:
        """Shows the last event again, with what has become ready since."""
        if self._last is not None:
            self._shown_at = float("-inf")
            self(self._last)

    def __call__(self, event: Any) -> None:
        # After finish_early the flag stays set: ComfyUI itself then stops before the next node.
        if self.kept:
            return
        self._last = event
        if event.loss is not None and event.stage in TRAINING:
            self._learn(event)
        if self._host.interrupted():
            self._stop()
            return
        if not self._due(event):
            return
        try:
            # While a training draws a sample, the bar stays where the training is.
            bar = self._learned if event.stage == "sample" and self._learned else event
            self._host.show(bar.done, max(bar.total, 1), describe(event), self._picture(event))
        except HostInterrupt:
            # Between our look and the bar's; the flag has to say again what it said.
            self._host.interrupt_again()
            self._stop()

    def _learn(self, event: Any) -> None:
        self._learned = event
        entry = (event.stage, event.done, event.loss)
        # Heartbeats repeat the step.
        if not self._losses or self._losses[-1][:2] != entry[:2]:
            self._losses.append(entry)

    def _due(self, event: Any) -> bool:
        now = self._clock()
        ended = event.total > 0 and event.done == event.total
        if event.stage == self._stage and not ended and now - self._shown_at < PAUSE:
            return False
        self._stage, self._shown_at = event.stage, now
        return True

    def _picture(self, event: Any) -> Any:
        return self.picture(event, self._losses) if self.picture is not None else None

    def _stop(self) -> None:
        if self._finish_early is not None and self._losses:
            self.kept = True
            self._finish_early()
        else:
            raise Stopped()


def describe(event: Any) -> str:
    """`training layers 12/80, loss 2.310`; `drawing 2 of 5: 31/256`."""
    words = WORDS.get(event.stage, event.stage)
    if event.item_count > 1:
        words += f" {event.item + 1} of {event.item_count}:"
    count = f" {event.done}/{event.total}" if event.total > 0 else ""
    loss = f", loss {event.loss:.3f}" if event.loss is not None else ""
    return words + count + loss
