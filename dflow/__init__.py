"""dflow: durable workflows for machine learning, executed on Dask.

A ``@flow`` calls ``@task``s; ``.submit()`` and ``.map()`` send them to the workers of a Dask cluster, and a
journal keeps what became of each, from which a run can be watched, explained and resumed.

The names are loaded when they are first used: importing dflow loads neither Dask nor anything else, starts
nothing and changes nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dflow.attempts.logs import get_run_logger
    from dflow.attempts.tagging import tags
    from dflow.engine.annotations import allow_failure, opaque, quote, unmapped
    from dflow.engine.definitions import exponential_backoff
    from dflow.engine.future_lists import TaskFutureList
    from dflow.engine.futures import TaskFuture, as_completed, wait
    from dflow.engine.process import shutdown
    from dflow.flows import Flow, flow
    from dflow.runs import resume
    from dflow.runtime import current_run, get_run_context
    from dflow.states import State, StateType
    from dflow.tasks import Task, task

__all__ = [
    "Flow",
    "State",
    "StateType",
    "Task",
    "TaskFuture",
    "TaskFutureList",
    "allow_failure",
    "as_completed",
    "current_run",
    "exponential_backoff",
    "flow",
    "get_run_context",
    "get_run_logger",
    "opaque",
    "quote",
    "resume",
    "shutdown",
    "tags",
    "task",
    "unmapped",
    "wait",
]

_HOMES = {
    "Flow": "dflow.flows",
    "State": "dflow.states",
    "StateType": "dflow.states",
    "Task": "dflow.tasks",
    "TaskFuture": "dflow.engine.futures",
    "TaskFutureList": "dflow.engine.future_lists",
    "allow_failure": "dflow.engine.annotations",
    "as_completed": "dflow.engine.futures",
    "current_run": "dflow.runtime",
    "exponential_backoff": "dflow.engine.definitions",
    "flow": "dflow.flows",
    "get_run_context": "dflow.runtime",
    "get_run_logger": "dflow.attempts.logs",
    "opaque": "dflow.engine.annotations",
    "quote": "dflow.engine.annotations",
    "resume": "dflow.runs",
    "shutdown": "dflow.engine.process",
    "tags": "dflow.attempts.tagging",
    "task": "dflow.tasks",
    "unmapped": "dflow.engine.annotations",
    "wait": "dflow.engine.futures",
}


def __getattr__(name: str) -> Any:
    """Load a name from its home when it is first used."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dflow' has no attribute '{name}'")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the names, loaded or not."""
    return sorted({*globals(), *__all__})
