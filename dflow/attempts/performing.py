"""Calling a body: functions of all kinds, to their end or in step with their caller, within their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from dflow.attempts import clock, deadlines
from dflow.attempts.kinds import Kind, kind_of
from dflow.attempts.stepping import STOPS, Carried, Closed, hand_out, loop_runs, run_to_end
from dflow.attempts.usage import Usage
from dflow.results.pickling import dumps_small


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a body is to be called.

    `in_place`: a coroutine is awaited, and a generator handed out item by item or, with `whole`, collected;
    otherwise they are run to their end here. `timeout` is the seconds that it may take, `keep` how many bytes
    of items that were handed out are kept (None: all of them), and `seen` is shown each. `adopted` makes
    another thread one that belongs to the body. `usage` counts what it takes, from here on.
    """

    in_place: bool = False
    whole: bool = False
    timeout: float | None = None
    keep: int | None = 0
    seen: Callable[[Any], None] = lambda item: None
    adopted: Callable[[], AbstractContextManager[Any]] = nullcontext
    usage: Usage = msgspec.field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What became of a generator: its items, if they are kept, and whether its caller closed it before."""

    items: list[Any] | None
    count: int
    closed: bool = False


async def perform(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], manner: Manner
) -> Any:
    """Call a function and return its value; of a generator that is handed out in place, `HandedOut`.

    Raises what it raises (a StopIteration as `Carried`), and `DeadlinePassed`.
    """
    kind = kind_of(function)
    if kind is Kind.PLAIN and manner.timeout is None:
        try:
            return function(*args, **kwargs)
        except STOPS as error:
            raise Carried(error) from None
    manner.usage.shared = _shares_its_thread(kind, manner)
    if manner.in_place and kind is Kind.COROUTINE:
        return await _in_time(function(*args, **kwargs), manner.timeout, manner.timeout)
    if manner.in_place and kind is Kind.GENERATOR and not manner.whole:
        return await _hand_out_all(function(*args, **kwargs), manner)
    if manner.in_place and kind is Kind.ASYNC_GENERATOR:
        items = function(*args, **kwargs)
        if manner.whole:
            return await _in_time(_collected(items), manner.timeout, manner.timeout)
        return await _hand_out_all_async(items, manner)
    whole = partial(_to_the_end, kind, partial(function, *args, **kwargs))
    try:
        if manner.timeout is None:
            return whole(deadlines.Stop())
        return deadlines.within(manner.timeout, partial(_counted, whole, manner), manner.adopted)
    except STOPS as error:
        raise Carried(error) from None


def _shares_its_thread(kind: Kind, manner: Manner) -> bool:
    """Tell whether others use the thread of a body while it goes on, or it uses another one."""
    if manner.in_place:
        return kind.native or (kind.hands_out and not manner.whole)
    return kind.native and loop_runs()


def _counted(whole: Callable[[deadlines.Stop], Any], manner: Manner, stop: deadlines.Stop) -> Any:
    """Run a body to its end, and count the time of this thread, which is not the attempt's own."""
    began = clock.thread_time()
    try:
        return whole(stop)
    finally:
        manner.usage.add(clock.thread_time() - began)


def _to_the_end(kind: Kind, call: Callable[[], Any], stop: deadlines.Stop) -> Any:
    if kind is Kind.PLAIN:
        return call()
    if kind is Kind.GENERATOR:
        return list(call())
    if kind is Kind.COROUTINE:
        return run_to_end(lambda: stop.obeyed(call()))
    return run_to_end(lambda: stop.obeyed(_collected(call())))


async def _collected(items: AsyncGenerator[Any, Any]) -> list[Any]:
    return [item async for item in items]


async def _in_time(body: Awaitable[Any], left: float | None, seconds: float | None) -> Any:
    """Await something for what is `left` of so many seconds."""
    if left is None or seconds is None:
        return await body
    running = asyncio.ensure_future(_awaited(body))
    try:
        await asyncio.wait([running], timeout=max(0.0, left))
        if running.done():
            return running.result()
    except asyncio.CancelledError:
        await _cancelled(running)
        raise
    if await _cancelled(running):
        raise deadlines.passed(seconds)
    raise deadlines.passed(
        seconds,
        " Its body could not be cancelled and goes on; what becomes of it will not be recorded.",
    )


async def _awaited(body: Awaitable[Any]) -> Any:
    return await body


async def _cancelled(running: asyncio.Future[Any]) -> bool:
    """Ask a coroutine to end, and return whether it does so soon."""
    running.cancel()
    await asyncio.wait([running], timeout=deadlines.GRACE)
    if running.done() and not running.cancelled():
        running.exception()  # it is told of in words; asyncio would tell of it again
    return running.done()


class _Handing:
    """Hands out items and keeps them as long as they are small together; also looks at the time."""

    def __init__(self, manner: Manner) -> None:
        self._room = manner.keep
        self._seen = manner.seen
        self.seconds = manner.timeout
        self._start = clock.monotonic()
        self._items: list[Any] | None = []
        self.count = 0

    async def hand_out(self, item: Any) -> Any:
        """Hand out one more item."""
        left = self.left()
        if self.seconds is not None and left is not None and left < 0:
            raise deadlines.passed(self.seconds)
        self.count += 1
        self._seen(item)
        if self._items is not None and self._fits(item):
            self._items.append(item)
        else:
            self._items = None
        return await hand_out(item)

    def left(self) -> float | None:
        """Return how many seconds are left; None without a deadline."""
        return None if self.seconds is None else self._start + self.seconds - clock.monotonic()

    def _fits(self, item: Any) -> bool:
        if self._room is None:
            return True
        try:
            data = dumps_small(item, self._room)
        except Exception:
            return False  # what cannot be pickled is handed out, and not kept
        self._room -= len(data or b"")
        return data is not None

    def ended(self) -> HandedOut:
        """Return what became of a generator that came to its end."""
        return HandedOut(self._items, self.count)

    def closed(self) -> HandedOut:
        """Return what became of a generator that its caller closed."""
        return HandedOut(None, self.count, closed=True)


async def _hand_out_all(items: Generator[Any, Any, Any], manner: Manner) -> HandedOut:
    handing = _Handing(manner)
    step: Callable[[], Any] = partial(next, items)
    while True:
        try:
            item = step()
        except StopIteration:
            return handing.ended()
        try:
            step = partial(items.send, await handing.hand_out(item))
        except Closed:
            items.close()
            return handing.closed()
        except deadlines.DeadlinePassed:
            items.close()
            raise
        except BaseException as thrown:
            step = partial(items.throw, thrown)


async def _hand_out_all_async(items: AsyncGenerator[Any, Any], manner: Manner) -> HandedOut:
    handing = _Handing(manner)
    step: Callable[[], Awaitable[Any]] = partial(items.asend, None)
    while True:
        try:
            item = await _in_time(step(), handing.left(), handing.seconds)
        except StopAsyncIteration:
            return handing.ended()
        try:
            step = partial(items.asend, await handing.hand_out(item))
        except Closed:
            await items.aclose()
            return handing.closed()
        except deadlines.DeadlinePassed:
            await items.aclose()
            raise
        except BaseException as thrown:
            step = partial(items.athrow, thrown)
