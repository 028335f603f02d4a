"""Retries and timeouts of flows, and flow runs that were started beside their caller."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dflow import current_run, flow, runs
from dflow.errors import CancelledError, TimedOutError, WaitTimeout
from dflow.ports import TaskRunner
from tests.api.shared_flows import (
    add,
    async_child,
    async_endless,
    cancels_flow,
    child,
    endless,
    fail,
    numbers,
    seen,
    starts_flows,
)
from tests.api.test_flows_and_tasks import fails_once

# Retries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["root", "subflow", "async"])
def test_a_flow_runs_again(runner: TaskRunner, way: str, tmp_path: Path) -> None:
    """What has completed is returned, what has failed is tried again; generations and attempts are kept."""
    tries: list[int] = []
    values: list[list[int]] = []
    once = fails_once.with_options(retries=0)

    def body() -> int:
        tries.append(current_run().generation)
        values.append(add.map([1, 2]).result())
        return once.submit(str(tmp_path), 5).result()

    async def async_body() -> int:
        return body()

    again = flow(name="again", retries=2)(body)
    calls: dict[str, Callable[[], Any]] = {
        "root": again.with_options(task_runner=runner),
        "subflow": flow(task_runner=runner)(lambda: again() + 0),
        "async": lambda: asyncio.run(
            flow(name="again", task_runner=runner, retries=2)(async_body)()
        ),
    }
    assert calls[way]() == 5
    found = seen()
    run = found.named("again")[0]
    assert (run.state_name, run.generation, tries) == ("Completed", 2, [1, 2])
    assert values == [[2, 3], [2, 3]]
    assert {one.name: len(one.attempts) for one in found.tasks} == {
        "add-0": 1,
        "add-1": 1,
        "fails_once-0": 2,
    }


def test_delays_of_a_flow_are_waited(runner: TaskRunner) -> None:
    """A list, of which the last repeats; with all used up the last failure is raised."""
    times: list[float] = []

    @flow(task_runner=runner, retries=3, retry_delay_seconds=[0, 0.2])
    def main() -> None:
        times.append(time.monotonic())
        fail.submit(f"try {len(times)}").result()

    with pytest.raises(KeyError, match="try 4"):
        main()
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert len(waits) == 3
    assert min(waits[1:]) >= 0.2
    assert (seen().root.generation, seen().root.state_name) == (4, "Failed")
    assert len(seen().tasks) == 4


# Timeouts -----------------------------------------------------------------------------------------------


def test_a_flow_that_takes_too_long_times_out(runner: TaskRunner) -> None:
    """Within a second, in whatever it is; what was submitted is cancelled; late calls raise in the body."""
    late: list[BaseException] = []
    go, over = threading.Event(), threading.Event()

    @flow(task_runner=runner, timeout_seconds=0.3)
    def main() -> None:
        pending = add.with_options(name="pending")
        if type(runner).__name__ != "InlineTaskRunner":  # where submit itself would wait
            pending.submit(fail.with_options(retries=1, retry_delay_seconds=60).submit("x"))
        try:
            while not go.wait(60):
                pass
        finally:
            try:
                add.submit(1).result()
            except BaseException as error:
                late.append(error)
            over.set()

    begun = time.monotonic()
    with pytest.raises(TimedOutError, match=r"longer than 0\.3 seconds"):
        main()
    assert time.monotonic() - begun < 2.3
    found = seen()
    assert (found.root.state_name, found.root.state_type) == ("TimedOut", "FAILED")
    assert {state for _, state in found.states()} <= {"Cancelled"}
    go.set()
    assert over.wait(10)
    assert isinstance(late[0], CancelledError)
    assert seen() == found


def test_a_coroutine_that_takes_too_long_times_out(runner: TaskRunner) -> None:
    """It is cancelled at what it awaits, and what it has submitted too."""
    told: list[str] = []

    @flow(task_runner=runner, timeout_seconds=0.2)
    async def main() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    begun = time.monotonic()
    state: Any = asyncio.run(main(return_state=True))
    assert (state.name, told) == ("TimedOut", ["cancelled"])
    assert time.monotonic() - begun < 2


def test_a_subflow_that_takes_too_long_is_caught(runner: TaskRunner) -> None:
    """Its parent goes on, and is not timed out; a timeout counts as a failure, which retries follow."""
    tries: list[int] = []

    @flow(timeout_seconds=0.2, retries=1)
    def slow() -> None:
        tries.append(1)
        threading.Event().wait(0.4 if len(tries) == 1 else 0)

    endless = flow(name="endless", timeout_seconds=0.1)(lambda: threading.Event().wait(0.5))

    @flow(task_runner=runner)
    def main() -> int:
        slow()
        with pytest.raises(TimeoutError, match=r"0\.1 seconds"):
            endless()
        return add.submit(1).result()

    assert main() == 2
    found = seen()
    assert [run.state_name for run in found.flows] == ["Completed", "Completed", "TimedOut"]
    assert found.named("slow")[0].generation == 2


def test_a_timeout_that_is_not_reached_changes_nothing(runner: TaskRunner) -> None:
    """The body knows its run, and gives its value."""
    name = flow(task_runner=runner, timeout_seconds=60, name="in-time")(
        lambda: (current_run().flow_name, add.submit(1).result())
    )
    assert name() == ("in-time", 2)


# Starting -----------------------------------------------------------------------------------------------


def test_a_started_flow_runs_beside(runner: TaskRunner) -> None:
    """`start` returns at once; the handle tells id, name and state, waits, and gives the value."""
    go = threading.Event()

    @flow(task_runner=runner)
    def main(x: int) -> int:
        go.wait(60)
        return add.submit(x).result()

    handle = main.start(1)
    assert not handle.done()
    with pytest.raises(WaitTimeout):
        handle.result(timeout=0.01)
    assert handle.state.name in ("Pending", "Running")
    go.set()
    assert handle.result(timeout=60) == 2
    handle.wait()
    assert (handle.state.name, handle.state.result()) == ("Completed", 2)
    root = seen().root
    assert (handle.id, handle.name) == (root.id, root.name)


def test_a_started_flow_that_fails_says_so(runner: TaskRunner) -> None:
    """`wait` never raises, `result` raises what the body raised, and can return it."""
    handle = child.with_options(task_runner=runner).start(-1)
    handle.wait(timeout=60)
    assert handle.state.name == "Failed"
    with pytest.raises(ValueError, match="negative"):
        handle.result()
    assert isinstance(handle.result(raise_on_failure=False), ValueError)


def test_several_flows_run_at_once(runner: TaskRunner) -> None:
    """The same flow and others, on one runner, each with a record of its own; all kinds of functions."""
    meet = threading.Barrier(2, timeout=60)

    @flow(task_runner=runner)
    def meets(x: int) -> int:
        meet.wait()
        return add.submit(x).result()

    others = [one.with_options(task_runner=runner) for one in (child, async_child, numbers)]
    handles: list[Any] = [meets.start(1), meets.start(2), *(one.start(2) for one in others)]
    assert [handle.result(timeout=60) for handle in handles] == [2, 3, 3, 3, [1, 2]]
    assert len({handle.id for handle in handles}) == 5
    for handle in handles:
        assert seen(handle.id).root.state_name == "Completed"


def test_flows_started_in_flows_and_tasks_are_joined(runner: TaskRunner) -> None:
    """They are children in the same record; one that nobody joins is waited for at the end."""
    ended: list[int] = []
    slow = flow(name="slow")(lambda: ended.append(add.submit(0).result()))

    @flow(task_runner=runner)
    def main() -> Any:
        first, second, third = child.start(1), child.start(2), async_child.start(3)
        slow.start()
        in_task = starts_flows.submit(2).result()
        return [first.result(), second.result(), third.result(), *in_task]

    assert main() == [2, 3, 4, 1, 2]
    found = seen()
    assert ended == [1]
    assert [run.state_name for run in found.flows] == ["Completed"] * 7
    in_task = next(run.id for run in found.tasks if run.name == "starts_flows-0")
    parents = [run.parent_id for run in found.flows[1:]]
    assert (parents.count(found.root.id), parents.count(in_task)) == (4, 2)


# Cancelling ---------------------------------------------------------------------------------------------


def test_a_plain_body_is_cancelled_at_its_next_call(runner: TaskRunner) -> None:
    """What it has submitted is cancelled, and its next call raises in it."""
    begun, go = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    @flow(task_runner=runner)
    def main() -> None:
        begun.set()
        go.wait(60)
        try:
            add.submit(1).result()
        except CancelledError as error:
            raised.append(error)
            raise

    handle = main.start()
    assert begun.wait(60)
    handle.cancel()
    assert handle.state.name in ("Running", "Cancelling")
    go.set()
    handle.wait(timeout=60)
    assert (handle.state.name, len(raised)) == ("Cancelled", 1)
    with pytest.raises(CancelledError):
        handle.result()
    assert seen(handle.id).root.state_name == "Cancelled"


def test_a_coroutine_is_cancelled_at_what_it_awaits(runner: TaskRunner) -> None:
    """At once, whatever that is; so is one that awaits a subflow."""
    begun = threading.Event()

    @flow
    async def waits() -> None:
        begun.set()
        await asyncio.sleep(60)

    @flow(task_runner=runner)
    async def main(way: str) -> None:
        if way == "subflow":
            await waits()
        begun.set()
        await asyncio.Event().wait()

    for way in ("alone", "subflow"):
        begun.clear()
        handle = main.start(way)
        assert begun.wait(60)
        handle.cancel()
        handle.wait(timeout=20)
        assert handle.state.name == "Cancelled"
        assert {run.state_name for run in seen(handle.id).flows} == {"Cancelled"}


def test_a_flow_that_awaits_a_retry_is_cancelled(runner: TaskRunner) -> None:
    """It is not tried again."""
    tries: list[int] = []
    failed = threading.Event()

    @flow(
        task_runner=runner,
        retries=1,
        retry_delay_seconds=60,
    )
    def main() -> None:
        tries.append(1)
        raise ValueError("no")

    handle = main.start()
    while handle.state.name != "AwaitingRetry":
        failed.wait(0.01)
    handle.cancel()
    handle.wait(timeout=20)
    assert (handle.state.name, tries) == ("Cancelled", [1])


def test_a_flow_is_cancelled_before_it_begins(runner: TaskRunner) -> None:
    """Its body never runs; also where its argument is not there yet."""
    ran: list[int] = []

    @flow
    def body(x: int) -> None:
        ran.append(x)

    @flow(task_runner=runner)
    def main() -> list[str]:
        handles = [body.start(x) for x in range(20)]
        for handle in handles:
            handle.cancel()
        for handle in handles:
            handle.wait()
        return [handle.state.name for handle in handles]

    names = main()
    assert set(names) <= {"Cancelled", "Completed"}
    assert len(ran) == names.count("Completed")
    assert sorted(run.state_name for run in seen().flows[1:]) == sorted(names)
    assert runs.find("latest").state_name == "Completed"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_flows_started_in_tasks_are_cancelled(runner: TaskRunner, way: str) -> None:
    """On workers too, whether they have begun or are about to: none is missed, and the task goes on."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        at_once = [True] * 5 + [False] * 3
        return [cancels_flow.submit(way, now).result(timeout=60) for now in at_once]

    assert main() == ["Cancelled"] * 8
    assert {run.state_name for run in seen().flows[1:]} == {"Cancelled"}


def test_a_body_that_fails_cancels_what_it_has_started(runner: TaskRunner) -> None:
    """Also what is just about to begin: its end does not wait for it."""

    @flow(task_runner=runner)
    def main() -> None:
        async_endless.start()
        endless.start()
        raise RuntimeError("the body")

    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="the body"):
        main()
    assert time.monotonic() - begun < 5
    assert sorted(run.state_name for run in seen().flows) == ["Cancelled", "Cancelled", "Failed"]
