"""What bodies raise and return, and in which context they run."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from dflow import flow, runs, task
from dflow.errors import TimedOutError
from dflow.ports import TaskRunner
from tests.api.conftest import RUNNERS

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("tests_bodies", default="unset")


@task
def add(x: int, y: int = 1) -> int:
    """Return a sum."""
    return x + y


@task
def numbers(count: int) -> list[int]:
    """Return a list."""
    return list(range(count))


@task
def exhausted() -> int:
    """Raise StopIteration."""
    return next(iter(()))


@task
def asks_for_more(x: int) -> list[Any]:
    """Return futures, in a container."""
    return [add.submit(x), {"more": add.submit(x, 10)}]


@task
def variable() -> str:
    """Return what the context says."""
    return VARIABLE.get()


def test_a_stop_iteration_is_what_the_caller_catches(runner: TaskRunner) -> None:
    """Of a task that is called or submitted, and of a flow."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        caught = []
        for call in (exhausted, exhausted.submit().result):
            try:
                call()
            except StopIteration:
                caught.append("caught")
        caught.append(exhausted.submit(return_state=True).message)
        return caught

    assert main() == ["caught", "caught", "StopIteration: "]

    @flow(task_runner=runner)
    def empty() -> int:
        return exhausted()

    with pytest.raises(StopIteration):
        empty()


def test_a_task_that_returns_futures_gives_their_values(runner: TaskRunner) -> None:
    """At any depth, wherever the task runs."""

    @flow(task_runner=runner)
    def main() -> Any:
        return asks_for_more(1), asks_for_more.submit(2).result()

    assert main() == ([2, {"more": 11}], [3, {"more": 12}])


def test_small_values_can_be_had_after_the_flow_has_ended(runner: TaskRunner) -> None:
    """A future that was kept gives its value from the record."""
    kept: list[Any] = []

    @flow(task_runner=runner)
    def main() -> None:
        kept.append(add.submit(4))

    main()
    assert kept[0].result() == 5
    assert kept[0].state.result() == 5


@pytest.mark.parametrize("name", ["inline", "threads", "dask in this process"])
def test_context_variables_of_the_call_are_those_of_the_body(name: str) -> None:
    """In every thread of this process; what a body sets does not come back."""

    @flow(task_runner=RUNNERS[name])
    def main() -> list[str]:
        VARIABLE.set("the flow's")
        timed = variable.with_options(timeout_seconds=30)
        return [variable(), variable.submit().result(), timed.submit().result()]

    assert contextvars.copy_context().run(main) == ["the flow's"] * 3
    assert VARIABLE.get() == "unset"


def test_a_list_of_futures_can_be_awaited(runner: TaskRunner) -> None:
    """Also one that comes to be when another task has ended; the loop goes on meanwhile."""

    @flow(task_runner=runner)
    async def main() -> list[int]:
        return await add.map(numbers.submit(4))

    assert asyncio.run(main()) == [1, 2, 3, 4]


def test_hooks_do_not_hold_up_the_loop_of_an_async_flow() -> None:
    """A flow whose hook waits for its sister on the same loop ends."""
    other_began = threading.Event()
    heard: list[dict[str, Any]] = []

    def hook(_: Any, flow_run: Any, __: Any) -> None:
        assert other_began.wait(30)
        heard.append(flow_run.parameters)

    @flow(on_completion=hook)
    async def first(x: int, y: int = 2) -> int:
        return x + y

    @flow
    async def second() -> None:
        await asyncio.sleep(0.2)
        other_began.set()

    async def both() -> int:
        return (await asyncio.gather(first(1), second()))[0]

    assert asyncio.run(both()) == 3
    assert heard == [{"x": 1, "y": 2}]


def test_the_deadline_of_a_flow_is_kept_though_it_holds_up_its_loop() -> None:
    """Its state is TimedOut while the body goes on; who waits for the run is told."""
    let_go = threading.Event()

    @flow(timeout_seconds=0.3)
    async def stubborn() -> int:
        let_go.wait(30)
        return 1

    begun = time.monotonic()
    handle = stubborn.start()
    try:
        with pytest.raises(TimedOutError, match=r"longer than 0\.3 seconds"):
            handle.result(timeout=20)
        assert time.monotonic() - begun < 20
        assert handle.state.name == "TimedOut"
    finally:
        let_go.set()


def test_a_coroutine_that_cannot_be_cancelled_is_left_behind() -> None:
    """Its caller is told at the deadline; the coroutine goes on."""
    over: list[bool] = []

    @task(timeout_seconds=0.2)
    async def stubborn() -> None:
        while not over:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    @flow
    async def main() -> str:
        try:
            await stubborn()
        except TimedOutError as error:
            over.append(True)
            return str(error)
        return ""

    assert "could not be cancelled" in asyncio.run(main())


def test_an_ended_run_can_be_cancelled_without_harm() -> None:
    """Nothing happens."""

    @flow
    def main() -> int:
        return 1

    handle = main.start()
    assert handle.result() == 1
    handle.cancel()
    assert handle.state.name == "Completed"


def test_cancelling_ends_a_map_in_the_callers_own_thread() -> None:
    """Of what waits for its turn on the inline runner nothing begins any more."""
    began: list[int] = []
    going, go_on = threading.Event(), threading.Event()

    @task
    def step(x: int) -> None:
        began.append(x)
        going.set()
        assert go_on.wait(30)

    @flow(task_runner="inline")
    def main() -> None:
        step.map(range(20)).result()

    handle = main.start()
    assert going.wait(30)
    handle.cancel()
    go_on.set()
    handle.wait(30)
    assert handle.state.name == "Cancelled"
    assert began == [0]


@task(persist_result=False)
def takes(seconds: float, size: int) -> bytes:
    """Keep a processor busy for so long, and return so many bytes."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return b"x" * size


def test_what_an_attempt_took_is_recorded(runner: TaskRunner) -> None:
    """Processor time, memory of the process and the size of the value, wherever the body ran."""

    @flow(task_runner=runner)
    def main() -> None:
        takes.submit(0.05, 10).wait()
        takes.submit(0.0, 50_000).wait()
        takes(0.05, 0)

    main()
    with runs.opened(runs.find("latest")) as reader:
        attempts = {run.name: run.attempts[-1] for run in reader.task_runs()}
    busy, large, called = (attempts[f"takes-{number}"] for number in range(3))
    assert [each.memory is not None and each.memory > 1_000_000 for each in attempts.values()] == [
        True
    ] * 3
    for attempt in (busy, called):
        assert attempt.cpu is not None
        assert 0.05 <= attempt.cpu < 1.0
    assert busy.size is not None
    assert 10 < busy.size < 100
    assert large.size == 50_000
