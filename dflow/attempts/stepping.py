"""Coroutines without an event loop: how one piece of code serves plain and async callers alike.

What dflow does around a body is written once, as coroutines. Around a plain function they never wait for
anything but threads, which blocks, and so `finished` runs one to its end in a single step. Around a
coroutine function they are awaited on the caller's loop. Around a generator they hand out each item:
`generated` and `async_generated` give it to whoever iterates.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dflow.errors import InternalError

T = TypeVar("T")
Steps = Coroutine[Any, Any, T]
"""A coroutine of ours, to be stepped through."""


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to hand out: what awaiting it gives is what the one who iterates sends back."""

    value: Any

    def __await__(self) -> Generator[_Item, Any, Any]:
        return (yield self)


class Closed(BaseException):
    """Thrown into a coroutine of ours at the item that it hands out, when its iterator is closed.

    Python raises a GeneratorExit again at every await on the way out, whatever came of it further in. This
    one can be caught where the body is, and all that waits for the body goes on to its end.
    """


class Carried(Exception):
    """Carries a StopIteration of a plain body through coroutines, which may not raise one."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


STOPS = (StopIteration, StopAsyncIteration)
"""What no coroutine may raise."""


def uncarried(error: BaseException) -> BaseException:
    """Return the exception itself, if it was carried."""
    return error.error if isinstance(error, Carried) else error


async def hand_out(value: Any) -> Any:
    """Give a value to the one who iterates; return what they send. Raises what they throw."""
    return await _Item(value)


def finished(steps: Steps[T]) -> T:
    """Run a coroutine that waits for nothing but threads, and return its value."""
    try:
        steps.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    except Carried as carried:
        raise carried.error from None
    steps.close()
    raise InternalError("A plain function was treated as an async one. Please report this.")


def generated(steps: Steps[Any]) -> Generator[Any, Any, Any]:
    """Yield what a coroutine hands out, which waits for nothing but threads otherwise.

    It runs in a context of its own: what it sets there is not seen by the one who iterates.
    """
    context = contextvars.copy_context()
    step: Callable[[], Any] = partial(steps.send, None)
    while True:
        try:
            item = context.run(step)
        except StopIteration as end:
            return end.value
        try:
            step = partial(steps.send, (yield item.value))
        except GeneratorExit:
            if not _over(steps):
                _close(partial(context.run, steps.throw, Closed()))
            return None
        except BaseException as thrown:
            step = partial(steps.throw, thrown)


def _over(steps: Steps[Any]) -> bool:
    """Tell whether a coroutine was closed: garbage collection may take it before its iterator."""
    return inspect.getcoroutinestate(steps) == inspect.CORO_CLOSED


def _close(step: Callable[[], Any]) -> None:
    try:
        step()
    except (StopIteration, Closed):
        return
    raise RuntimeError("generator ignored GeneratorExit")


async def async_generated(steps: Steps[Any]) -> AsyncGenerator[Any, Any]:
    """Yield what a coroutine hands out, on the loop of the one who iterates; see `generated`."""
    context = contextvars.copy_context()
    step: Callable[[], Any] = partial(steps.send, None)
    while True:
        item = await _Segment(steps, context, step)
        if item is None:
            return
        try:
            step = partial(steps.send, (yield item.value))
        except GeneratorExit:
            if _over(steps):
                return
            with contextlib.suppress(Closed):
                if await _Segment(steps, context, partial(steps.throw, Closed())) is not None:
                    raise RuntimeError("async generator ignored GeneratorExit") from None
            return
        except BaseException as thrown:
            step = partial(steps.throw, thrown)


@dataclass(frozen=True, slots=True)
class _Segment:
    """The part of a coroutine up to the next item: awaited, it gives the item, or None at the end.

    What the coroutine awaits goes on to the loop, which sees no difference.
    """

    steps: Steps[Any]
    context: contextvars.Context
    first: Callable[[], Any]

    def __await__(self) -> Generator[Any, Any, _Item | None]:
        step = self.first
        while True:
            try:
                awaited = self.context.run(step)
            except StopIteration:
                return None
            if isinstance(awaited, _Item):
                return awaited
            try:
                step = partial(self.steps.send, (yield awaited))
            except BaseException as thrown:
                step = partial(self.steps.throw, thrown)


def run_to_end(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own and return its value; where one runs already, in a thread."""
    if not loop_runs():
        return asyncio.run(make())
    ends: list[tuple[T | None, BaseException | None]] = []

    def work() -> None:
        try:
            ends.append((asyncio.run(make()), None))
        except BaseException as error:
            ends.append((None, error))

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name="dflow-loop", daemon=True
    )
    thread.start()
    thread.join()
    value, error = ends[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # without an error there is a value


def loop_runs() -> bool:
    """Tell whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
