"""The futures of a map: made when they are looked at, holding what they stand for as long as they live."""

from __future__ import annotations

import contextvars
import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dflow import TaskFuture, flow, task, wait
from dflow.engine.map_futures import MapFutures
from dflow.errors import WaitTimeout
from dflow.messages import Key, Work
from dflow.testing import ScriptedRunner
from task_runners import ThreadPoolTaskRunner
from tests.engine.world import World, one_parent, start

pytestmark = pytest.mark.usefixtures("world")


@task
def double(x: int) -> int:
    """Be played by the test, or run."""
    if x < 0:
        raise ValueError(f"negative: {x}")
    return 2 * x


def keys_of(works: Sequence[Work]) -> list[Key]:
    """Return the keys of dispatches, sorted."""
    return sorted(work.info.key for work in works)


def succeed(runner: ScriptedRunner, count: int) -> list[Work]:
    """Let so many dispatches succeed with values that stay at the runner."""
    works = runner.expect(count)
    for work in works:
        runner.succeed(work, 1, kept=False)
    return works


def made(futures: Any) -> int:
    """Return how many futures of a map there are."""
    inside: MapFutures[Any] = futures.expansion.futures
    return len(inside._made)


def test_nobody_pays_for_futures_that_nobody_looks_at() -> None:
    """To wait for all and to take their values makes none; a look makes one, always the same."""

    @flow
    def main() -> list[int]:
        futures = double.map(range(5))
        futures.wait()
        assert futures.result() == [0, 2, 4, 6, 8]
        assert len(futures) == 5
        assert made(futures) == 0
        assert futures[1] is futures[1] is futures[-4]
        assert [future.result() for future in futures[1:3]] == [2, 4]
        assert made(futures) == 2
        assert list(futures)[1] is futures[1]
        with pytest.raises(IndexError):
            futures[5]
        return futures.result()

    assert main() == [0, 2, 4, 6, 8]


def test_values_go_when_the_list_goes(world: World) -> None:
    """What nobody has looked at is held by the list, what somebody has by the future as well."""
    runner = ScriptedRunner()

    def body() -> None:
        futures = double.map([1, 2, 3])
        works = succeed(runner, 3)
        world.settle()
        assert runner.released == []
        second: TaskFuture[int] = futures[1]
        del futures
        gc.collect()
        world.settle()
        held = [work for work in works if work.info.task_run_id == second.task_run_id]
        gone = [work for work in works if work not in held]
        assert sorted(runner.released) == keys_of(gone)
        del second
        gc.collect()
        world.settle()
        assert sorted(runner.released) == keys_of(works)

    start(body, runner).result()


def test_a_map_over_a_map_makes_no_futures(world: World) -> None:
    """Its task runs take what the first ones give, whose values are there until the last has ended."""
    runner = ScriptedRunner()

    def body() -> None:
        inner = double.map([1, 2])
        outer = double.map(inner)
        assert made(inner) == 0
        same = double.map(list(inner))
        assert [future.name for future in (*outer, *same)] == [f"double-{n}" for n in range(2, 6)]
        del inner
        gc.collect()
        first = succeed(runner, 2)
        world.settle()
        assert runner.released == []
        works = runner.expect(6)[2:]
        taken = sorted(list(work.inputs) for work in works)
        assert taken == sorted([work.info.task_run_id] for work in (*first, *first))
        for work in works:
            runner.succeed(work, 1, kept=False)
        world.settle()
        assert sorted(runner.released) == keys_of(first)

    start(body, runner).result()


@task
def both(x: int, y: Any) -> tuple[int, Any]:
    """Give back what it was given."""
    return x, y


def test_a_map_over_a_map_and_something_else() -> None:
    """Beside the items of a map there may be whatever has to be searched for futures, in some rows or all."""

    @flow
    def main() -> list[Any]:
        inner, others = double.map([1, 2, 3]), [double.submit(n) for n in (4, 5, 6)]
        mixed: list[Any] = [7, [8], (9, others[0])]
        return [
            both.map(inner, mixed).result(),
            both.map(x=inner, y=[[other] for other in others]).result(),
            both.map(double.map([1, -1, 2]), mixed).result(raise_on_failure=False)[::2],
        ]

    assert main() == [
        [(2, 7), (4, [8]), (6, (9, 8))],
        [(2, [8]), (4, [10]), (6, [12])],
        [(2, 7), (4, (9, 8))],
    ]


def test_a_failure_is_raised_or_stands_for_its_value() -> None:
    """The first in their order is raised; asked for otherwise, each stands in its place."""

    @flow
    def main() -> list[Any]:
        futures = double.map([1, -2, -3])
        with pytest.raises(ValueError, match="negative: -2"):
            futures.result()
        found: list[Any] = futures.result(raise_on_failure=False)
        return [each if isinstance(each, int) else str(each) for each in found]

    assert main() == [2, "negative: -2", "negative: -3"]


def test_how_many_have_not_ended_in_time_is_said(world: World) -> None:
    """A wait that ends before the task runs do says how many are left, and changes nothing."""
    runner = ScriptedRunner()

    def body() -> list[int]:
        futures = double.map([1, 2, 3])
        works = runner.expect(3)
        runner.succeed(works[0], 2)
        world.settle()
        with pytest.raises(WaitTimeout, match="2 of 3 task runs"):
            futures.result(timeout=0.01)
        futures.wait(timeout=0.0)
        done, not_done = wait(futures, timeout=0.0)
        assert (len(done), len(not_done)) == (1, 2)
        for work in works[1:]:
            runner.succeed(work, 2)
        return futures.result()

    assert start(body, runner).result() == [2, 2, 2]


def test_what_was_seen_of_a_list_is_part_of_the_position() -> None:
    """To take all values at once counts as to take one after the other."""

    def after(*, together: bool) -> str:
        @flow
        def main() -> str:
            futures = double.map([1, 2])
            found = futures.result() if together else [each.result() for each in futures]
            assert found == [2, 4]
            return double_any.submit(object()).task_run_id

        return main()

    @task
    def double_any(x: object) -> object:
        return x

    with one_parent("p"):
        assert after(together=True) == after(together=False)


def test_what_is_dropped_at_once_is_let_go_of(world: World) -> None:
    """Futures that come and go in several threads, some before the tracker heard of them, leave nothing."""
    large = b"x" * 20_000

    @task
    def make(_: int) -> bytes:
        return large

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def main() -> None:
        def ask(first: int) -> None:
            for number in range(first, first + 100):
                make.submit(number)
                if number % 10 == 0:
                    make.map([-number, -number - 1])

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(contextvars.copy_context().run, ask, 1000 * n) for n in range(4)]
            for each in asked:
                each.result()
        make.submit(-1).result()

    main()
    assert len(world.task_runs()) == 4 * 120 + 1
    assert world.session.ledger.with_runner == set()
