"""What is used inside of flows and tasks, and round about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import dflow
from dflow import (
    State,
    StateType,
    allow_failure,
    current_run,
    exponential_backoff,
    get_run_context,
    get_run_logger,
    opaque,
    quote,
    tags,
    task,
    testing,
    unmapped,
)
from dflow.runtime import CurrentRun
from dflow.states import Completed, Failed


def half(x: int, *, by: int = 2) -> float:
    return x / by


def the_current_run() -> None:
    """It has types, and a function that is bound to it keeps its own."""
    run = current_run()
    assert_type(run, CurrentRun)
    assert_type(get_run_context(), CurrentRun)
    assert_type(run.id, str)
    assert_type(run.idempotency_key, str)
    assert_type(run.attempt, int)
    assert_type(run.tags, tuple[str, ...])
    assert_type(run.parameters, dict[str, Any])
    assert_type(run.checkpoint_dir, Path)
    assert_type(run.task_run_id, str | None)
    assert_type(run.bind(half)(1, by=3), float)
    run.bind(half)("x")  # error: arg-type, reportArgumentType
    run.nothing  # error: attr-defined, reportAttributeAccessIssue


def words() -> None:
    """What wraps a value knows its type, what surrounds calls gives what it says."""
    assert_type(unmapped([1, 2]), unmapped[list[int]])
    assert_type(unmapped([1, 2]).value, list[int])
    assert_type(quote({1: 2}).value, dict[int, int])
    assert_type(opaque(1).value, int)
    assert_type(allow_failure(1).value, int)
    with tags("nightly") as names:
        assert_type(names, tuple[str, ...])
    get_run_logger().info("%s rows", 5)
    task(retry_delay_seconds=exponential_backoff(2))
    with testing.in_memory():
        print()


def states(state: State) -> None:
    """A state has types; its result has none, as nobody knows of what it is."""
    assert_type(state.type, StateType)
    assert_type(state.name, str)
    assert_type(state.is_completed(), bool)
    assert_type(state.result(), Any)
    assert_type(Completed(data=5), State)
    assert_type(Failed(message="too few rows"), State)
    Completed(5)  # error: call-arg, reportCallIssue


def names() -> None:
    """The facade has no names that it does not have."""
    print(dflow.nothing)  # error: attr-defined, reportAttributeAccessIssue
