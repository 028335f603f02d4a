"""Flows in flows and in tasks, sync and async, on every runner."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dflow import current_run, flow, task
from dflow.errors import DefinitionError
from dflow.ports import TaskRunner
from tests.api.conftest import RUNNERS
from tests.api.shared_flows import (
    add,
    async_child,
    async_numbers,
    awaits_flow,
    calls_flow,
    child,
    fail,
    numbers,
    rescues_flow,
    seen,
    task_in_flow,
)


def test_subflows_are_children_in_the_record(runner: TaskRunner) -> None:
    """With their task runs below them, at any depth; names count the calls."""
    middle = flow(name="middle")(lambda: child(1) + child(2))

    @flow(task_runner=runner)
    def main() -> int:
        return middle() + child(3)

    assert main() == 9
    found = seen()
    (between,) = found.named("middle")
    children = found.named("child")
    assert [run.parent_id for run in children] == [between.id, between.id, found.root.id]
    assert [run.name for run in children] == ["child-0", "child-1", "child-0"]
    assert {run.flow_run_id for run in found.tasks} == {run.id for run in children}


@pytest.mark.parametrize("way", ["gather", "threads", "start"])
def test_subflows_run_at_once(runner: TaskRunner, way: str) -> None:
    """By asyncio.gather, in threads that know the flow, and started."""
    meet = threading.Barrier(2, timeout=60)

    @flow
    def meets(x: int) -> int:
        meet.wait()
        return add.submit(x).result()

    @flow
    async def awaits(x: int, mine: asyncio.Event, others: asyncio.Event) -> int:
        mine.set()
        await others.wait()
        return await add.submit(x)

    @flow(task_runner=runner)
    async def gathered() -> list[int]:
        a, b = asyncio.Event(), asyncio.Event()
        return list(await asyncio.gather(awaits(1, a, b), awaits(2, b, a)))

    @flow(task_runner=runner)
    def threaded() -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(current_run().bind(meets), [1, 2]))

    @flow(task_runner=runner)
    def started() -> list[int]:
        handles = [meets.start(1), meets.start(2)]
        return [handle.result() for handle in handles]

    if way == "gather":
        assert asyncio.run(gathered()) == [2, 3]
    else:
        assert {"threads": threaded, "start": started}[way]() == [2, 3]
    found = seen()
    assert [run.state_name for run in found.flows] == ["Completed"] * 3
    assert {run.parent_id for run in found.flows[1:]} == {found.root.id}
    assert len({run.flow_run_id for run in found.tasks}) == 2


def test_one_failure_among_gathered_subflows_is_caught(runner: TaskRunner) -> None:
    """The others complete, and each has its own state."""

    @flow(task_runner=runner)
    async def main() -> list[Any]:
        results = await asyncio.gather(
            async_child(1), async_child(-1), async_child(2), return_exceptions=True
        )
        return [type(one).__name__ if isinstance(one, Exception) else one for one in results]

    assert asyncio.run(main()) == [2, "ValueError", 3]
    states = sorted(run.state_name for run in seen().flows)
    assert states == ["Completed", "Completed", "Completed", "Failed"]


def test_a_subflow_that_fails_fails_its_parent(runner: TaskRunner) -> None:
    """Unless it is caught; the exception is the very one, in sync and async flows."""

    @flow(task_runner=runner)
    def main() -> int:
        return child(-1)

    @flow(task_runner=runner)
    async def async_main() -> int:
        return await async_child(-2)

    with pytest.raises(ValueError, match="negative: -1"):
        main()
    assert [run.state_name for run in seen().flows] == ["Failed", "Failed"]
    with pytest.raises(ValueError, match="negative: -2"):
        asyncio.run(async_main())
    assert [run.state_name for run in seen().flows] == ["Failed", "Failed"]


def test_flows_in_tasks_are_recorded(runner: TaskRunner) -> None:
    """Called or awaited in a task, on workers too: a child of the task run, with its task runs below it."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        return [calls_flow.submit(1).result(), awaits_flow.submit(2).result(), calls_flow(3)]

    assert main() == [2, 3, 4]
    found = seen()
    tasks = {run.id: run for run in found.tasks}
    inner = found.flows[1:]
    names = [tasks[run.parent_id or ""].task_name for run in inner]
    assert names == ["calls_flow", "awaits_flow", "calls_flow"]
    assert [run.state_name for run in inner] == ["Completed"] * 3
    below = [run.flow_run_id for run in found.tasks if run.task_name == "add"]
    assert sorted(below) == sorted(run.id for run in inner)


