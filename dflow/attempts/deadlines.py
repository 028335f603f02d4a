"""Bodies that may take only so long: each runs in a thread of its own, which can be left behind.

A thread cannot be stopped for certain. One that belongs to a single body can be asked hard, by an exception
at its next bytecode, and whatever it does with that harms nobody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from dflow.errors import TimedOutError

T = TypeVar("T")
GRACE = 0.25
"""Seconds that a body gets to end after it was asked to, before it is left behind."""


class DeadlinePassed(Exception):
    """A body ran past its deadline. `error` is for users."""

    def __init__(self, error: TimedOutError) -> None:
        super().__init__(str(error))
        self.error = error


class BodyStopped(BaseException):
    """Raised in a body that has run past its deadline, to end it."""


def passed(seconds: float, note: str = "") -> DeadlinePassed:
    """Return the exception for a deadline of so many seconds."""
    return DeadlinePassed(TimedOutError(f"It took longer than {seconds:g} seconds.{note}"))


class Stop:
    """How the body that runs in a thread is asked to end; `by` says of a coroutine how."""

    def __init__(self) -> None:
        self.ask: Callable[[], object] | None = None

    async def obeyed(self, body: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine so that it can be cancelled from another thread."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            self.ask = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            return await body
        finally:
            self.ask = None


def within(
    seconds: float,
    work: Callable[[Stop], T],
    adopted: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> T:
    """Run `work` in a thread of its own, in this context, and return its value.

    `adopted` makes the thread one of those that belong to the body. Raises `DeadlinePassed` when it has not
    ended after `seconds`; it is asked to end then, and goes on alone if it does not.
    """
    body = _Body(work, adopted)
    try:
        body.start()
        if body.ended.wait(seconds):
            return body.outcome()
    except KeyboardInterrupt:
        body.stop()
        raise
    body.stop()
    if body.ended.wait(GRACE):
        raise passed(seconds)
    raise passed(
        seconds,
        " Its body could not be stopped and goes on; what becomes of it will not be recorded.",
    )


class _Body(Generic[T]):
    """A thread that runs one body."""

    def __init__(
        self, work: Callable[[Stop], T], adopted: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self.ended = threading.Event()
        self._work = work
        self._adopted = adopted
        self._stop = Stop()
        self._lock = threading.Lock()
        self._over = False
        self._asked = False
        self._value: T | None = None
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="dflow-body", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            try:
                with self._adopted():
                    self._value = self._work(self._stop)
            except BaseException as error:
                self._error = error
            with self._lock:
                self._over = True
            if self._asked:  # what was raised for the body may arrive a few bytecodes late
                for _ in range(1000):
                    pass
        except BodyStopped as late:
            self._error = self._error or late
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Ask the body to end: a coroutine at what it awaits, anything else at its next bytecode."""
        ask = self._stop.ask
        if ask is not None:
            ask()
            if self.ended.wait(GRACE / 2):
                return
        with self._lock:
            if self._over or self._thread.ident is None:
                return
            self._asked = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(BodyStopped)
            )

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # without an error there is a value
