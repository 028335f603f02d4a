"""Tasks that are awaited, and tasks that yield, called and submitted, on every runner."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dflow import as_completed, current_run, flow, task
from dflow.core.records import Ending, Stage
from dflow.ports import TaskRunner
from tests.api.test_flows_and_tasks import record
from tests.api.test_tasks import latest

# Coroutines --------------------------------------------------------------------------------------------


@task
async def add(x: int, y: int = 1) -> int:
    """Add, on a loop."""
    await asyncio.sleep(0)
    return x + y


@task
def add_plain(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


@task
async def fail(text: str) -> None:
    """Raise, on a loop."""
    await asyncio.sleep(0)
    raise KeyError(text)


@task
async def own_loop() -> bool:
    """Tell whether the body has a running loop, in whatever thread it is."""
    return asyncio.get_running_loop().is_running()


@task
async def asks_others(x: int) -> list[int]:
    """Call, submit, map and await in a coroutine, wherever it runs."""
    futures = [add.submit(x), add_plain.submit(x, 2)]
    gathered = await asyncio.gather(*futures)
    return [await add(x), add_plain(x), *gathered, *add.map([x, x]).result()]


def test_async_tasks_in_async_code(runner: TaskRunner) -> None:
    """They are awaited on the caller's loop; futures are awaited and gathered; failures are raised."""

    @flow(task_runner=runner)
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()

        @task
        async def here() -> bool:
            return asyncio.get_running_loop() is loop

        with pytest.raises(KeyError, match="called"):
            await fail("called")
        with pytest.raises(KeyError, match="submitted"):
            await fail.submit("submitted")
        together = await asyncio.gather(add(1), add(2), add.submit(3), add_plain.submit(4))
        return [
            await here(),
            await add(5),
            together,
            await add.submit(add_plain.submit(6)),
            await asks_others.submit(1),
            await asks_others(2),
            await own_loop.submit(),
        ]

    assert asyncio.run(main()) == [
        True, 6, [2, 3, 4, 5], 8, [2, 2, 2, 3, 2, 2], [3, 3, 3, 4, 3, 3], True,
    ]  # fmt: skip
    assert {run.stage for run in latest()} == {Stage.COMPLETED, Stage.FAILED}


def test_async_tasks_in_a_sync_flow(runner: TaskRunner) -> None:
    """A call returns a coroutine, for ``asyncio.run``; a submit returns a future like any other."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        called = add(1)
        assert asyncio.iscoroutine(called)
        with pytest.raises(KeyError, match="k"):
            asyncio.run(fail("k"))
        return [asyncio.run(called), add.submit(2).result(), add.map([3, 4]).result()]

    assert main() == [2, 3, [4, 5]]
    found, _ = record()
    assert found["add-0"].stage is Stage.COMPLETED
    assert found["fail-0"].stage is Stage.FAILED


def test_sync_tasks_and_waits_under_a_running_loop(runner: TaskRunner) -> None:
    """A sync flow that is called while a loop runs calls, submits and waits as ever."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        return [add_plain(1), add.submit(1).result(), add_plain.submit(2).result()]

    async def notebook() -> list[int]:
        return main()

    assert asyncio.run(notebook()) == [2, 2, 3]


def test_async_for_over_as_completed(runner: TaskRunner) -> None:
    """Futures come as they end, without holding up the loop, with submits in between."""

    @flow(task_runner=runner)
    async def main() -> list[int]:
        second = [add.submit(future) async for future in as_completed(add.map([1, 2, 3]))]
        states = [await future.state.aresult() for future in as_completed(second)]
        return sorted([await future.aresult() for future in second] + states)

    assert asyncio.run(main()) == [3, 3, 4, 4, 5, 5]


def test_a_direct_call_that_is_cancelled(runner: TaskRunner) -> None:
    """Cancelling the awaited call ends the body at its await, and its record is Cancelled."""
    ended: list[str] = []

    @task
    async def endless(started: asyncio.Event) -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.append("body")

    @flow(task_runner=runner)
    async def main() -> int:
        started = asyncio.Event()
        called = asyncio.ensure_future(endless(started))
        await started.wait()
        called.cancel()
        with pytest.raises(asyncio.CancelledError):
            await called
        return await add(1)

    assert asyncio.run(main()) == 2
    assert ended == ["body"]
    found, _ = record()
    assert found["endless-0"].stage is Stage.CANCELLED
    assert found["add-0"].stage is Stage.COMPLETED


def test_async_calls_are_retried(runner: TaskRunner) -> None:
    """An awaited call runs again on the caller's loop, a submitted one where it ran."""

    @task(retries=1)
    async def second_time() -> int:
        await asyncio.sleep(0)
        if current_run().attempt == 1:
            raise ValueError("not yet")
        return current_run().attempt

    @flow(task_runner=runner)
    async def main() -> list[int]:
        called = await second_time()
        return [called, await second_time.submit()]

    assert asyncio.run(main()) == [2, 2]
    assert [len(run.attempts) for run in latest()] == [2, 2]


# Generators --------------------------------------------------------------------------------------------


