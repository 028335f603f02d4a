"""What became of a task run, as whoever takes it has it: its value, or its exception."""

from __future__ import annotations

from typing import Any

from dflow.attempts.failures import Failure, failure_of
from dflow.core.records import Need, TaskRun, Upstream
from dflow.engine.scope import Scope
from dflow.errors import MissingResult
from dflow.states import StateType

__all__ = ["failure", "failure_of", "received", "stand_in"]


def stand_in(run: TaskRun, root: TaskRun, live: BaseException | None) -> Failure:
    """Return what stands for the exception of a task run that ended without a value.

    `root` is the task run with which a chain of upstream failures began (or `run` itself), `live` the
    exception object where it was raised in this process.
    """
    return Failure(
        run.name, run.state_name, run.message, root.error, live, root.state_name, root.name
    )


def failure(run: TaskRun, root: TaskRun, live: BaseException | None) -> BaseException:
    """Return what to raise for a task run that ended without a value. Arguments as of `stand_in`."""
    return failure_of(
        run.name, run.state_name, run.message, root.error, live, root.state_name, root.name
    )


def received(scope: Scope, upstream: Upstream) -> Any:
    """Return what a call gets of an upstream: its value, or if it may fail what stands for its exception.

    Raises what made an upstream fail that may not, and `MissingResult` if its value is gone.
    """
    if upstream.need is not Need.ALLOW:
        return scope.value(upstream.task_run_id)
    completed = scope.status(upstream.task_run_id).type is StateType.COMPLETED
    try:
        return scope.value(upstream.task_run_id)
    except MissingResult as lost:
        return Failure(upstream.task_run_id, live=lost)
    except Exception as error:
        if completed:
            raise
        return Failure(upstream.task_run_id, live=error)
