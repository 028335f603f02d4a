"""Async flows, loops, contexts and interruptions, on every runner."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import dflow
from dflow import as_completed, current_run, flow, runs, task
from dflow.attempts.context import current
from dflow.errors import NoRunError
from dflow.ports import TaskRunner
from tests.api.conftest import RUNNERS
from tests.api.shared_flows import (
    MINE,
    add,
    async_child,
    async_numbers,
    child,
    fail,
    numbers,
    seen,
)


@task
async def slowly(x: int) -> int:
    """Await a little."""
    await asyncio.sleep(0.001)
    return x + 1


# Loops --------------------------------------------------------------------------------------------------


def test_async_flows_await_tasks_and_futures(runner: TaskRunner) -> None:
    """Tasks are awaited, futures can be, alone, gathered, and as they end; `.result()` works as well."""

    @flow(task_runner=runner)
    async def main() -> Any:
        futures = add.map([1, 2, 3])
        gathered = await asyncio.gather(*futures, slowly(5), slowly.submit(6))
        ended = [await future async for future in as_completed(futures)]
        last = add.submit(9)
        return [*gathered, sorted(ended), await slowly(1), await last.aresult(), last.result()]

    assert asyncio.run(main()) == [2, 3, 4, 6, 7, [2, 3, 4], 2, 10, 10]


@pytest.mark.parametrize("runner", list(RUNNERS.values())[1:], ids=list(RUNNERS)[1:])
def test_the_loop_goes_on_while_a_flow_waits(runner: TaskRunner) -> None:
    """Other coroutines run while one awaits a future, and while the flow's end waits for submitted work."""
    ticks: list[int] = []

    @flow(task_runner=runner)
    async def main() -> int:
        add.submit(add.submit(1))
        return await slowly.submit(1)

    async def ticking() -> int:
        async def tick() -> None:
            while True:
                ticks.append(1)
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        value = await main()
        ticker.cancel()
        return value

    assert asyncio.run(ticking()) == 2
    assert len(ticks) > 3


def test_sync_flows_run_under_a_running_loop(runner: TaskRunner) -> None:
    """As in a notebook: called, with tasks of all kinds, started, and with async flows in a thread."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        return [add(1), add.submit(2).result(), child(3), slowly.submit(4).result(), *numbers(1)]

    async def notebook() -> list[int]:
        started = main.start()
        return [*main(), *await started]

    assert asyncio.run(notebook()) == [2, 3, 4, 5, 1] * 2


def test_async_flows_in_sync_flows(runner: TaskRunner) -> None:
    """A call gives a coroutine, which asyncio.run runs as a child of the flow; tasks too."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        return [asyncio.run(async_child(1)), asyncio.run(slowly(2)), async_child.start(3).result()]

    assert main() == [2, 3, 4]
    found = seen()
    assert {run.parent_id for run in found.named("async-child")} == {found.root.id}


def test_sync_flows_in_async_flows(runner: TaskRunner) -> None:
    """They run in place, also in a thread of asyncio's."""

    @flow(task_runner=runner)
    async def main() -> list[int]:
        return [child(1), await asyncio.to_thread(child, 2), await async_child(3)]

    assert asyncio.run(main()) == [2, 3, 4]
    assert {run.parent_id for run in seen().flows[1:]} == {seen().root.id}


# Contexts -----------------------------------------------------------------------------------------------


def test_users_contextvars_are_seen_and_do_not_leak(runner: TaskRunner) -> None:
    """What the caller has set is seen in flow bodies; what runs at once sets has no effect on one another."""
    meet = threading.Barrier(2, timeout=60)

    @flow
    def sees(name: str = "") -> tuple[str, str]:
        before = MINE.get()
        if name:
            MINE.set(name)
            meet.wait()
            meet.wait()
        add.submit(1).result()
        return before, MINE.get()

    @flow
    async def awaits() -> str:
        before = MINE.get()
        await asyncio.sleep(0)
        MINE.set("inner")
        await add.submit(1)
        return before

    @flow(task_runner=runner)
    async def main() -> Any:
        MINE.set("outer")
        first, second = sees.start("one"), sees.start("two")
        at_once = [await first, await second]
        gathered = await asyncio.gather(awaits(), awaits())
        generated = [(item, MINE.get()) for item in numbers(1)]
        async_generated = [(item, MINE.get()) async for item in async_numbers(1)]
        return at_once, gathered, generated, async_generated, sees(), MINE.get()

    def run() -> Any:
        MINE.set("caller")
        return sees.with_options(task_runner=runner)(), asyncio.run(main())

    (alone, rest) = contextvars.copy_context().run(run)
    assert alone == ("caller", "caller")
    assert rest == (
        [("outer", "one"), ("outer", "two")],
        ["outer", "outer"],
        [(1, "outer")],
        [(1, "outer")],
        ("outer", "outer"),
        "outer",
    )
    assert MINE.get() == "unset"


