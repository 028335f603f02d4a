"""Tasks that ask for tasks and flows, wherever they run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dflow import TaskFuture, as_completed, flow, runs, task, unmapped, wait
from dflow.core.records import Stage
from dflow.ports import TaskRunner
from tests.api.conftest import ONE_WORKER
from tests.api.test_tasks import latest


@task
def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


@task
def fail(text: str) -> None:
    """Raise."""
    raise KeyError(text)


@task
def in_all_ways(x: int) -> list[Any]:
    """Call, submit, map, wait, and take what ends first."""
    called = add(x)
    future = add.submit(called)
    mapped = add.map([x, x + 1], unmapped(10))
    done, not_done = wait([future, *mapped])
    after = [add.submit(each).result() for each in as_completed([future, *mapped])]
    return [called, future.result(), mapped.result(), len(done), len(not_done), sorted(after)]


@task
def chain(depth: int) -> int:
    """Go deeper by calls and submits in turn."""
    if depth == 0:
        return 0
    return 1 + (chain(depth - 1) if depth % 2 else chain.submit(depth - 1).result())


@task
def failures() -> list[str]:
    """Let others fail, in all ways."""
    told: list[str] = []
    bad = fail.submit("submitted")
    for ask in (lambda: fail("called"), bad.result, lambda: add.submit(bad).result()):
        try:
            ask()
        except KeyError as error:
            told.append(error.args[0])
    told.append(add.submit(bad, return_state=True).name)
    return told


@task
def leaves_open(x: int) -> str:
    """Submit what it does not wait for."""
    add.submit(x)
    add.map([x, x])
    return "left"


def test_tasks_call_submit_and_map_others(runner: TaskRunner) -> None:
    """Their task runs are recorded below them, and all of them complete."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [in_all_ways.submit(1).result(), in_all_ways(1)]

    expected = [2, 3, [11, 12], 3, 0, [4, 12, 13]]
    assert main() == [expected, expected]
    found = latest()
    assert len(found) == 2 * (1 + 1 + 1 + 2 + 3)
    parents = [run.parent_id for run in found if run.task_name == "add"]
    assert set(parents) == {run.id for run in found if run.task_name == "in_all_ways"}


def test_calls_and_submits_in_turn(runner: TaskRunner) -> None:
    """Each level waits for the next, more of them than there are slots."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        return [chain.submit(15).result(), *chain.map([6, 7, 8]).result()]

    assert main() == [15, 6, 7, 8]
    assert {run.stage for run in latest()} == {Stage.COMPLETED}


def test_everything_nested_on_the_only_slot() -> None:
    """A cluster with one thread is never deadlocked by what waits in it."""

    @flow(task_runner=ONE_WORKER)
    def main() -> list[Any]:
        return [chain.submit(10).result(), *in_all_ways.map([1, 1, 1]).result()]

    assert main()[0] == 10


def test_failures_of_nested_work(runner: TaskRunner) -> None:
    """They are caught in the task as anywhere, and harm it only if it lets them."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        with pytest.raises(KeyError, match="let go"):
            lets_go.submit().result()
        return failures.submit().result()

    assert main() == ["called", "submitted", "submitted", "UpstreamFailed"]


@task
def lets_go() -> None:
    """Let a failure through."""
    fail.submit("let go").result()


def test_what_a_task_leaves_open_is_done(runner: TaskRunner) -> None:
    """Work that a task submitted and did not wait for does not vanish."""

    @flow(task_runner=runner)
    def main() -> str:
        return leaves_open.submit(1).result()

    assert main() == "left"
    assert [run.stage for run in latest()] == [Stage.COMPLETED] * 4


# Flows in tasks ----------------------------------------------------------------------------------------


@flow
def part(x: int) -> int:
    """Ask for work in a flow of its own."""
    if x < 0:
        raise ValueError("negative")
    return sum(add.map([x, x]).result())


@flow
async def part_async(x: int) -> int:
    """Do it on a loop."""
    return await add.submit(x)


@task
def calls_flows(x: int) -> list[Any]:
    """Call flows in a task."""
    try:
        part(-1)
    except ValueError as error:
        return [part(x), asyncio.run(part_async(x)), str(error)]
    return []


def test_flows_are_called_in_tasks(runner: TaskRunner) -> None:
    """They are child runs of the task run, in the same journal, and their failures can be caught."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [calls_flows.submit(1).result(), calls_flows(2)]

    assert main() == [[4, 2, "negative"], [6, 3, "negative"]]
    with runs.opened(runs.find("latest")) as reader:
        root, *children = list(reader.flow_runs())
        callers = {run.id for run in reader.task_runs() if run.task_name == "calls_flows"}
    assert len(children) == 6
    assert {child.parent_id for child in children} == callers
    assert {child.root_id for child in children} == {root.id}
    assert sorted(child.state_name for child in children) == ["Completed"] * 4 + ["Failed"] * 2


# Coroutines and futures in tasks --------------------------------------------------------------------------


@task
async def gathers(x: int) -> list[Any]:
    """Ask for work on a loop, wherever it is."""
    futures: list[TaskFuture[int]] = [add.submit(x), add.submit(x, 5)]
    first = [await future async for future in as_completed(futures)]
    return [sorted(first), sum(await asyncio.gather(*futures)), await part_async(x)]


def test_async_tasks_ask_for_work(runner: TaskRunner) -> None:
    """On workers they submit, await, gather and call async flows."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [gathers.submit(1).result(), asyncio.run(gathers(1))]

    assert main() == [[[2, 6], 8, 2]] * 2
