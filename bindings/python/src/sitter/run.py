"""Long calls: progress, cancel, signals."""
from __future__ import annotations

import atexit
import math
import os
import threading
import time
from ctypes import byref, c_void_p, sizeof
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, TypeVar, Union

from . import _abi
from ._library import Handle, call, library, make
from ._signals import Deferred
from .errors import Error, InvalidState
from .options import whole
from .progress import Bar

if TYPE_CHECKING:
    from .tokens import Tokens

T = TypeVar("T")

# By number: STAGE_LAYERS = 6 is "layers".
STAGES: dict[int, str] = {v: k[6:].lower() for k, v in vars(_abi).items() if k.startswith("STAGE_")}


class Event(NamedTuple):
    """One report of a long call: `done` of `total` units of `stage` are finished."""

    stage: str
    """waiting (for another job of the model), open, encode, prior, embedding, layers, sample, score or decode."""
    done: int
    """Never falls within a stage; equals `total` in a stage's last event."""
    total: int
    """Layers, pictures, steps or tokens, as the stage has them; 0 if it is not known."""
    elapsed: float
    """Seconds since the call began."""
    loss: Optional[float]
    """Nats per token in the training stages, else None."""
    item: int
    """Which of `item_count` things the stage is at, from 0."""
    item_count: int
    warnings: int = 0
    """What went wrong so far without ending the call, such as a checkpoint that could not be written; the words are in the log."""

    @staticmethod
    def _from(raw: _abi.Event) -> "Event":
        loss = None if math.isnan(raw.value) else float(raw.value)
        stage = STAGES.get(raw.stage, f"stage {raw.stage}")
        return Event(stage, raw.done, raw.total, raw.elapsed_ms / 1000, loss, raw.item, raw.item_count, raw.warnings)


ProgressFn = Callable[[Event], Any]
Progress = Union[None, bool, ProgressFn]
"""True draws a bar on stderr; a function gets each `Event`, and what it raises stops the call and is raised there."""


class Run:
    """Controls one call from any thread: give it to the call as `run=`. Serves one call."""

    def __init__(self) -> None:
        # A call may need several calls of the library; all of them are stopped together.
        self._handle: Optional[Handle] = None
        self._used = self._cancelled = self._finished = False

    def cancel(self) -> None:
        """Stops the call: it raises `Cancelled` soon. Before the call begins, it makes it do so at once."""
        self._cancelled = True
        self._pass_on()

    def finish_early(self) -> None:
        """Ends a training at its next step with what was learned so far; other calls ignore it."""
        self._finished = True
        self._pass_on()

    def snapshot(self) -> Optional[Event]:
        """The newest event, None before the first."""
        handle, raw = self._handle, _abi.Event()
        if handle is None:
            return None
        call("sitter_run_snapshot", handle, byref(raw), sizeof(raw))
        return Event._from(raw) if raw.stage else None

    def tokens(self, picture: int = 0) -> "Optional[Tokens]":
        """The complete rows so far of a picture, from 0, of those that the call is drawing or drew last; None while there is
        none, or if there is no such picture. May be called in a progress function; to decode them meanwhile takes another
        thread, and a model that was opened with `max_jobs` 2."""
        handle, index = self._handle, whole(picture, 32, "picture")
        if handle is None:
            return None
        try:
            drawn = make("tokens", "sitter_run_tokens", handle, index)
        except InvalidState:
            return None
        from .tokens import Tokens

        return Tokens._of(drawn)

    def _begin(self) -> None:
        if self._used:
            message = "the run has served a call already; make a new one for each call"
            raise InvalidState(message, _abi.E_INVALID_STATE)
        self._used = True

    def _attach(self, handle: Handle) -> None:
        self._handle = handle
        # Whatever was asked for before the line above is passed on here, whatever comes after it by the asking thread.
        self._pass_on()

    def _pass_on(self) -> None:
        handle = self._handle
        if handle is not None and self._cancelled:
            library().function("sitter_run_cancel")(handle)
        if handle is not None and self._finished:
            library().function("sitter_run_finish_early")(handle)


# Runs of calls that are under way. The interpreter ends a daemon thread by unwinding it where it comes back from the
# library to Python code, which the library's own frames do not survive: at exit such calls are stopped first.
_at_work: set[Run] = set()
_exiting = False
# Seconds to wait for them.
PATIENCE = 10.0


def _stop_all() -> None:
    global _exiting
    _exiting = True
    until = time.monotonic() + PATIENCE
    while _at_work and time.monotonic() < until:
        for run in list(_at_work):
            run.cancel()
        time.sleep(0.01)


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    # Calls of the parent do not go on in the child.
    os.register_at_fork(after_in_child=_at_work.clear)


class Job:
    """One long call of this package, made of one or more of the library."""

    def __init__(self, run: Optional[Run], progress: Progress) -> None:
        if run is not None and not isinstance(run, Run):
            raise TypeError(f"run must be a sitter.Run, not {type(run).__name__}")
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise TypeError(f"progress must be None, True or a function, not {type(progress).__name__}")
        if run is not None:
            run._begin()
        self._run = run or Run()
        self._bar = Bar() if progress is True else None
        self._progress = self._bar or (progress if callable(progress) else None)
        self._signals = Deferred()
        self._error: Optional[BaseException] = None

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Any, trace: Optional[TracebackType]) -> None:
        if self._bar is not None:
            self._bar.close()

    def perform(self, work: Callable[[Handle], T]) -> T:
        """Does one call of the library: `work` makes it, with the run handle that it is given."""
        run = make("run", "sitter_run_new")
        callback = _abi.EVENT_FN(self._on_event)
        call("sitter_run_set_callback", run, callback, None)
        self._run._attach(run)
        failure: Optional[Error] = None
        result: Optional[T] = None
        _at_work.add(self._run)
        try:
            if _exiting and threading.current_thread() is not threading.main_thread():
                raise InvalidState("the interpreter is shutting down", _abi.E_INVALID_STATE)
            with self._signals:
                result = work(run)
        except Error as e:
            failure = e
        finally:
            _at_work.discard(self._run)
        # What the host's own code raised tells more than that the call was cancelled because of it.
        error, self._error = failure if self._error is None else self._error, None
        try:
            if error is not None:
                raise error
        finally:
            # An exception holds this frame, which must not hold the exception.
            del error, failure
            # Signals that came after the last event: what their handlers raise goes before all else.
            self._signals.answer()
        return result  # type: ignore[return-value]

    def _on_event(self, _: Optional[int], raw: Any) -> int:
        """Runs inside the library's call, where nothing may be raised."""
        try:
            self._signals.answer()
            if self._progress is not None:
                self._progress(Event._from(raw.contents))
            return _abi.CONTINUE
        except BaseException as e:
            self._error = e
            return 0
