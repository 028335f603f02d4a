"""Futures: what `submit` and `map` return, and how to wait for them.

A future knows a task run by its id; its state is the tracker's, its value stays where it is until somebody
asks for it. None of the functions here fetches a value to learn a state.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from dflow.attempts.clock import monotonic
from dflow.attempts.context import current
from dflow.engine.scope import Scope, Status
from dflow.errors import InternalError
from dflow.states import State

R = TypeVar("R")


class TaskFuture(Generic[R]):
    """A task run that was submitted, and in time its value."""

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

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait for the task run and return its value.

        Raises TimeoutError after `timeout` seconds, and otherwise what the task raised;
        with ``raise_on_failure=False`` that exception is returned instead.
        """
        self.wait(timeout)
        if not self.done():
            raise TimeoutError(f"'{self._name}' has not ended within {timeout} seconds.")
        value: R = self.state.result(raise_on_failure=raise_on_failure)
        return value

    def add_done_callback(self, fn: Callable[[TaskFuture[R]], Any]) -> None:
        """Call ``fn(future)`` once the task run is final, from a thread of its own."""
        self._scope.when_final(
            self._task_run_id,
            lambda: threading.Thread(target=fn, args=(self,), name="dflow-callback").start(),
        )

    def _value(self) -> Any:
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
    return State(
        status.type, status.state_name, status.message, at, outcome if status.final else None
    )


def wait(
    futures: Iterable[TaskFuture[Any]], timeout: float | None = None
) -> tuple[set[TaskFuture[Any]], set[TaskFuture[Any]]]:
    """Wait until all futures are final, or `timeout` seconds are over; return (done, not done).

    Inside a task the worker's slot is given back meanwhile.
    """
    pending = list(futures)
    _check(pending)
    open_ones = [future for future in pending if not future.done()]
    if open_ones:
        with slot_given_back():
            left = _Countdown(len(open_ones))
            for future in open_ones:
                future._when_final(left.one_less)
            left.zero.wait(timeout)
    done = {future for future in pending if future.done()}
    return done, set(pending) - done


def as_completed(
    futures: Iterable[TaskFuture[R]], timeout: float | None = None
) -> Iterator[TaskFuture[R]]:
    """Yield the futures as they become final, the earliest first.

    Raises TimeoutError when the next one is not final `timeout` seconds after the first was asked for.
    """
    pending: Sequence[TaskFuture[R]] = list(futures)
    _check(pending)
    finished: SimpleQueue[TaskFuture[R]] = SimpleQueue()
    for future in pending:
        future._when_final(lambda future=future: finished.put(future))  # type: ignore[misc]  # a default binds
    deadline = None if timeout is None else monotonic() + timeout
    for count in range(len(pending)):
        try:
            future = finished.get_nowait()
        except Empty:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            try:
                with slot_given_back():
                    future = finished.get(timeout=left)
            except Empty:
                raise TimeoutError(
                    f"{len(pending) - count} of {len(pending)} task runs have not ended "
                    f"within {timeout} seconds."
                ) from None
        if not future.done():
            future.result(timeout=0.0)
            raise InternalError(f"'{future.name}' was said to be final and is not.")
        yield future


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
