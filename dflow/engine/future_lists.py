"""The futures of a map. Those of a map over a list that does not exist yet come to be when it does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

from dflow.attempts.calls import Listed
from dflow.attempts.clock import monotonic
from dflow.engine import waiting
from dflow.engine.futures import TaskFuture, slot_given_back, wait
from dflow.engine.map_futures import MapFutures
from dflow.engine.waiting import bell
from dflow.errors import WaitTimeout
from dflow.states import State

R = TypeVar("R")


class Expansion(Generic[R]):
    """The making of a map's futures, which may be still to come. `key` names the map in its scope."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.futures: Sequence[TaskFuture[R]] = ()
        self.problem: BaseException | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._then: list[Callable[[], None]] = []

    def end(self, futures: Sequence[TaskFuture[R]], problem: BaseException | None = None) -> None:
        """Note what came of it: futures, or a problem."""
        with self._lock:
            self.futures, self.problem = futures, problem
            self._over.set()
            calls, self._then = self._then, []
        for call in calls:
            call()

    @property
    def over(self) -> bool:
        """Whether there is nothing more to come."""
        return self._over.is_set()

    def when_over(self, then: Callable[[], None]) -> None:
        """Call `then` once it is over: now, or later from another thread."""
        with self._lock:
            if not self.over:
                self._then.append(then)
                return
        then()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over, or `timeout` seconds; return whether it is."""
        if not self.over:
            with slot_given_back():
                waiting.wait(self._over, timeout)
        return self.over


class TaskFutureList(Listed, Sequence[TaskFuture[R]]):
    """The futures of a map, in the order of its items.

    A map over the future of a list returns at once, and its items come to be when that list does. Whatever
    needs them waits for that: to ask for their number, to look at them, to pass the list to a task. If there
    never will be any, because the task run that was to give the list has failed, this raises why; `wait` does
    not.

    >>> from dflow import task
    >>> @task
    ... def square(x: int) -> int:
    ...     return x * x
    >>> futures = square.map([1, 2, 3])
    >>> futures.result()
    [1, 4, 9]
    >>> [state.name for state in futures.states]
    ['Completed', 'Completed', 'Completed']
    """

    __slots__ = ("_expansion",)
    __hash__ = None  # type: ignore[assignment]  # equal to the list of its items, it has no hash either

    def __init__(self, futures: Iterable[TaskFuture[R]] = ()) -> None:
        self._expansion: Expansion[R] = Expansion()
        self._expansion.end(futures if isinstance(futures, MapFutures) else list(futures))

    @classmethod
    def of(cls, expansion: Expansion[R]) -> TaskFutureList[R]:
        """Return the futures that will come of `expansion`."""
        made: TaskFutureList[R] = cls()
        made._expansion = expansion
        return made

    @property
    def expansion(self) -> Expansion[R]:
        """How its items come to be."""
        return self._expansion

    def problem(self) -> BaseException | None:
        """Wait for the items; return why there never will be any, or None."""
        self._expansion.wait()
        return self._expansion.problem

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all are final, or `timeout` seconds are over. Never raises."""
        deadline = _deadline(timeout)
        if self._expansion.wait(timeout):
            _wait(self._expansion.futures, _left(deadline))

    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> list[R]: ...
    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> list[R | Exception]: ...
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Wait for all and return their values, in their order.

        Raises `dflow.errors.WaitTimeout` after `timeout` seconds, and otherwise the first failure in their
        order; with ``raise_on_failure=False`` a failure stands in the place of its value. A list without
        which there are no items, and that failed, is raised always.
        """
        deadline = _deadline(timeout)
        if not self._expansion.wait(timeout):
            raise WaitTimeout(f"What is to be mapped over has not ended within {timeout} seconds.")
        futures = self._items()
        not_done = _wait(futures, _left(deadline))
        if not_done:
            raise WaitTimeout(
                f"{not_done} of {len(futures)} task runs have not ended within {timeout} seconds."
            )
        if isinstance(futures, MapFutures):
            return futures.values(raise_on_failure=raise_on_failure)
        return [future.result(raise_on_failure=raise_on_failure) for future in futures]

    async def aresult(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  (as of `result`)
        raise_on_failure: bool = True,
    ) -> list[Any]:
        """Do what `result` does, without holding up the event loop."""
        deadline = _deadline(timeout)
        if not self._expansion.over:
            over = bell(native=True)
            self._expansion.when_over(over.ring)
            with slot_given_back():
                await over.rung(timeout)
        if self._expansion.over and self._expansion.problem is None:
            for future in self._expansion.futures:
                await future.until_final(_left(deadline), native=True)
        return await asyncio.to_thread(self.result, _left(deadline), raise_on_failure)

    def __await__(self) -> Generator[Any, None, list[R]]:
        """Await the values of all."""
        return self.aresult().__await__()

    @property
    def states(self) -> list[State]:
        """The states, as they are recorded."""
        return [future.state for future in self._items()]

    def _items(self) -> Sequence[TaskFuture[R]]:
        if (problem := self.problem()) is not None:
            raise problem
        return self._expansion.futures

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[TaskFuture[R]]:
        return iter(self._items())

    @overload
    def __getitem__(self, index: int) -> TaskFuture[R]: ...
    @overload
    def __getitem__(self, index: slice) -> TaskFutureList[R]: ...
    def __getitem__(self, index: int | slice) -> TaskFuture[R] | TaskFutureList[R]:
        """Return one future, or for a slice the list of some."""
        if isinstance(index, slice):
            return TaskFutureList(self._items()[index])
        return self._items()[index]

    def __add__(self, other: Iterable[TaskFuture[Any]]) -> TaskFutureList[Any]:
        if not isinstance(other, TaskFutureList | list):
            return NotImplemented
        return TaskFutureList([*self, *other])

    def __radd__(self, other: object) -> list[Any]:
        return [*other, *self] if isinstance(other, list) else NotImplemented

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, TaskFutureList | list):
            return NotImplemented
        return list(self._items()) == list(other)

    def __repr__(self) -> str:
        if not self._expansion.over:
            return "TaskFutureList(…)"
        if self._expansion.problem is not None:
            return f"TaskFutureList({self._expansion.problem!r})"
        return f"TaskFutureList({list(self._expansion.futures)!r})"

    def __reduce__(self) -> Any:
        """Travel as a list of futures, which say that they cannot."""
        return TaskFutureList, (list(self._items()),)


def _wait(futures: Sequence[TaskFuture[Any]], timeout: float | None) -> int:
    """Wait until all are final, or `timeout` seconds are over; return how many are not."""
    if isinstance(futures, MapFutures):
        return futures.wait(timeout)
    return len(wait(futures, timeout)[1])


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - monotonic())
