"""What the arguments of a map are: the same for every item, mapped, or still to come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dflow.engine.annotations import Annotation, allow_failure, unmapped
from dflow.engine.future_lists import TaskFutureList
from dflow.engine.futures import TaskFuture, state_of
from dflow.engine.map_futures import MapFutures
from dflow.errors import MissingResult
from dflow.states import State


@dataclass(frozen=True, slots=True)
class Same:
    """An argument that is the same for every item. `problem` says why it is not a list of several."""

    value: Any
    problem: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """An argument that is mapped; its items may fail or not."""

    items: Sequence[Any]
    may_fail: bool = False

    def at(self, index: int) -> Any:
        """Return what one task run gets."""
        return allow_failure(self.items[index]) if self.may_fail else self.items[index]


@dataclass(frozen=True, slots=True)
class Later:
    """An argument of which only time tells whether it is mapped: a future, or a map that is not expanded."""

    source: TaskFuture[Any] | TaskFutureList[Any]
    may_fail: bool = False

    def now(self) -> Same | Items:
        """Return the argument as it has turned out. Raises what made its source fail, if that may not."""
        same = allow_failure(self.source) if self.may_fail else self.source
        items: Sequence[Any] | None
        try:
            if isinstance(self.source, TaskFutureList):
                return Items(_futures_of(self.source), self.may_fail)
            items = _items_of(_value_of(self.source))
        except Exception as error:
            failed = isinstance(error, MissingResult) or _failed(self.source)
            if self.may_fail and failed:
                return Same(same, error)
            raise
        return Same(same) if items is None else Items(items)


Argument = Same | Items | Later


def _value_of(source: TaskFuture[Any]) -> Any:
    """Return the value of a task run that is final, of which the body that called the map sees nothing."""
    scope, task_run_id = source.scope, source.task_run_id
    return state_of(scope.status(task_run_id), lambda: scope.value(task_run_id)).result()


def _failed(source: TaskFuture[Any] | TaskFutureList[Any]) -> bool:
    return isinstance(source, TaskFutureList) or not source.state.is_completed()


def argument_of(value: Any, *, may_fail: bool = False) -> Argument:
    """Return how an argument is meant. Raises the failure of a state that may not fail."""
    if isinstance(value, allow_failure):
        return argument_of(value.value, may_fail=True)
    if isinstance(value, TaskFuture):
        return Later(value, may_fail)
    if isinstance(value, TaskFutureList):
        done = value.expansion.over and value.expansion.problem is None
        return Items(_futures_of(value), may_fail) if done else Later(value, may_fail)
    if isinstance(value, Annotation):
        inner = value.value if isinstance(value, unmapped) else value
        return Same(allow_failure(inner) if may_fail else inner)
    same = allow_failure(value) if may_fail else value
    if isinstance(value, State):
        if may_fail and not value.is_completed():
            return Same(same)
        items = _items_of(value.result())
        return Same(same) if items is None else Items(items)
    items = _items_of(value)
    return Same(same) if items is None else Items(items, may_fail)


def _futures_of(source: TaskFutureList[Any]) -> Sequence[TaskFuture[Any]]:
    """Return the futures of a map, none of them made if that need not be. Raises why there are none."""
    futures = source.expansion.futures
    return futures if isinstance(futures, MapFutures) else list(source)


def _items_of(value: Any) -> Sequence[Any] | None:
    """Return the items of a value that is mapped over, or None if it is one thing."""
    if isinstance(value, list | tuple | range):
        return value
    if isinstance(value, str | bytes | bytearray | Mapping | type) or _is_whole(value):
        return None
    if not isinstance(value, Iterable) or getattr(value, "ndim", None) == 0:
        return None  # an array without dimensions says that it is iterable, and is not
    return list(value)


def _is_whole(value: Any) -> bool:
    """Tell whether a value is iterable, but one thing to its users: a data frame, a model."""
    for module, name in (
        ("pandas", "DataFrame"),
        ("polars", "DataFrame"),
        ("polars", "LazyFrame"),
        ("pydantic", "BaseModel"),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(value, kind):
            return True
    return False
