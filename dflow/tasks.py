"""Tasks: the functions that a flow sends out, and the calls that a user makes on them.

A task is a definition: a function and how its runs are to be treated. Calling, submitting and mapping ask
the current scope for task runs; what becomes of those is the engine's.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from dflow.attempts.context import current
from dflow.core.events import MapCreated, MapItem, TaskCreated
from dflow.core.records import Policy, Upstream
from dflow.engine import calls, definitions, maps
from dflow.engine.context import current_scope
from dflow.engine.future_lists import TaskFutureList
from dflow.engine.futures import TaskFuture, state_of
from dflow.engine.options import TaskOptions, changed
from dflow.engine.scope import Scope
from dflow.errors import DefinitionError
from dflow.messages import CallOptions
from dflow.states import State

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A function whose runs are recorded, retried and sent to workers. Made by `task`."""

    def __init__(self, fn: Callable[P, R], options: TaskOptions) -> None:
        definitions.check_function(fn, "task")
        definitions.check_texts("task", description=options.description, version=options.version)
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = definitions.name_of(fn, options.name, "task", dashes=False)
        self.description = options.description or inspect.getdoc(fn) or ""
        self.tags = definitions.tags(f"task '{self.name}'", options.tags)
        self.version = options.version
        self._options = replace(options, tags=self.tags)
        self._signature = inspect.signature(fn)
        self._policy = _policy(self.name, options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the task now, in this thread, and return its value or raise what it raises.

        ``return_state=True`` returns its `State` instead, and does not raise; ``wait_for=[…]`` names futures
        that must have completed before. Raises `ParameterError` for arguments that do not fit.
        """
        given: dict[str, Any] = dict(kwargs)
        return_state, wait_for = given.pop("return_state", False), given.pop("wait_for", None)
        scope = current_scope()
        event, call = self._created(scope, args, given, wait_for)
        options = self._call_options(here=True)
        outcome: Any
        if return_state:
            outcome = _call_for_state(scope, event, call, options)
        else:
            outcome = scope.call(event, call, options)
        return cast(R, outcome)

    @overload
    def submit(self, *args: Any, return_state: Literal[True], **kwargs: Any) -> State: ...
    @overload
    def submit(self, *args: Any, **kwargs: Any) -> TaskFuture[R]: ...
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Ask for a task run, and return its future at once.

        Futures among the arguments, at any depth of containers, are the values of other task runs: this one
        goes when they are there. They are found in lists, tuples, sets, deques, dicts, dataclasses and
        pydantic models, not in objects of other classes; `allow_failure`, `quote` and `opaque` say how an
        argument is meant. ``wait_for=[…]`` names futures that must have completed, though their values are
        not needed. With ``return_state=True`` the final `State` is waited for and returned. Raises
        `ParameterError` for arguments that do not fit and `SerializationError` for those that cannot travel
        to the runner.
        """
        return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
        scope = current_scope()
        event, call = self._created(scope, args, kwargs, wait_for)
        scope.submit(event, [call], self._call_options())
        future: TaskFuture[R] = TaskFuture(scope, event.task_run_id, event.name)
        if not return_state:
            return future
        future.wait()
        return future.state

    @overload
    def map(self, *args: Any, return_state: Literal[True], **kwargs: Any) -> list[State]: ...
    @overload
    def map(self, *args: Any, **kwargs: Any) -> TaskFutureList[R]: ...
    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Ask for a task run for each item of the arguments that are lists; return their futures at once.

        Every iterable argument is mapped, but for strings, bytes, dicts, data frames and models; what is the
        same for every item is wrapped in `unmapped`. The lengths must agree. Over the future of a list the
        map is made once that list is there: what is returned at once waits for it when it is looked at (see
        `TaskFutureList`). ``max_in_flight=n`` lets at most n of the task runs be under way at once. With
        ``return_state=True`` the final states are returned.
        """
        return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
        limit = calls.limit_of(kwargs.pop("max_in_flight", None))
        scope = current_scope()
        bound = calls.bind(self.fn, self._signature, args, kwargs)
        options = replace(self._call_options(), max_in_flight=limit)
        futures: TaskFutureList[R] = maps.start(
            scope, self.fn, self.name, bound, wait_for, partial(self._ask_for, scope, options)
        )
        if not return_state:
            return futures
        futures.wait()
        return futures.states

    def _ask_for(
        self,
        scope: Scope,
        options: CallOptions,
        prepared: Sequence[calls.Prepared],
        common: tuple[Upstream, ...],
        apart: bool,
    ) -> list[TaskFuture[R]]:
        """Ask for the task runs of a map."""
        items = []
        for item in prepared:
            task_run_id, name = scope.identify(self.name, item.inputs, apart=apart)
            items.append(MapItem(task_run_id, name, item.upstreams))
        flow_run_id, parent_id = scope.flow_run_id, scope.parent_id
        event = MapCreated(
            at=scope.now(),
            flow_run_id=flow_run_id,
            parent_id=parent_id,
            task_name=self.name,
            items=tuple(items),
            upstreams=common,
            policy=self._policy,
            tags=self.tags,
        )
        if items:
            scope.submit(event, [item.call for item in prepared], options)
        return [TaskFuture[R](scope, item.task_run_id, item.name) for item in items]

    def with_options(self, **changes: Any) -> Task[P, R]:
        """Return a task with the same function and other options; what is not named stays as it is.

        None clears an option. Raises `DefinitionError` for an option that does not exist.
        """
        return Task(self.fn, changed(self._options, changes, f"task '{self.name}'"))

    def _created(
        self, scope: Scope, args: Any, kwargs: Any, wait_for: Any
    ) -> tuple[TaskCreated, Any]:
        bound = calls.bind(self.fn, self._signature, args, kwargs)
        prepared = calls.prepare(scope, self.fn, *bound, wait_for)
        task_run_id, name = scope.identify(self.name, prepared.inputs)
        event = TaskCreated(
            at=scope.now(),
            task_run_id=task_run_id,
            flow_run_id=scope.flow_run_id,
            parent_id=scope.parent_id,
            task_name=self.name,
            name=name,
            upstreams=prepared.upstreams,
            policy=self._policy,
            tags=self.tags,
        )
        return event, prepared.call

    def _call_options(self, *, here: bool = False) -> CallOptions:
        """Return how the run is to be treated; what the task leaves open is as in its parent."""
        log_prints = self._options.log_prints
        if log_prints is None:
            context = current()
            log_prints = context is not None and context.info.log_prints
        return CallOptions(log_prints=log_prints, here=here)

    def __repr__(self) -> str:
        return f"<Task '{self.name}'>"

    def __reduce__(self) -> Any:
        """Travel by reference where the module has this function under its name, else by value."""
        module, qualname = self.fn.__module__, getattr(self.fn, "__qualname__", "")
        found = _find(module, qualname)
        if isinstance(found, Task) and found.fn is self.fn and module != "__main__":
            return _found, (module, qualname, self._options)
        return Task, (self.fn, self._options)


def _find(module: str, qualname: str) -> Any:
    target: Any = sys.modules.get(module)
    for part in qualname.split("."):
        target = getattr(target, part, None)
    return target


def _found(module: str, qualname: str, options: TaskOptions) -> Task[Any, Any]:
    importlib.import_module(module)
    found: Task[Any, Any] = _find(module, qualname)
    return Task(found.fn, options)


def _policy(name: str, options: TaskOptions) -> Policy:
    return definitions.policy(
        f"task '{name}'",
        options.retries,
        options.retry_delay_seconds,
        options.retry_jitter_factor,
        options.max_worker_losses,
    )


def _call_for_state(scope: Scope, event: TaskCreated, call: Any, options: CallOptions) -> State:
    try:
        value = scope.call(event, call, options)
    except Exception as raised:
        error = raised
        status = scope.status(event.task_run_id)
        if not status.final:
            raise

        def outcome() -> Any:
            raise error

        return state_of(status, outcome)
    return state_of(scope.status(event.task_run_id), lambda: value)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    version: str | None = None,
    retries: int = 0,
    retry_delay_seconds: float | list[float] | Callable[[int], list[float]] | None = 0,
    retry_jitter_factor: float | None = None,
    log_prints: bool | None = None,
    max_worker_losses: int = 3,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task, bare or with options.

    name
        The name of the task, by default that of the function.
    description, tags, version
        Recorded with its runs.
    retries
        How many more attempts an attempt that raised may have (0 or more).
    retry_delay_seconds
        Seconds before a retry: a number, a list whose last value repeats, or a function that makes such a
        list from the number of retries, such as `exponential_backoff`.
    retry_jitter_factor
        The share (0 to 1) by which a delay may grow or shrink, at random.
    log_prints
        Whether prints become log lines; left open, as in the flow.
    max_worker_losses
        How many dying workers a run survives; not charged to `retries`.

    >>> @task(retries=2)
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double.fn(4)
    8

    Raises `DefinitionError` for an option that does not exist or cannot have its value.
    """
    made = changed(TaskOptions(), options, "task") if options else TaskOptions()
    if fn is None:
        return lambda function: Task(function, made)
    if options:
        raise DefinitionError("Write @task or @task(...), not task(function, ...).")
    return Task(fn, made)