def test_a_timed_body_sees_the_contextvars(runner: TaskRunner) -> None:
    """Although it runs in a thread of its own."""

    def run() -> str:
        MINE.set("caller")
        return flow(task_runner=runner, timeout_seconds=60)(lambda: MINE.get())()  # noqa: PLW0108  (it does not tell its parameters)

    assert contextvars.copy_context().run(run) == "caller"


def test_every_coroutine_and_thread_knows_its_own_run(runner: TaskRunner) -> None:
    """In subflows that run at once, and between the items of generators, nobody takes another's run."""

    @flow
    async def named(n: int) -> set[str]:
        names = set()
        for _ in range(n):
            names.add(current_run().id)
            await asyncio.sleep(0)
        names.add((await asyncio.to_thread(current_run)).id)
        return names

    @flow(task_runner=runner)
    async def main() -> list[set[str]]:
        mine = current_run().id
        results = await asyncio.gather(*(named(n) for n in (4, 5, 6)))
        for _ in numbers(2):
            assert current_run().id == mine
        async for _ in async_numbers(2):
            assert current_run().id == mine
        return list(results)

    results = asyncio.run(main())
    assert [len(one) for one in results] == [1, 1, 1]
    assert len(set.union(*results)) == 3


def test_nothing_of_ours_is_left(runner: TaskRunner) -> None:
    """After flows of all kinds, finished, failed or half done, the caller is in no run."""
    half = iter(numbers.with_options(task_runner=runner)(3))
    assert next(half) == 1
    assert current() is None
    assert list(numbers.with_options(task_runner=runner)(1)) == [1]
    half.close()

    async def main() -> None:
        left = async_numbers.with_options(task_runner=runner)(3)
        assert await anext(left) == 1
        assert current() is None
        await left.aclose()
        with pytest.raises(ValueError, match="negative"):
            await async_child.with_options(task_runner=runner)(-1)
        assert current() is None
        with pytest.raises(NoRunError):
            current_run()

    asyncio.run(main())
    assert current() is None


# Interruptions ------------------------------------------------------------------------------------------


def test_a_cancelled_coroutine_is_a_cancelled_flow(runner: TaskRunner) -> None:
    """By cancel() or asyncio.timeout, and what was submitted too; the exception goes on to the caller."""
    begun = asyncio.Event()

    @flow(task_runner=runner)
    async def main() -> None:
        await async_sub()

    @flow
    async def async_sub() -> None:
        if type(runner).__name__ != "InlineTaskRunner":  # where submit itself would wait
            fail.with_options(retries=1, retry_delay_seconds=60).submit("x")
        begun.set()
        await asyncio.sleep(60)

    async def cancels() -> None:
        nonlocal begun
        begun = asyncio.Event()
        running = asyncio.ensure_future(main())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        begun = asyncio.Event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as limit:
                expiring = asyncio.ensure_future(expires_once_begun(limit))
                await main()
        await expiring

    async def expires_once_begun(limit: asyncio.Timeout) -> None:
        await begun.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    asyncio.run(cancels())
    for listed in runs.list_runs(2):
        found = seen(listed.entry.id)
        assert [run.state_name for run in found.flows] == ["Cancelled", "Cancelled"]
        assert {state for _, state in found.states()} <= {"Cancelled"}


SCRIPT = """
import asyncio, os, signal, sys, threading
from dflow import flow, task
from dflow.attempts.context import current

def interrupt():
    os.kill(os.getpid(), signal.{signal})

@task
def add(x):
    return x + 1

@flow(task_runner="threads")
async def awaits():
    assert add(1) == 2
    asyncio.get_running_loop().call_soon(interrupt)
    await asyncio.sleep(60)

@flow(task_runner="threads")
def blocks():
    assert add(1) == 2
    interrupt()
    threading.Event().wait(60)

if __name__ == "__main__":
    try:
        asyncio.run(awaits()) if sys.argv[1] == "async" else blocks()
    except KeyboardInterrupt:
        assert current() is None
        sys.exit(130)
"""


@pytest.mark.parametrize("way", ["sync", "async"])
def test_ctrl_c_interrupts(way: str, tmp_path: Path, dflow_home: Path) -> None:
    """The run is Interrupted, not Cancelled: it can be resumed; the caller gets KeyboardInterrupt."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("{signal}", signal.SIGINT.name), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), way],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "DFLOW_HOME": str(dflow_home),
            "PYTHONPATH": str(Path(dflow.__file__).parents[1]),
        },
    )
    assert done.returncode == 130, done.stderr
    found = seen()
    assert (found.root.state_name, found.states()) == ("Interrupted", [("add-0", "Completed")])
    assert runs.find("latest").resumable
