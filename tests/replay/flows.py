"""The flows whose records are kept: a bit of everything that a record can hold, in a few kilobytes.

Kept records are resumed with these flows. So what is here may grow, and must not change.
"""

from __future__ import annotations

import os
import signal

from dflow import allow_failure, current_run, flow, get_run_logger, task
from dflow.states import Failed, State

KILL = "DFLOW_REPLAY_KILL"
"""The environment variable that lets `cut` kill its driver."""


@task(retries=1, retry_delay_seconds=0)
def fetch(source: str) -> list[int]:
    """Fail in the first attempt, and log it."""
    get_run_logger().info("fetching '%s' für später", source)
    if not os.environ.get("FETCHED"):
        os.environ["FETCHED"] = "yes"
        raise ConnectionError("the line is down\nand stays so")
    return [1, 2, 3, 4]


@task
def square(number: int) -> int:
    """Take any number but 3."""
    if number == 3:
        raise ValueError("not 3, please")
    return number * number


@task(log_prints=True)
def collect(values: list[object]) -> int:
    """Count what is no exception."""
    good = [value for value in values if isinstance(value, int)]
    print(len(good), "of", len(values))
    return sum(good)


@task
def by_hand() -> State:
    """Return a state."""
    return Failed(message="by hand")


@task
def after(value: object) -> object:
    """Come after another."""
    return value


@task
def blocked(value: object) -> object:
    """Need what has failed."""
    return value


@flow
def inner(text: str) -> object:
    """Be called by another flow."""
    return after(text)


@flow(task_runner="inline", retries=1)
def everything(source: str = "the source") -> int:
    """Retries, maps, failures that are allowed and that are not, a subflow, a state by hand, logs."""
    numbers = fetch.submit(source)
    squares = square.map(numbers)
    total = collect.submit([allow_failure(item) for item in squares])
    blocked.submit(squares[2])
    by_hand.submit()
    get_run_logger().warning("inner said %r", inner("ünïcode ✓"))
    return total.result()


@task(retries=1)
def step(number: int) -> int:
    """Do one step. If it is told to, the third fails first, and then kills the driver."""
    if number == 2 and os.environ.get(KILL):
        if current_run().attempt == 1:
            raise ValueError("once more")
        os.kill(os.getpid(), signal.SIGKILL)
    return number + 1


@flow(task_runner="inline")
def cut(steps: int = 4) -> int:
    """Take some steps."""
    number = 0
    for _ in range(steps):
        number = step(number)
        get_run_logger().warning("now at %d", number)
    return number
