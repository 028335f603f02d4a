"""The futures of the task runs of one map, each made when somebody looks at it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from dflow.engine import waiting
from dflow.engine.futures import TaskFuture, slot_given_back
from dflow.engine.scope import Scope
from dflow.messages import Ref
from dflow.states import StateType

R = TypeVar("R")


class MapFutures(Sequence[TaskFuture[R]]):
    """The futures of a map, by the ids and the names of its task runs.

    Ten thousand task runs are waited for, and their values given, without ten thousand futures. Of those that
    nobody has looked at this holds what a future would: while it lives, their values are there.
    """

    __slots__ = ("__weakref__", "_ids", "_lock", "_made", "_names", "_scope")

    def __init__(self, scope: Scope, ids: Sequence[str], names: Sequence[str]) -> None:
        self._scope = scope
        self._ids = ids
        self._names = names
        self._made: dict[int, TaskFuture[R]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> TaskFuture[R]: ...
    @overload
    def __getitem__(self, index: slice) -> list[TaskFuture[R]]: ...
    def __getitem__(self, index: int | slice) -> TaskFuture[R] | list[TaskFuture[R]]:
        """Return one future, always the same, or for a slice a list."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self._ids)))]
        index = range(len(self._ids))[index]
        with self._lock:
            future = self._made.get(index)
            if future is None:
                future = TaskFuture(self._scope, self._ids[index], self._names[index])
                self._made[index] = future
        return future

    @property
    def scope(self) -> Scope:
        """The scope that asked for the task runs."""
        return self._scope

    def refs(self) -> list[Ref]:
        """Return what stands for the values in the arguments of calls, as long as this lives."""
        return [Ref(each) for each in self._ids]

    def wait(self, timeout: float | None) -> int:
        """Wait until all are final, or `timeout` seconds are over; return how many are not."""
        left = self._scope.unfinished(self._ids)
        if not left:
            return 0
        final = threading.Event()
        with slot_given_back():
            self._scope.when_all_final(left, final.set)
            waiting.wait(final, timeout)
        return len(self._scope.unfinished(left))

    def values(self, *, raise_on_failure: bool) -> list[Any]:
        """Return the values of all, which are final; raise the first failure, or let it stand for a value."""
        if raise_on_failure or self._have_completed():
            return self._scope.values(self._ids)
        return [future.result(raise_on_failure=False) for future in self]

    def _have_completed(self) -> bool:
        completed = StateType.COMPLETED
        return all(self._scope.status(each).type is completed for each in self._ids)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            left = self._ids
            if self._made:
                left = [each for index, each in enumerate(left) if index not in self._made]
            self._scope.drop(*left)
