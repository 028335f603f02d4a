"""The current run seen from inside: in a flow or a task, wherever it runs.

`current_run` gives all of it; ``runtime.flow_run`` and ``runtime.task_run`` give the same piece by piece, and
None (or nothing) outside of a run.

>>> from dflow import flow, runtime
>>> @flow
... def train(epochs: int) -> dict[str, int]:
...     return runtime.flow_run.parameters
>>> train(3)
{'epochs': 3}
>>> runtime.flow_run.parameters
{}
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dflow.attempts.context import FlowInfo, RunContext, current
from dflow.attempts.parameters import by_name
from dflow.engine.about import About
from dflow.engine.context import keeper_in
from dflow.errors import NoRunError
from dflow.messages import AttemptInfo

__all__ = [
    "CurrentRun",
    "FlowRunInfo",
    "current_run",
    "flow_run",
    "get_run_context",
    "task_run",
]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """A flow run or a task run, from inside its body. Made by `current_run`.

    >>> from dflow import task
    >>> @task(tags=["nightly"])
    ... def train(epochs: int) -> tuple:
    ...     run = current_run()
    ...     return run.task_run_name, run.attempt, run.tags, run.parameters
    >>> train(3)
    ('train-0', 1, ('nightly',), {'epochs': 3})
    """

    _context: RunContext

    @property
    def id(self) -> str:
        """The id of the run: of the task run in a task, of the flow run in a flow."""
        return self._context.run_id

    @property
    def name(self) -> str:
        """The name of the run."""
        info = self._context.info
        return info.task_run_name if isinstance(info, AttemptInfo) else info.flow_run_name

    @property
    def task_run_id(self) -> str | None:
        """The id of the task run, None in a flow."""
        return self._context.task_run_id

    @property
    def task_run_name(self) -> str | None:
        """The name of the task run, None in a flow."""
        info = self._context.info
        return info.task_run_name if isinstance(info, AttemptInfo) else None

    @property
    def task_name(self) -> str | None:
        """The name of the task, None in a flow."""
        info = self._context.info
        return info.task_name if isinstance(info, AttemptInfo) else None

    @property
    def flow_run_id(self) -> str:
        """The id of the flow run, in a task that of the one it belongs to."""
        return self._context.info.flow_run_id

    @property
    def flow_run_name(self) -> str:
        """The name of the flow run."""
        return self._context.info.flow_run_name

    @property
    def flow_name(self) -> str:
        """The name of the flow."""
        return self._context.info.flow_name

    @property
    def root_flow_run_id(self) -> str:
        """The id of the outermost flow run."""
        return self._context.info.root_id

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments of this body by name, those left at their defaults included."""
        call = self._context.notes.get("call")
        return {} if call is None else by_name(*call)

    @property
    def tags(self) -> tuple[str, ...]:
        """Its own tags and those of ``with dflow.tags(…)`` around its call, sorted."""
        return self._context.info.tags

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1; in a flow how often its body has begun."""
        return self._context.attempt

    @property
    def generation(self) -> int:
        """How often the run was asked for, from 1: a resume, and a retry of the flow, ask again."""
        return self._context.info.generation

    @property
    def worker(self) -> str:
        """Where the body runs; empty where it runs with its caller."""
        return self._context.worker

    @property
    def idempotency_key(self) -> str:
        """A text that is the same in every execution of this run, and in no other run.

        Give it to services that must not do a thing twice: a body may run again after its worker has died.
        """
        return self._context.run_id

    @property
    def checkpoint_dir(self) -> Path:
        """A folder that the next attempt of this run finds again; made when it is asked for.

        What runs again from scratch, by ``dflow rerun`` or as its code has changed, gets another.
        It lies in the home folder of dflow: workers on other machines find it if they share that.
        """
        folder = Path(self._context.info.checkpoints) / self._context.run_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def flow_run(self) -> FlowRunInfo:
        """The flow run: of this body, or of the flow that the task belongs to."""
        return _flow_run(self._context)

    @property
    def task_run(self) -> CurrentRun | None:
        """The task run, None in a flow."""
        return None if self._context.task_run_id is None else self

    def bind(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Return `fn` so that it belongs to this run in whatever thread it is called.

        What it calls, logs and prints there is then this run's. It may be called several times at once.

        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from dflow import flow
        >>> @flow
        ... def names() -> list[str]:
        ...     name = current_run().bind(lambda _: current_run().flow_name)
        ...     with ThreadPoolExecutor() as threads:
        ...         return list(threads.map(name, range(2)))
        >>> names()
        ['names', 'names']
        """
        context = contextvars.copy_context()
        adopted = self._context.adopted

        @wraps(fn)
        def bound(*args: P.args, **kwargs: P.kwargs) -> R:
            with adopted():
                return context.copy().run(fn, *args, **kwargs)

        return bound


