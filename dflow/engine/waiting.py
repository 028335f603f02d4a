"""Waiting for what other threads do: plain code blocks its thread, a coroutine lets its loop go on.

Both are asked in the same words, so that what waits is written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from dflow.attempts import clock

LOOK = 0.5
"""Seconds that a thread is blocked at a time.

A signal that comes in the moment in which a thread begins to block is noticed by Python only when that
thread runs again: without looks a Ctrl-C may be lost.
"""


def wait(event: threading.Event, seconds: float | None = None) -> bool:
    """Wait until an event is set, or `seconds` are over; return whether it is set."""
    return any(map(event.wait, _looks(seconds)))


def _looks(seconds: float | None) -> Iterator[float]:
    """Yield for how many seconds to block, again and again, until `seconds` are over."""
    left = math.inf if seconds is None else seconds
    end = clock.monotonic() + left
    yield max(0.0, min(left, LOOK))
    while (left := end - clock.monotonic()) > 0:
        yield min(left, LOOK)


class Inlet(Protocol):
    """What other threads say arrives here, to be awaited one by one."""

    def put(self, item: Any) -> None:
        """Add an item. Does not block; any thread may call it."""

    async def get(self, seconds: float | None = None) -> Any:
        """Take the oldest item, waiting for one; None when there is none after so many seconds."""


class BlockingInlet:
    """An inlet for plain code: `get` blocks the thread."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()
        self.put = self._items.put

    async def get(self, seconds: float | None = None) -> Any:
        """Take the oldest item."""
        for look in _looks(seconds):
            with contextlib.suppress(Empty):
                return self._items.get(timeout=look)
        return None


class LoopInlet:
    """An inlet for coroutines of the loop that runs in the thread that makes it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, item: Any) -> None:
        """Add an item; one for a loop that has ended is dropped, as nobody awaits it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def get(self, seconds: float | None = None) -> Any:
        """Take the oldest item."""
        if not self._items.empty():
            return self._items.get_nowait()
        try:
            async with asyncio.timeout(seconds):
                return await self._items.get()
        except TimeoutError:
            return None


def inlet(*, native: bool) -> Inlet:
    """Return an inlet for a coroutine (`native`) or for plain code."""
    return LoopInlet() if native else BlockingInlet()


class Bell(Protocol):
    """Rung once, from any thread."""

    def ring(self) -> None:
        """Let those who wait go."""

    async def rung(self, seconds: float | None = None) -> bool:
        """Wait until it is rung, or `seconds` are over; return whether it was."""


class BlockingBell:
    """A bell for plain code."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.ring = self._event.set

    async def rung(self, seconds: float | None = None) -> bool:
        """Wait, blocking the thread."""
        return wait(self._event, seconds)


class LoopBell:
    """A bell for coroutines of the loop that runs in the thread that makes it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Let those who wait go; after the end of the loop nobody does."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def rung(self, seconds: float | None = None) -> bool:
        """Wait while the loop goes on."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return self._event.is_set()
        return True


def bell(*, native: bool) -> Bell:
    """Return a bell for a coroutine (`native`) or for plain code."""
    return LoopBell() if native else BlockingBell()
