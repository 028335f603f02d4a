"""Futures: what `submit` and `map` return, and how to wait for them.

A future knows a task run by its id; its state is the tracker's, its value stays where it is until somebody
asks for it. None of the functions here fetches a value to learn a state.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, Literal, TypeVar, overload

from dflow.attempts.clock import monotonic
from dflow.attempts.context import current
from dflow.attempts.stepping import async_generated, generated, hand_out
from dflow.engine import waiting
from dflow.engine.scope import Scope, Status
from dflow.engine.waiting import bell, inlet
from dflow.errors import InternalError, WaitTimeout
from dflow.states import State, StateType

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TaskFuture(Generic[R_co]):
    """A task run that was submitted, and in time its value.

    >>> from dflow import task
    >>> @task
    ... def divide(x: int, y: int) -> float:
    ...     return x / y
    >>> future = divide.submit(6, 3)
    >>> future.result()
    2.0
    >>> divide.submit(future, 0).result(raise_on_failure=False)
    ZeroDivisionError('float division by zero')
    """

    __slots__ = ("__weakref__", "_name", "_scope", "_task_run_id")

    def __init__(self, scope: Scope, task_run_id: str, name: str) -> None:
        self._scope = scope
        self._task_run_id = task_run_id
        self._name = name

    @property
    def scope(self) -> Scope:
        """The scope that asked for the task run."""
        return self._scope

    @property
    def task_run_id(self) -> str:
        """The id of the task run."""
        return self._task_run_id

    @property
    def name(self) -> str:
        """The name of the task run."""
        return self._name

    @property
    def state(self) -> State:
        """The state of the task run, as it is recorded."""
        return state_of(self._scope.status(self._task_run_id), self._value)

    def done(self) -> bool:
        """Tell whether the task run is final."""
        return self._scope.status(self._task_run_id).final

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task run is final, or `timeout` seconds are over. Never raises."""
        wait([self], timeout)

    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> R_co: ...
    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> R_co | Exception: ...
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Wait for the task run and return its value.

        Raises `dflow.errors.WaitTimeout` (a TimeoutError) after `timeout` seconds, and otherwise what the
        task raised; with ``raise_on_failure=False`` that exception is returned instead.
        """
        status = self._scope.status(self._task_run_id)
        if not status.final:
            self.wait(timeout)
            self._check_done(timeout)
            status = self._scope.status(self._task_run_id)
        if status.type is StateType.COMPLETED:
            return self._value()
        return state_of(status, self._value).result(raise_on_failure=raise_on_failure)

    @overload
    def aresult(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> Coroutine[Any, Any, R_co]: ...
    @overload
    def aresult(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> Coroutine[Any, Any, R_co | Exception]: ...
    async def aresult(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:  # noqa: ASYNC109  (as of `result`)
        """Do what `result` does, without holding up the event loop."""
        await self.until_final(timeout, native=True)
        self._check_done(timeout)
        state = self.state
        if self._scope.status(self._task_run_id).at_hand:
            return state.result(raise_on_failure)
        return await state.aresult(raise_on_failure)

    def __await__(self) -> Generator[Any, None, R_co]:
        """Await the value of the task run."""
        return self.aresult().__await__()

    async def until_final(self, seconds: float | None = None, *, native: bool) -> None:
        """Wait until the task run is final, on a loop (`native`) or blocking the thread."""
        if self.done():
            return
        final = bell(native=native)
        self._when_final(final.ring)
        with slot_given_back():
            await final.rung(seconds)

    def _check_done(self, timeout: float | None) -> None:
        if not self.done():
            raise WaitTimeout(f"'{self._name}' has not ended within {timeout} seconds.")

    def cancel(self) -> None:
        """Ask the task run to end: one that waits at once; a body that runs is asked to, and may go on."""
        self._scope.cancel(self._task_run_id)

    def add_done_callback(self, fn: Callable[[TaskFuture[R_co]], Any]) -> None:
        """Call ``fn(future)`` once the task run is final, from a thread of its own."""
        self._scope.when_final(
            self._task_run_id,
            lambda: threading.Thread(target=fn, args=(self,), name="dflow-callback").start(),
        )

    def _value(self) -> Any:
        self._scope.saw(self._task_run_id)
        return self._scope.value(self._task_run_id)

    def _when_final(self, then: Callable[[], None]) -> None:
        self._scope.when_final(self._task_run_id, then)

    def __repr__(self) -> str:
        return f"<TaskFuture '{self._name}' {self._scope.status(self._task_run_id).state_name}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"The future '{self._name}' cannot be pickled. "
            "Pass it as an argument of a task: the task gets its value."
        )

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._scope.drop(self._task_run_id)


def state_of(status: Status, outcome: Callable[[], Any]) -> State:
    """Return the state that users see; only that of a final run can give a result."""
    at = None if status.at is None else datetime.fromtimestamp(status.at, UTC)
    given = outcome if status.final else None
    return State(status.type, status.state_name, status.message, at, given, asyncio.to_thread)


def wait(
    futures: Iterable[TaskFuture[R]], timeout: float | None = None
) -> tuple[set[TaskFuture[R]], set[TaskFuture[R]]]:
    """Wait until all futures are final, or `timeout` seconds are over; return (done, not done).

    Inside a task the worker's slot is given back meanwhile.

    >>> from dflow import task
    >>> @task
    ... def square(x: int) -> int:
    ...     return x * x
    >>> done, not_done = wait(square.map([1, 2, 3]), timeout=60)
    >>> len(done), len(not_done)
    (3, 0)
    """
    pending = list(futures)
    _check(pending)
    open_ones = {future for future in pending if not future.done()}
    if open_ones:
        _wait_for(open_ones, timeout)
        open_ones = {future for future in open_ones if not future.done()}
    return set(pending) - open_ones, open_ones


def _wait_for(futures: Iterable[TaskFuture[Any]], timeout: float | None) -> None:
    """Wait until all these are final, or `timeout` seconds are over."""
    groups: dict[Scope, list[str]] = {}
    for future in futures:
        groups.setdefault(future.scope, []).append(future.task_run_id)
    left = _Countdown(len(groups))
    with slot_given_back():
        for scope, task_run_ids in groups.items():
            scope.when_all_final(task_run_ids, left.one_less)
        waiting.wait(left.zero, timeout)


class as_completed(Generic[R_co]):  # noqa: N801  (reads as a word in a loop)
    """Yields futures as they become final, the earliest first; in a coroutine with ``async for``.

    Raises `dflow.errors.WaitTimeout` (a TimeoutError) when the next one is not final `timeout` seconds after
    the first was asked for.

    >>> from dflow import task
    >>> @task
    ... def square(x: int) -> int:
    ...     return x * x
    >>> sorted(future.result() for future in as_completed(square.map([1, 2, 3])))
    [1, 4, 9]
    """

    def __init__(self, futures: Iterable[TaskFuture[R_co]], timeout: float | None = None) -> None:
        self._futures: Sequence[TaskFuture[R_co]] = list(futures)
        _check(self._futures)
        self._timeout = timeout
        self._items: Generator[TaskFuture[R_co], None, None] | None = None
        self._async_items: AsyncGenerator[TaskFuture[R_co], None] | None = None

    def __iter__(self) -> Iterator[TaskFuture[R_co]]:
        """Return the iterator: itself."""
        return self

    def __next__(self) -> TaskFuture[R_co]:
        """Wait for the next one."""
        if self._items is None:
            self._items = generated(self._hand_out(native=False))
        return next(self._items)

    def __aiter__(self) -> AsyncIterator[TaskFuture[R_co]]:
        """Return the asynchronous iterator: itself."""
        return self

    async def __anext__(self) -> TaskFuture[R_co]:
        """Wait for the next one, without holding up the event loop."""
        if self._async_items is None:
            self._async_items = async_generated(self._hand_out(native=True))
        return await anext(self._async_items)

    async def _hand_out(self, *, native: bool) -> None:
        finished = inlet(native=native)
        for each in self._futures:
            each._when_final(partial(finished.put, each))
        deadline = None if self._timeout is None else monotonic() + self._timeout
        for count in range(len(self._futures)):
            left = None if deadline is None else max(0.0, deadline - monotonic())
            future = None if native else await finished.get(0.0)  # the slot is kept if one is there
            if future is None:
                with slot_given_back():
                    future = await finished.get(left)
            if future is None:
                raise WaitTimeout(
                    f"{len(self._futures) - count} of {len(self._futures)} task runs have not ended "
                    f"within {self._timeout} seconds."
                )
            if not future.done():
                future.result(timeout=0.0)
                raise InternalError(f"'{future.name}' was said to be final and is not.")
            await hand_out(future)


class _Countdown:
    """Counts down to zero."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.zero = threading.Event()

    def one_less(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.zero.set()


def slot_given_back() -> contextlib.AbstractContextManager[Any]:
    """Give the worker's slot back while a body waits; outside of a task do nothing."""
    context = current()
    return contextlib.nullcontext() if context is None else context.slot()


def _check(futures: Sequence[Any]) -> None:
    for future in futures:
        if not isinstance(future, TaskFuture):
            raise TypeError(
                f"Expected futures from .submit() or .map(), got a '{type(future).__name__}'."
            )