@dataclass(frozen=True, slots=True)
class FlowRunInfo:
    """What the tasks of a flow run can see of it.

    >>> from dflow import flow, task
    >>> @task
    ... def part() -> str:
    ...     return current_run().flow_run.flow_name
    >>> @flow
    ... def whole() -> str:
    ...     return part()
    >>> whole()
    'whole'
    """

    id: str
    name: str
    flow_name: str
    parameters: dict[str, Any]
    tags: tuple[str, ...]
    run_count: int
    parent_flow_run_id: str | None
    root_flow_run_id: str


def current_run() -> CurrentRun:
    """Return the run whose body this is. Raises `NoRunError` outside of a flow or a task.

    >>> from dflow import task
    >>> @task(retries=1)
    ... def flaky() -> str:
    ...     if current_run().attempt == 1:
    ...         raise OSError("The network is down.")
    ...     return "fine"
    >>> flaky()
    'fine'
    """
    context = current()
    if context is None:
        raise NoRunError(
            "There is no current run. Call current_run() inside a flow or a task; a thread of your own "
            "belongs to its run when it is given current_run().bind(function) to run."
        )
    return CurrentRun(context)


def get_run_context() -> CurrentRun:
    """Return the run whose body this is, as `current_run` does, under the name that Prefect gives it.

    >>> from dflow import flow
    >>> @flow
    ... def main() -> str:
    ...     return get_run_context().flow_run.flow_name
    >>> main()
    'main'
    """
    return current_run()


def _flow_run(context: RunContext) -> FlowRunInfo:
    about: About | None = context.notes.get("flow")
    if about is None:
        about = context.notes["flow"] = keeper_in(context).about(context.info.flow_run_id)
    flow: FlowInfo = about.flow
    return FlowRunInfo(
        id=flow.flow_run_id,
        name=flow.flow_run_name,
        flow_name=flow.flow_name,
        parameters=about.parameters(),
        tags=flow.tags,
        run_count=flow.generation,
        parent_flow_run_id=flow.parent_flow_run_id,
        root_flow_run_id=flow.root_id,
    )


class _Current:
    """Gives the attributes of the current run, and what stands for nothing outside of one."""

    def __init__(self, find: Callable[[RunContext], Any], nothing: dict[str, Any]) -> None:
        self._find = find
        self._nothing = nothing

    def __getattr__(self, name: str) -> Any:
        if name not in self._nothing:
            raise AttributeError(
                f"The current run has no '{name}'. It has: {', '.join(self._nothing)}."
            )
        context = current()
        run = None if context is None else self._find(context)
        return self._nothing[name] if run is None else getattr(run, name)

    def __dir__(self) -> list[str]:
        return sorted(self._nothing)


@dataclass(frozen=True, slots=True)
class _TaskRunInfo:
    """What ``runtime.task_run`` shows."""

    id: str
    name: str
    task_name: str
    parameters: dict[str, Any]
    tags: tuple[str, ...]
    run_count: int


def _task_run(context: RunContext) -> _TaskRunInfo | None:
    run, info = CurrentRun(context), context.info
    if not isinstance(info, AttemptInfo):
        return None
    return _TaskRunInfo(
        run.id, info.task_run_name, info.task_name, run.parameters, run.tags, run.attempt
    )


flow_run: Any = _Current(
    _flow_run,
    {
        "id": None,
        "name": None,
        "flow_name": None,
        "parameters": {},
        "tags": (),
        "run_count": 0,
        "parent_flow_run_id": None,
        "root_flow_run_id": None,
    },
)
"""The current flow run: ``id name flow_name parameters tags run_count …``; nothing outside of one."""

task_run: Any = _Current(
    _task_run,
    {"id": None, "name": None, "task_name": None, "parameters": {}, "tags": (), "run_count": 0},
)
"""The current task run: ``id name task_name parameters tags run_count``; nothing outside of one."""