def test_failures_of_flows_in_tasks_propagate(runner: TaskRunner) -> None:
    """The flow run, the task run and the flow around it fail with the exception; a task can catch it."""

    @flow(task_runner=runner)
    def main() -> str:
        said = rescues_flow.submit(-1).result()
        with pytest.raises(ValueError, match="negative: -2"):
            awaits_flow.submit(-2).result()
        calls_flow.submit(-3).result()
        return said

    with pytest.raises(ValueError, match="negative: -3"):
        main()
    found = seen()
    assert [run.state_name for run in found.flows] == ["Failed"] * 4
    states = dict(found.states())
    assert states["rescues_flow-0"] == "Completed"
    assert (states["awaits_flow-0"], states["calls_flow-0"]) == ("Failed", "Failed")


def test_flows_in_tasks_in_flows_in_tasks(runner: TaskRunner) -> None:
    """Deeper than there are slots, without a deadlock; the tree tells who called whom."""
    assert task_in_flow.with_options(task_runner=runner)(4) == 4
    found = seen()
    parents = {run.id: run.parent_id for run in found.flows}
    parents |= {run.id: run.parent_id for run in found.tasks}
    assert (len(found.flows), len(found.tasks)) == (5, 4)
    depth, at = 0, found.flows[-1].id
    while (above := parents[at]) is not None:
        depth, at = depth + 1, above
    assert depth == 8


@pytest.mark.parametrize("name", list(RUNNERS))
def test_a_flow_in_a_task_with_a_runner_of_its_own(name: str) -> None:
    """In this process it uses that; in another process the error says what to do."""
    own = child.with_options(task_runner="inline")
    inside = task(lambda: own(1))
    main = flow(task_runner=RUNNERS[name])(lambda: inside.submit().result())
    if name != "dask processes":
        assert main() == 2
        return
    with pytest.raises(DefinitionError, match=r"Leave out task_runner=, or call it in the flow"):
        main()
    assert seen().root.state_name == "Failed"


# Generators ---------------------------------------------------------------------------------------------


def test_generator_flows_yield_when_called(runner: TaskRunner) -> None:
    """Item by item, in step with their caller; return_state and start give the list."""
    seen_items: list[int] = []

    @flow(task_runner=runner)
    def main() -> list[int]:
        for item in numbers(3):
            seen_items.append(item)
            assert len(seen().named("numbers")) == 1
            add(item)
        return list(numbers(2))

    assert main() == [1, 2]
    assert seen_items == [1, 2, 3]
    assert [run.state_name for run in seen().flows] == ["Completed"] * 3
    root = numbers.with_options(task_runner=runner)
    assert list(root(2)) == [1, 2]
    state: Any = root(2, return_state=True)
    assert state.result() == [1, 2]
    assert root.start(2).result(timeout=60) == [1, 2]


def test_async_generator_flows_yield_when_called(runner: TaskRunner) -> None:
    """Also as roots, and under gather."""

    @flow(task_runner=runner)
    async def main() -> list[list[int]]:
        async def collected(n: int) -> list[int]:
            return [item async for item in async_numbers(n)]

        return list(await asyncio.gather(collected(3), collected(2)))

    async def alone() -> list[int]:
        return [item async for item in async_numbers.with_options(task_runner=runner)(2)]

    assert asyncio.run(main()) == [[1, 2, 3], [1, 2]]
    assert asyncio.run(alone()) == [1, 2]
    assert [run.state_name for run in seen().flows] == ["Completed"]


def test_generators_that_are_left_or_fail(runner: TaskRunner) -> None:
    """Closed early they complete; those left open are closed at the parent's end; failures are raised."""

    @flow
    async def leaves() -> int:
        return await anext(async_numbers(5))

    @flow(task_runner=runner)
    async def main() -> list[int]:
        closed, left = numbers(3), numbers(4)
        items = [next(closed), next(left), await leaves()]
        closed.close()
        with pytest.raises(ValueError, match="at last"):
            list(numbers(1, last="at last"))
        with pytest.raises(ValueError, match="then"):
            [item async for item in async_numbers(1, last="then")]
        return items

    assert asyncio.run(main()) == [1, 1, 1]
    found = seen()
    states = sorted(
        (run.state_name, run.message) for run in found.flows[1:] if run.flow_name != "leaves"
    )
    assert found.named("leaves")[0].state_name == "Completed"
    assert states == [
        *[("Completed", "Closed by its caller after 1 items.")] * 3,
        ("Failed", "ValueError: at last"),
        ("Failed", "ValueError: then"),
    ]


def test_futures_among_the_items_decide(runner: TaskRunner) -> None:
    """A failed one that was handed out makes the generator's run fail; its caller sees it at the end."""

    @flow
    def hands_out() -> Any:
        yield add.submit(1)
        yield {"deep": fail.submit("inside")}

    @flow(task_runner=runner)
    def main() -> list[Any]:
        got: list[Any] = []
        with pytest.raises(KeyError, match="inside"):
            list(hands_out())
        for future in hands_out():
            got.append(future.result())
            break
        return got

    assert main() == [2]
    states = [(run.state_name, run.message) for run in seen().named("hands-out")]
    assert states[0] == ("Failed", "1/2 task runs failed.")
    assert states[1][0] == "Completed"
