"""Signals that come while the library works."""
from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Callable, Optional

Handler = Callable[[int, Optional[FrameType]], Any]


class Deferred:
    """Within it, a signal that the program handles in Python only leaves a note, and `answer` lets the program's own handler
    decide. Python would else run the handler, and raise what it raises, at the entry of the event function, where ctypes
    prints the exception and drops it.

    Only the main thread gets signals; elsewhere this does nothing, as for signals whose handling never enters Python.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        self._noted: list[int] = []

    def __enter__(self) -> "Deferred":
        if threading.current_thread() is threading.main_thread():
            try:
                for number in signal.valid_signals():
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._handlers[number] = handler
                        signal.signal(number, self._note)
            except BaseException:
                # One that was not taken yet came in between.
                self._put_back()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def answer(self) -> None:
        """Calls the handlers of the signals that came, in their order, until one raises."""
        while self._noted:
            number = self._noted.pop(0)
            self._handlers[number](number, sys._getframe())

    def _note(self, number: int, _: Optional[FrameType]) -> None:
        self._noted.append(number)

    def _put_back(self) -> None:
        """All of them, even if the handler of one that is back already raises."""
        waiting = [number for number in self._handlers if signal.getsignal(number) == self._note]
        try:
            while waiting:
                # A handler that the program has set meanwhile stays.
                signal.signal(waiting[-1], self._handlers[waiting[-1]])
                waiting.pop()
        finally:
            if waiting:
                self._put_back()
