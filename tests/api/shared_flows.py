"""Flows and tasks that the tests of flows share, also on workers, and a look at the latest run."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from dflow import flow, runs, task
from dflow.core.records import FlowRun, TaskRun
from tests.records import sound

MINE: ContextVar[str] = ContextVar("of_a_user", default="unset")


@dataclass(frozen=True)
class Seen:
    """What is recorded of a root flow run: its flow runs with the root first, its task runs, its lines."""

    flows: list[FlowRun]
    tasks: list[TaskRun]
    lines: list[str]

    @property
    def root(self) -> FlowRun:
        """The root."""
        return self.flows[0]

    def named(self, flow_name: str) -> list[FlowRun]:
        """Return the runs of one flow."""
        return [run for run in self.flows if run.flow_name == flow_name]

    def states(self) -> list[tuple[str, str]]:
        """Return the names and states of the task runs, sorted; of other parents the same name is used."""
        return sorted((run.name, run.state_name) for run in self.tasks)


def seen(name: str = "latest") -> Seen:
    """Return what is recorded of a run, whose invariants must hold."""
    with runs.opened(runs.find(name)) as reader:
        table = sound(reader)
        lines = [line.message for line in reader.logs()]
    flows = sorted(
        table.flow_runs.values(), key=lambda run: (run.parent_id is not None, run.created_at)
    )
    return Seen(flows, list(table.task_runs.values()), lines)


@task
def add(x: int, y: int = 1) -> int:
    """Return a sum."""
    return x + y


@task
def fail(text: str = "x") -> int:
    """Raise."""
    raise KeyError(text)


@task
def upto(n: int) -> list[int]:
    """Return the numbers below n."""
    return list(range(n))


@flow
def child(x: int) -> int:
    """Do something in a task."""
    if x < 0:
        raise ValueError(f"negative: {x}")
    return add.submit(x).result()


@flow
async def async_child(x: int) -> int:
    """Do something in a task, and await it."""
    await asyncio.sleep(0.001)
    if x < 0:
        raise ValueError(f"negative: {x}")
    return await add.submit(x)


@flow
def numbers(n: int, last: str = "") -> Any:
    """Yield numbers that tasks have made."""
    for x in range(n):
        yield add(x)
    if last:
        raise ValueError(last)


@flow
async def async_numbers(n: int, last: str = "") -> Any:
    """Yield numbers that tasks have made."""
    for x in range(n):
        yield await add.submit(x)
    if last:
        raise ValueError(last)


@task
def calls_flow(x: int) -> int:
    """Call a flow in a task."""
    return child(x)


@task
async def awaits_flow(x: int) -> int:
    """Await a flow in a task."""
    return await async_child(x)


@task
def rescues_flow(x: int) -> str:
    """Catch the failure of a flow in a task."""
    try:
        return str(child(x))
    except ValueError as error:
        return f"rescued {error}"


@flow
def task_in_flow(depth: int) -> int:
    """Submit a task that calls this flow, one level deeper."""
    return 0 if depth == 0 else flow_in_task.submit(depth).result()


@task
def flow_in_task(depth: int) -> int:
    """Call a flow that submits this task, one level deeper."""
    return task_in_flow(depth - 1) + 1


@task
def starts_flows(n: int) -> list[int]:
    """Start flows in a task and join them."""
    handles = [child.start(x) for x in range(n)]
    return [handle.result(timeout=60) for handle in handles]


@flow
async def async_endless() -> None:
    """Await what never comes."""
    await asyncio.Event().wait()


@flow
def endless() -> None:
    """Call tasks, one after the other."""
    while True:
        add.submit(1).result()


@task
def cancels_flow(way: str, at_once: bool) -> str:
    """Start a flow in a task, and cancel it."""
    handle = async_endless.start() if way == "async" else endless.start()
    while not at_once and handle.state.name == "Pending":
        threading.Event().wait(0.001)
    handle.cancel()
    handle.wait(timeout=30)
    return handle.state.name