@task
def count(n: int) -> Iterator[int]:
    """Count."""
    yield from range(n)


@task
async def count_async(n: int) -> AsyncIterator[int]:
    """Count, on a loop."""
    for number in range(n):
        await asyncio.sleep(0)
        yield number


@task
def total(numbers: list[int]) -> int:
    """Return a sum."""
    return sum(numbers)


@task
def breaks(n: int) -> Iterator[int]:
    """Count, and raise at the end."""
    yield from range(n)
    raise ValueError("at the end")


@task
def iterates(n: int) -> list[Any]:
    """Call and submit generators on a worker."""
    return [list(count(n)), count.submit(n).result(), next(iter(count(n)))]


def test_called_generators_give_items_as_they_come(runner: TaskRunner) -> None:
    """Each item is there before the next is made, in a flow and in tasks; the run completes at the end."""
    made: list[int] = []

    @task
    def noting(n: int) -> Iterator[int]:
        for number in range(n):
            made.append(number)
            yield number

    @flow(task_runner=runner)
    def main() -> list[Any]:
        seen = [(number, list(made)) for number in noting(3)]
        return [seen, iterates.submit(2).result(), total.submit(count.submit(4)).result()]

    assert main() == [
        [(0, [0]), (1, [0, 1]), (2, [0, 1, 2])],
        [[0, 1], [0, 1], 0],
        6,
    ]
    assert {run.stage for run in latest()} == {Stage.COMPLETED}


def test_submitted_generators_give_lists(runner: TaskRunner) -> None:
    """Of both kinds, submitted and mapped; one that raises has failed, whatever it yielded before."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        bad = breaks.submit(2)
        with pytest.raises(ValueError, match="at the end"):
            bad.result()
        return [
            count.submit(3).result(),
            count_async.submit(3).result(),
            count.map([1, 2]).result(),
            count_async.map([1, 2]).result(),
        ]

    both = [[0], [0, 1]]
    assert main() == [[0, 1, 2], [0, 1, 2], both, both]


def test_async_generators_are_iterated_asynchronously(runner: TaskRunner) -> None:
    """``async for`` over a call gives the items as they come."""

    @flow(task_runner=runner)
    async def main() -> list[int]:
        items = [number async for number in count_async(3)]
        async for number in count_async(10):
            items.append(number)
            if number == 1:
                break
        return items

    assert asyncio.run(main()) == [0, 1, 2, 0, 1]
    assert [run.stage for run in latest()] == [Stage.COMPLETED, Stage.COMPLETED]


def test_a_generator_that_is_closed_early_has_completed(runner: TaskRunner) -> None:
    """Its body is closed, and the record says after how many items."""
    closed: list[int] = []

    @task
    def endless() -> Iterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            closed.append(number)

    @flow(task_runner=runner)
    def main() -> int:
        items: Any = endless()
        next(items), next(items)
        items.close()
        left: Any = endless()  # nobody closes this one
        return int(next(left))

    assert main() == 0
    assert closed == [1, 0]
    closed_by_hand, left = latest()
    assert (closed_by_hand.stage, left.stage) == (Stage.COMPLETED, Stage.COMPLETED)
    assert closed_by_hand.message == "Closed by its caller after 2 items."
    assert left.message == "Closed by its caller after 1 items."


def test_a_called_generator_that_raises_is_retried(runner: TaskRunner) -> None:
    """Its next attempt begins anew, and both are kept; without retries the caller gets the exception."""
    attempts: list[int] = []

    @task(retries=1)
    def flaky() -> Iterator[int]:
        attempts.append(current_run().attempt)
        yield current_run().attempt
        if current_run().attempt == 1:
            raise ValueError("not yet")

    @flow(task_runner=runner)
    def main() -> list[int]:
        with pytest.raises(ValueError, match="at the end"):
            list(breaks(1))
        return list(flaky())

    assert main() == [1, 2]
    assert attempts == [1, 2]
    found, _ = record()
    assert [a.ending for a in found["flaky-0"].attempts] == [Ending.RAISED, Ending.SUCCEEDED]
    assert found["breaks-0"].stage is Stage.FAILED


def test_a_generator_takes_what_is_sent(runner: TaskRunner) -> None:
    """``send`` and ``throw`` reach the body of a call."""

    @task
    def echo() -> Iterator[Any]:
        sent = None
        for _ in range(3):
            try:
                sent = yield sent
            except KeyError as error:
                sent = error.args[0]

    @flow(task_runner=runner)
    def main() -> list[Any]:
        items: Any = echo()
        return [next(items), items.send("sent"), items.throw(KeyError("thrown"))]

    assert main() == [None, "sent", "thrown"]


def test_generators_run_in_the_thread_that_iterates(runner: TaskRunner) -> None:
    """The body belongs to its run while it makes an item, and its caller to its own in between."""

    @task
    def names() -> Iterator[tuple[str, int]]:
        for _ in range(2):
            yield current_run().name, threading.get_ident()

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [(item, current_run().task_run_name) for item in names()]

    here = threading.get_ident()
    assert main() == [(("names-0", here), None)] * 2
