"""Long calls for asyncio."""
from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Optional, TypeVar

from .errors import Cancelled
from .run import Event, Run

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
T = TypeVar("T")


def awaitable(call: "Callable[P, T]") -> "Callable[P, Coroutine[Any, Any, T]]":
    """A long call that is awaited: the event loop goes on while it works in a thread of its own."""

    signature = inspect.signature(call)

    @functools.wraps(call)
    async def waiting(*args: "P.args", **kwargs: "P.kwargs") -> T:
        return await _in_thread(call, signature.bind(*args, **kwargs))

    waiting.__name__ += "_async"
    waiting.__qualname__ += "_async"
    waiting.__doc__ = (
        f"`{call.__name__}` for asyncio. Cancelling the task that awaits it stops the work and waits for its end, which is soon;\n"
        f"        `progress` is called by the event loop.\n\n        {call.__doc__}"
    )
    return waiting


async def _in_thread(call: Callable[..., T], given: inspect.BoundArguments) -> T:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()
    run = given.arguments["run"] = given.arguments.get("run") or Run()
    progress, teller = given.arguments.get("progress"), None
    if callable(progress):
        teller = given.arguments["progress"] = Teller(loop, run, progress)
    context = contextvars.copy_context()

    def settle(result: Optional[T], error: Optional[BaseException]) -> None:
        if error is None:
            ended.set_result(result)  # type: ignore[arg-type]
        else:
            ended.set_exception(error)

    def work() -> None:
        outcome: tuple[Optional[T], Optional[BaseException]]
        try:
            outcome = context.run(call, *given.args, **given.kwargs), None
        except BaseException as e:
            outcome = None, e
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:
            # The loop was closed without waiting for its tasks.
            pass
        finally:
            # An exception holds this frame, which must not hold the exception.
            del outcome

    # Not one of the loop's pool: a call that waits for another of its model would take a place there. At exit its work is
    # stopped, see run.py.
    threading.Thread(target=work, name=f"sitter {call.__name__}", daemon=True).start()
    try:
        result = await asyncio.shield(ended)
    except asyncio.CancelledError:
        run.cancel()
        await _until(ended)
        raise
    except Cancelled:
        if teller is not None and teller.error is not None:
            raise teller.error from None
        raise
    if teller is not None and teller.error is not None:
        raise teller.error
    return result


async def _until(ended: "asyncio.Future[Any]") -> None:
    """Waits whatever comes: the work goes on with what the caller believes to be free."""
    while not ended.done():
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError:
            continue
    # Looked at, so that nobody is warned about it.
    ended.exception()


class Teller:
    """Has the event loop call a progress function. What that raises stops the call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Run, progress: Callable[[Event], Any]) -> None:
        self._loop = loop
        self._run = run
        self._progress = progress
        self.error: Optional[BaseException] = None

    def __call__(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._tell, event)

    def _tell(self, event: Event) -> None:
        if self.error is not None:
            return
        try:
            self._progress(event)
        except BaseException as e:
            self.error = e
            self._run.cancel()
            if isinstance(e, (KeyboardInterrupt, SystemExit)):
                raise
