"""Caching as the driver does it: what is looked up when, who computes, who waits, what keys are made from."""

# Bodies and policies take what others like them take:
# ruff: noqa: ARG001, ARG002

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dflow import allow_failure, flow, opaque, quote, states, task, unmapped
from dflow.attempts import clock as attempts_clock
from dflow.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)
from dflow.core import invariants
from dflow.core.records import Held, Stage
from dflow.engine import caching
from dflow.errors import DefinitionError, JournalUnavailable
from dflow.journal import MemoryJournal
from dflow.messages import Work
from dflow.results import cache
from dflow.results.cache import CacheRecord
from dflow.results.pickling import dumps
from dflow.results.stores import store
from dflow.tasks import Task
from dflow.testing import ScriptedRunner
from task_runners import ThreadPoolTaskRunner
from tests.engine.far import FarRunner
from tests.engine.playing import Play
from tests.engine.world import PATIENCE, World, named, start, world_with

pytestmark = pytest.mark.usefixtures("world")

BODIES: list[Any] = []
"""What bodies were called with."""


@pytest.fixture(autouse=True)
def _no_bodies() -> None:
    BODIES.clear()


@pytest.fixture
def at_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Let attempts read the clock of the world."""
    monkeypatch.setattr(attempts_clock, "now", world.clock.now)
    return world


@task(cache_policy=INPUTS)
def square(x: int) -> int:
    """Return a square."""
    BODIES.append(x)
    return x * x


@task
def plain(x: Any) -> Any:
    """Return what came."""
    BODIES.append(("plain", x))
    return x


def state_of(body: Callable[[], Any]) -> Any:
    """Return what a flow around a body gives."""
    return flow(body)()


def final(futures: Any) -> list[str]:
    """Return the names of the final states of futures."""
    for future in futures:
        future.wait()
    return [future.state.name for future in futures]


def names(states_: list[Any]) -> list[str]:
    """Return the names of states."""
    return [state.name for state in states_]


# Hits and misses ------------------------------------------------------------------------------------


def test_a_hit_is_cached_and_runs_nothing(world: World) -> None:
    """The second call with equal arguments, in this run or in a later one, gives the value of the first."""

    @flow
    def main() -> Any:
        first = square(3, return_state=True)
        again = square(x=3, return_state=True)
        other = square.submit(4, return_state=True)
        return [(state.name, state.result()) for state in (first, again, other)]

    assert main() == [("Completed", 9), ("Cached", 9), ("Completed", 16)]
    assert main() == [("Cached", 9), ("Cached", 9), ("Cached", 16)]
    assert BODIES == [3, 4]
    runs = world.task_runs()
    assert {run.stage for run in runs.values()} == {Stage.COMPLETED}
    assert all(run.attempts == () and run.held is Held.JOURNAL for run in runs.values())
    assert "'square-0'" in runs["square-1"].message


def test_defaults_count_and_may_be_said_or_not() -> None:
    """However a call is written, the same arguments are the same."""

    @task(cache_policy=INPUTS)
    def scaled(x: int, *more: int, factor: int = 2, **named: int) -> int:
        BODIES.append(x)
        return factor * x + sum(more) + sum(named.values())

    @flow
    def main() -> list[int]:
        return [scaled(1), scaled(1, factor=2), scaled(1, 5), scaled(1, a=5), scaled(x=1, factor=3)]

    assert main() == [2, 2, 7, 7, 3]
    assert len(BODIES) == 4
    assert main() == [2, 2, 7, 7, 3]
    assert len(BODIES) == 4


def test_a_map_shares_keys_with_single_calls() -> None:
    """Items of a map, shared arguments and futures among them give the same keys as a call."""

    @task(cache_policy=INPUTS)
    def scaled(x: int, by: list[int]) -> int:
        BODIES.append(x)
        return sum(by) * x

    @flow
    def main() -> Any:
        one = scaled(2, [1, 2])
        many = scaled.map([1, 2, 2], unmapped([1, 2]))
        return one, names(many.states), many.result()

    assert main() == (6, ["Completed", "Cached", "Cached"], [3, 6, 6])
    assert sorted(BODIES) == [1, 2]


def test_larger_values_are_kept_in_the_store_and_not_loaded(world: World) -> None:
    """Of a hit only the reference is taken over, whatever the size and however short the body was."""

    @task(cache_policy=INPUTS)
    def large(x: int) -> bytes:
        BODIES.append(x)
        return bytes(100_000)

    @flow
    def main() -> int:
        return len(large.submit(1).result())

    assert main() == main() == 100_000
    assert BODIES == [1]
    first, second = (run for run in (world.task_runs()["large-0"],) for _ in range(2))
    assert first.held is second.held is Held.STORED
    assert first.stored is not None
    assert first.stored.path.startswith("cache/")
    store(first.stored.storage).delete(first.stored.path)
    assert main() == 100_000
    assert BODIES == [1, 1]


def test_exceptions_are_not_cached() -> None:
    """A task that failed runs again; a retry goes on under the same key."""

    @task(cache_policy=INPUTS, retries=1)
    def flaky(x: int) -> int:
        BODIES.append(x)
        if len(BODIES) < 4:
            raise ValueError(x)
        return x

    @flow
    def main() -> Any:
        return flaky(1, return_state=True).name

    assert [main(), main(), main()] == ["Failed", "Completed", "Cached"]
    assert len(BODIES) == 4


def test_a_state_made_by_hand_is_cached_if_it_is_completed() -> None:
    """Completed with data is a value; Failed is not."""

    @task(cache_policy=INPUTS)
    def by_hand(x: int) -> Any:
        BODIES.append(x)
        return states.Completed(data=x) if x else states.Failed(message="no")

    @flow
    def main() -> Any:
        found = [by_hand(x, return_state=True) for x in (1, 0)]
        return names(found), found[0].result()

    assert main() == (["Completed", "Failed"], 1)
    assert main() == (["Cached", "Failed"], 1)
    assert BODIES == [1, 0, 0]


def test_generators_give_their_items_again() -> None:
    """What is found is handed out item by item where the task is called, and a list where it is submitted."""

    @task(cache_policy=INPUTS)
    def count(n: int) -> Iterator[int]:
        BODIES.append(n)
        yield from range(n)

    @flow
    def main() -> Any:
        return list(count(3)), count.submit(3).result()

    assert main() == main() == ([0, 1, 2], [0, 1, 2])
    assert BODIES == [3]


def test_hooks_hear_of_hits() -> None:
    """`on_completion` is told, with the value; `on_running` is not, because nothing runs."""
    heard: list[Any] = []

    hooked = square.with_options(
        on_completion=lambda task, run, state: heard.append((state.name, state.result())),
        on_running=lambda task, run, state: heard.append("running"),
    )

    @flow
    def main() -> Any:
        return hooked(2), hooked.submit(2).result()

    main()
    assert heard == ["running", ("Completed", 4), ("Cached", 4)]


def test_refreshed_values_take_the_place_of_what_was_there() -> None:
    """Nothing is looked up, and later lookups find the new value."""

    @task(cache_policy=INPUTS)
    def number(x: int) -> int:
        BODIES.append(x)
        return len(BODIES)

    @flow
    def main(*, refresh: bool) -> int:
        return number.with_options(refresh_cache=refresh)(1)

    assert [main(refresh=refresh) for refresh in (False, False, True, False)] == [1, 1, 2, 2]


def test_what_has_expired_is_computed_again(at_clock: World) -> None:
    """A value is good for as long as the task says that has computed it."""
    brief = square.with_options(cache_expiration=timedelta(minutes=1))

    @flow
    def main() -> int:
        return brief(2)

    main()
    at_clock.clock.advance(59)
    main()
    assert BODIES == [2]
    at_clock.clock.advance(1)
    main()
    main()
    assert BODIES == [2, 2]


def test_a_flow_that_tries_again_takes_what_is_recorded(world: World) -> None:
    """Completed task runs are given back without the cache; only what would run is looked up."""

    @flow(retries=1)
    def main() -> Any:
        value = square.with_options(cache_policy=RUN_ID)(2)
        if world.flow_runs()[0].generation == 1:
            raise ValueError("again")
        return value

    assert main() == 4
    assert world.states() == {"square-0": "Completed"}


# Keys ------------------------------------------------------------------------------------------------


def test_nothing_is_cached_unless_it_is_asked_for() -> None:
    """No policy, `NO_CACHE` and a key that is None mean the same."""
    tasks: list[Task[..., Any]] = [
        square.with_options(cache_policy=None),
        square.with_options(cache_policy=NO_CACHE),
        square.with_options(cache_policy=None, cache_key_fn=lambda context, parameters: None),
    ]

    @flow
    def main() -> Any:
        return [one(1) for one in tasks for _ in range(2)]

    main()
    assert BODIES == [1] * 6


def test_two_tasks_never_share_a_key_by_accident() -> None:
    """With one policy and equal arguments each task has its own values; also two from one factory."""

    def made(factor: int) -> Task[..., int]:
        @task(cache_policy=INPUTS)
        def scaled(x: int) -> int:
            return factor * x

        return scaled

    @flow
    def main() -> Any:
        other = task(lambda x: -x, cache_policy=INPUTS)
        return square(3), other(3), made(2)(3), made(5)(3), made(2)(3)

    assert main() == (9, -3, 6, 15, 6)
    assert main() == (9, -3, 6, 15, 6)
    assert BODIES == [3]


def test_an_argument_can_be_left_out() -> None:
    """What was taken out plays no part: it need not be hashable, and may be a future."""

    @task(cache_policy=INPUTS - "lock")
    def guarded(x: int, lock: Any) -> int:
        BODIES.append(x)
        return x

    @flow
    def main() -> Any:
        return (
            guarded(1, threading.Lock()),
            guarded(1, threading.Lock()),
            guarded(1, plain.submit(2)),
        )

    main()
    assert BODIES.count(1) == 1


def test_what_cannot_be_hashed_is_named_once_and_not_cached(world: World) -> None:
    """The task runs, and one warning says which argument it was, and why."""

    @task(cache_policy=INPUTS)
    def guarded(lock: Any) -> int:
        BODIES.append(1)
        return 1

    @flow
    def main() -> None:
        for _ in range(3):
            guarded(threading.Lock())

    main()
    assert BODIES == [1, 1, 1]
    (line,) = [line for line in world.lines() if "cache" in line]
    assert "'guarded'" in line
    assert "argument 'lock'" in line
    assert "_thread.lock" in line


def test_the_source_counts() -> None:
    """A task whose code has changed computes anew; one whose comments have, does not."""

    def made(text: str) -> Task[..., Any]:
        scope: dict[str, Any] = {}
        exec(f"def grow(x):\n    {text}", scope)
        return task(scope["grow"], cache_policy=INPUTS + TASK_SOURCE)

    def value(text: str) -> Any:
        return state_of(lambda: made(text)(1, return_state=True).name)

    texts = ["return x + 1", "return x + 1  # more", "return x + 2"]
    assert [value(text) for text in texts] == ["Completed", "Cached", "Completed"]


def test_the_run_and_its_parameters_count() -> None:
    """`RUN_ID` caches within a run, `FLOW_PARAMETERS` between runs of the same parameters."""
    by_run = square.with_options(cache_policy=DEFAULT)
    by_parameters = square.with_options(cache_policy=FLOW_PARAMETERS)

    @flow
    def main(size: int) -> Any:
        calls = [by_run(1, return_state=True), by_run(1, return_state=True)]
        return names([*calls, by_parameters(2, return_state=True)])

    assert main(1) == ["Completed", "Cached", "Completed"]
    assert main(1) == ["Completed", "Cached", "Cached"]
    assert main(2) == ["Completed", "Cached", "Completed"]


def test_a_key_function_decides() -> None:
    """It gets the task, the task run and the arguments; tasks that give the same key share a value."""
    seen: list[Any] = []

    def by_x(context: Any, parameters: dict[str, Any]) -> str:
        seen.append((context.task.name, context.task_run.name, parameters))
        return f"x={parameters['x']}"

    first = task(lambda x, y=0: x, name="first", cache_key_fn=by_x)
    second = task(lambda x: -x, name="second", cache_key_fn=by_x)

    @flow
    def main() -> Any:
        return first(1), second(1), second(2)

    assert main() == (1, 1, -2)
    assert seen[:2] == [("first", "first-0", {"x": 1, "y": 0}), ("second", "second-0", {"x": 1})]


def test_a_key_function_that_fails_means_no_caching(world: World) -> None:
    """What it raises, or gives that is no text, is said, and the task runs."""
    fns: list[Any] = [lambda context, parameters: 1 / 0, lambda context, parameters: 3]

    @flow
    def main() -> Any:
        return [square.with_options(cache_policy=None, cache_key_fn=fn)(5) for fn in fns]

    assert main() == [25, 25]
    said = "\n".join(world.lines())
    assert "ZeroDivisionError" in said
    assert "must be a text or None" in said


def test_a_policy_of_the_user_gets_the_values_of_futures() -> None:
    """It is asked when they are there, in the driver, with everything resolved."""
    seen: list[Any] = []

    class Mine(CachePolicy):
        def compute_key(
            self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
        ) -> str | None:
            seen.append((inputs, flow_parameters))
            return str(sorted(inputs["items"]))

    @task(cache_policy=Mine())
    def total(items: list[int]) -> int:
        BODIES.append("total")
        return sum(items)

    @flow
    def main(size: int) -> Any:
        first = plain.submit(size)
        return names(
            [total.submit([first, 1], return_state=True), total([1, 2], return_state=True)]
        )

    assert main(2) == ["Completed", "Cached"]
    assert seen == [({"items": [2, 1]}, {"size": 2}), ({"items": [1, 2]}, {"size": 2})]
    assert main(2) == ["Cached", "Cached"]
    assert BODIES.count("total") == 1


def test_a_chain_of_cached_tasks_hits_in_a_second_run() -> None:
    """Where values come from is the same in both runs: no body runs at all."""

    @flow
    def main() -> Any:
        a = square.submit(2)
        b = square.submit(a)
        return square.submit(b).result(), names([f.state for f in (a, b)])

    assert main() == (256, ["Completed", "Completed"])
    assert main() == (256, ["Cached", "Cached"])
    assert len(BODIES) == 3


def in_cache(world: World) -> int:
    """Return how many values the cache has."""
    where = store(world.process.settings.result_storage)
    return sum(len(where.sizes(cache.folder_of(digit))) for digit in "0123456789abcdef")


def test_a_value_counts_by_where_it_comes_from(world: World) -> None:
    """Where it is kept by its bytes, else by its content; what has none is not cached, which is said once."""
    numbers = iter([1, 1, 2])
    kept = task(lambda: next(numbers), name="kept")
    large = task(lambda: bytes(20_000), name="large")
    lock = task(lambda: threading.Lock(), name="lock")  # noqa: PLW0108  (a task takes a function of Python)
    take = task(lambda value: BODIES.append(1), cache_policy=INPUTS)

    @flow
    def main() -> Any:
        value = lock.submit()
        values = [kept.submit(), large.submit(), value, value, lock.submit()]
        return names([take.submit(each, return_state=True) for each in values])

    assert main() == ["Completed"] * 5
    assert in_cache(world) == 2
    assert main() == ["Cached", "Cached", *["Completed"] * 3]
    assert main() == ["Completed", "Cached", *["Completed"] * 3]
    assert in_cache(world) == 3
    (said,) = [line for line in world.lines() if "cannot be hashed" in line]
    assert "'lock-0'" in said or "'lock-1'" in said
    assert "Give task 'lock' persist_result=True or a cache_policy=" in said


def test_where_a_value_stands_in_an_argument_counts() -> None:
    """Futures in containers, quoted and opaque values, and the order of arguments."""

    @task(cache_policy=INPUTS)
    def take(a: Any, b: Any = None) -> Any:
        BODIES.append("take")
        return None

    @flow
    def main() -> Any:
        one, two = plain.submit(1), plain.submit(2)
        calls = [
            ([one, two],), ([two, one],), ({"k": one}, two), ({"k": two}, one), (one, two), (one, one),
            (quote([1]),), (opaque([1]),), ([one, {"deep": (two,)}],),
        ]  # fmt: skip
        futures = [take.submit(*call) for call in calls]
        for future in futures:
            future.wait()

    main()
    assert BODIES.count("take") == 8  # quote and opaque give the same value
    main()
    assert BODIES.count("take") == 8


def test_a_failure_that_is_allowed_is_not_cached() -> None:
    """An exception has no content that would be the same for certain."""
    fails = task(lambda: 1 / 0, name="fails")

    @task(cache_policy=INPUTS)
    def mend(value: Any) -> str:
        BODIES.append(1)
        return type(value).__name__

    @flow
    def main() -> Any:
        return mend.submit(allow_failure(fails.submit())).result()

    assert main() == main() == "ZeroDivisionError"
    assert BODIES == [1, 1]


# Definitions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache_policy": "INPUTS"}, "cache_policy= must be a policy"),
        ({"cache_key_fn": "key"}, "cache_key_fn= must be a function"),
        ({"cache_key_fn": lambda x: ""}, "takes \\(x\\)"),
        ({"cache_policy": INPUTS, "cache_expiration": 0}, "cache_expiration="),
        ({"cache_policy": INPUTS, "cache_expiration": "1d"}, "cache_expiration="),
        ({"cache_policy": INPUTS, "refresh_cache": 1}, "refresh_cache="),
        ({"cache_policy": INPUTS, "persist_result": False}, "persist_result=False"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    """When the task is defined, with a word on what to do."""
    with pytest.raises(DefinitionError, match=said):
        task(lambda x: x, **options)


def test_options_that_say_nothing_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """A key function wins over a policy; an expiry without either says nothing."""
    by_key = square.with_options(cache_key_fn=lambda context, parameters: "a")
    assert by_key.cached is not None
    assert by_key.cached.policy.needs_values
    assert square.with_options(cache_policy=None, cache_expiration=5).cached is None
    assert square.with_options(cache_policy=NO_CACHE, persist_result=False).cached is None
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING] * 2


# Who computes ----------------------------------------------------------------------------------------


def keep(work: Work, value: Any) -> None:
    """Do what the attempt of a cached task run does before it reports: keep its value."""
    cached = work.info.cached
    assert cached is not None
    record = CacheRecord(
        key=cached.key,
        created=0.0,
        value=dumps(value),
        task_run=work.info.task_run_name,
        flow_run=work.info.flow_run_name,
        maker=cached.maker,
    )
    cache.write(cached.storage, record)


def test_of_equal_keys_the_first_computes(world: World, runner: ScriptedRunner) -> None:
    """The others wait without a worker, and have the value when it is there."""

    def main() -> Any:
        futures = square.map([1, 1, 1, 2])
        return futures.result(), names(futures.states)

    running = start(main, runner)
    works = runner.expect(2)
    world.settle()
    assert [work.info.task_run_name for work in works] == ["square-0", "square-3"]
    for work in works:
        keep(work, 5)
        runner.succeed(work, 5)
    assert running.result() == ([5] * 4, ["Completed", "Cached", "Cached", "Completed"])


def test_when_the_first_fails_the_next_one_tries(runner: ScriptedRunner) -> None:
    """Its failure is its own; who waited computes."""

    def main() -> Any:
        futures = square.map([1, 1, 1])
        futures.wait()
        return names(futures.states)

    running = start(main, runner)
    runner.fail(runner.expect(1)[0], ValueError("no"))
    work = runner.expect(2)[1]
    keep(work, 5)
    runner.succeed(work, 5)
    assert sorted(running.result()) == ["Cached", "Completed", "Failed"]


def test_who_waits_can_be_cancelled(runner: ScriptedRunner) -> None:
    """Cancelling one that waits harms nobody; cancelling the one that computes lets another one try."""

    def main() -> Any:
        futures = square.map([1, 1, 1])
        runner.expect(1)
        futures[1].cancel()
        futures[1].wait()
        futures[0].cancel()
        runner.until(lambda: bool(runner.withdrawn))
        runner.void(runner.works[0])
        work = runner.expect(2)[1]
        keep(work, 5)
        runner.succeed(work, 5)
        futures.wait()
        return names(futures.states)

    assert start(main, runner).result() == ["Cancelled", "Cancelled", "Completed"]


@pytest.fixture
def two() -> Iterator[tuple[World, Any]]:
    """Return a world whose leases are shared with another driver, and that driver's leases."""
    journal = MemoryJournal(is_alive=lambda holder: True)
    with world_with(journal) as made:
        yield made, journal.leases


def lease_of(work: Work) -> str:
    """Return the name of the lease for a key."""
    cached = work.info.cached
    assert cached is not None
    return f"cache {cached.storage} {cached.key}"


def test_a_key_that_another_driver_computes_is_waited_for(
    two: tuple[World, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it holds the lease nothing runs; its value is taken when it is there."""
    world, leases = two
    first = ScriptedRunner()
    running = start(lambda: square.submit(1).result(), first)
    work = first.expect(1)[0]
    lease = lease_of(work)
    assert len(leases.holders(lease, world.clock.now())) == 1
    runner = ScriptedRunner()
    waiting = start(lambda: final(square.map([1, 1])), runner)
    looks = threading.Semaphore(0)
    acquire = leases.acquire_each

    def seen(*args: Any, **kwargs: Any) -> Any:
        looks.release()
        return acquire(*args, **kwargs)

    monkeypatch.setattr(leases, "acquire_each", seen)
    for _ in range(3):
        assert looks.acquire(timeout=PATIENCE)
    assert runner.works == []
    keep(work, 5)
    first.succeed(work, 5)
    assert running.result() == 5
    assert waiting.result() == ["Cached", "Cached"]
    assert leases.holders(lease, world.clock.now()) == []


def test_a_key_is_free_when_its_driver_is_gone(two: tuple[World, Any]) -> None:
    """A lease that was let go, or has expired, is taken over, and the value is computed."""
    world, leases = two
    first = ScriptedRunner()
    running = start(lambda: final([square.submit(1)]), first)
    work = first.expect(1)[0]
    first.fail(work, ValueError("no"))
    running.result()
    leases.acquire(lease_of(work), "a driver that is gone", 60.0, world.clock.now())
    runner = ScriptedRunner()
    waiting = start(lambda: square.submit(1).result(), runner)
    assert not runner.until(lambda: bool(runner.works), timeout=2 * caching.POLL)
    world.clock.advance(61)
    runner.succeed(runner.expect(1)[0], 5)
    assert waiting.result() == 5


def test_who_waits_for_another_driver_can_be_cancelled() -> None:
    """The flow ends, and nothing of it waits on."""
    first = ScriptedRunner()
    running = start(lambda: square.submit(1).result(), first)
    work = first.expect(1)[0]

    def main() -> Any:
        future = square.submit(1)
        future.cancel()
        future.wait(PATIENCE)
        return future.state.name

    assert start(main, ScriptedRunner()).result() == "Cancelled"
    first.succeed(work, 5)
    assert running.result() == 5


def test_leases_are_renewed_and_let_go(two: tuple[World, Any]) -> None:
    """A body may take longer than a lease; after the end of the run nothing is held."""
    world, leases = two
    runner = ScriptedRunner()
    running = start(lambda: square.submit(1).result(), runner)
    work = runner.expect(1)[0]
    for _ in range(3):
        world.clock.advance(caching.LEASE / 2)
        world.session.caches.renew()
    assert len(leases.holders(lease_of(work), world.clock.now())) == 1
    runner.succeed(work, 5)
    running.result()
    assert leases.holders(lease_of(work), world.clock.now()) == []


def test_a_bounded_map_looks_up_all_and_holds_few(world: World) -> None:
    """What is found needs no place; only those that are let through hold their keys."""
    state_of(lambda: square(7))
    BODIES.clear()
    runner = ScriptedRunner()
    running = start(lambda: final(square.map([1, 7, 2, 7], max_in_flight=1)), runner)
    first = runner.expect(1)[0]
    world.settle()
    assert not runner.until(lambda: len(runner.works) > 1, timeout=0.1)
    assert world.states() == {
        "square-0": "Pending", "square-1": "Cached", "square-2": "Pending", "square-3": "Cached",
    }  # fmt: skip
    keep(first, 1)
    runner.succeed(first, 1)
    second = runner.expect(2)[1]
    assert named(runner.works)["square-2"] is second
    runner.succeed(second, 4)
    assert running.result() == ["Completed", "Cached", "Completed", "Cached"]


def test_a_driver_that_dies_before_it_hears_loses_nothing() -> None:
    """What the worker has put into the cache is found when the run is resumed."""
    runner = ScriptedRunner()

    @flow(task_runner=runner)
    def main() -> Any:
        future = square.submit(3)
        if not runner.works:
            keep(runner.expect(1)[0], 9)
            raise KeyboardInterrupt
        return future.result(), future.state.name

    with pytest.raises(KeyboardInterrupt):
        main()
    assert main.resume("latest") == (9, "Cached")
    assert len(runner.works) == 1


def test_a_rerun_runs_and_refreshes(world: World) -> None:
    """Who asks for a rerun wants it computed, whatever the cache has; later runs find the new value."""

    @task(cache_policy=INPUTS)
    def number(x: int) -> int:
        BODIES.append(x)
        return len(BODIES)

    @flow
    def main() -> Any:
        return number(1), number(1)

    assert main() == (1, 1)
    assert main.rerun("latest") == (2, 3)
    assert main() == (3, 3)
    assert main.rerun("latest", from_task="number-1") == (3, 4)


@pytest.mark.parametrize("runner", ["inline", "threads"])
def test_a_task_never_waits_for_itself(runner: str) -> None:
    """One that calls another with the same key goes on: that one computes, too."""
    inner = task(lambda x: x + 1, name="inner", cache_key_fn=lambda context, parameters: "one key")

    @task(cache_key_fn=lambda context, parameters: "one key")
    def outer(x: int) -> int:
        both: int = inner(x) + inner.submit(x).result()
        return both

    with world_with(runner=runner):

        @flow
        def main() -> Any:
            return outer(1), outer.submit(1).result()

        assert main() == (4, 4)


def test_an_argument_that_is_changed_after_the_call_poisons_nothing() -> None:
    """Its body sees what is there by then; what it makes of that is not taken for the value of the call."""
    take = task(
        lambda options, data: (options["lr"], int(data[0])), cache_policy=INPUTS, name="take"
    )

    @flow
    def main(*, changed: bool) -> Any:
        options, data, futures = {"lr": 0}, np.zeros(5), []
        go = plain.submit(0)
        for number in range(3):
            options["lr"], data[0] = number, number
            futures.append(take.submit(options, data, wait_for=[go]))
            if not changed:
                options, data = dict(options), data.copy()
        return [future.result() for future in futures], names([future.state for future in futures])

    with world_with(runner="threads") as world:
        main(changed=True)
        said = [line for line in world.lines() if "was changed after the call" in line]
        assert len(said) == 2
        right = [(0, 0), (1, 1), (2, 2)]
        values, states_ = main(changed=False)
        assert values == right
        assert states_.count("Cached") <= 1  # the last call was not changed any more
        assert main(changed=False) == (right, ["Cached"] * 3)


# When things go wrong --------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_read_is_a_miss(world: World, tmp_path: Path) -> None:
    """It is said once, and the tasks run."""
    (tmp_path / "cache").write_text("not a folder")
    elsewhere = square.with_options(cache_policy=INPUTS.configure(key_storage=str(tmp_path)))

    @flow
    def main() -> Any:
        return elsewhere(1), elsewhere.submit(2).result()

    assert main() == (1, 4)
    lines = [line for line in world.lines() if "Some task runs go without the cache" in line]
    assert len(lines) == 1
    assert len([line for line in world.lines() if "not in the cache" in line]) == 2


def test_leases_that_cannot_be_taken_hold_up_nobody(
    two: tuple[World, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then two drivers may compute the same; neither waits for ever."""

    def unavailable(*args: Any, **kwargs: Any) -> Any:
        raise JournalUnavailable("The disk is full.")

    monkeypatch.setattr(two[1], "acquire_each", unavailable)
    assert state_of(lambda: square(3)) == 9
    assert any("The disk is full." in line for line in two[0].lines())


def test_a_lookup_that_breaks_is_a_miss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong, it is said, and the value is computed."""

    def broken(*args: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cache, "look", broken)
    assert state_of(lambda: square(3)) == 9
    assert any("a bug" in line for line in world.lines())


def test_a_value_that_cannot_be_kept_is_said_and_given(world: World) -> None:
    """In this process it needs no pickle; the next run computes it again."""

    @task(cache_policy=INPUTS)
    def lock(x: int) -> Any:
        BODIES.append(x)
        return threading.Lock()

    @flow
    def main() -> bool:
        return bool(lock(1).acquire())

    assert main()
    assert main()
    assert BODIES == [1, 1]
    assert any("not in the cache" in line for line in world.lines())


def test_a_cached_value_that_is_damaged_is_not_found_again(world: World) -> None:
    """Who reads it gets a clear error; it is taken out, so that the next run computes it."""

    @task(cache_policy=INPUTS)
    def large(x: int) -> bytes:
        BODIES.append(x)
        return bytes(100_000)

    @flow
    def main() -> Any:
        return len(large.submit(1).result())

    main()
    place = world.task_runs()["large-0"].stored
    assert place is not None
    damaged = bytes(place.size)
    store(place.storage).write(place.path, [damaged])
    with pytest.raises(Exception, match="damaged"):
        main()
    assert main() == 100_000
    assert BODIES == [1, 1]


# On workers ------------------------------------------------------------------------------------------


def test_tasks_that_are_called_by_tasks_far_away_are_cached() -> None:
    """Keys are made over there; hits come down the Link, direct or submitted, with policies of all kinds."""
    runner: Any = FarRunner()
    with world_with() as world:

        @flow(task_runner=runner)
        def main(size: int) -> Any:
            return far_parent.submit(size).result()

        first, second = main(3), main(3)
        assert first == (["Completed", "Cached", "Cached", "Completed", "Cached"], 18)
        assert second == (["Cached"] * 5, 18)
        children = [run for run in world.task_runs().values() if run.name != "far_parent-0"]
        assert all(run.attempts == () for run in children)
        for thread in runner.threads:
            thread.join(PATIENCE)


@task(cache_policy=INPUTS + FLOW_PARAMETERS)
def far_square(x: int) -> int:
    """Return a square."""
    return x * x


@task(cache_key_fn=lambda context, parameters: f"far {parameters['x']}")
def far_double(x: int) -> int:
    """Return the double."""
    return 2 * x


@task
def far_parent(size: int) -> Any:
    """Call cached tasks in every way."""
    direct = far_square(size, return_state=True)
    again = far_square(size, return_state=True)
    future = far_square.submit(size)
    late = far_double.submit(future)
    late.wait()
    known = far_double(9, return_state=True)
    return names([direct, again, future.state, late.state, known]), known.result()


def test_threads_of_one_body_share_what_they_compute() -> None:
    """Several threads that call the same at once compute it once."""
    with world_with(runner="threads"):

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
        def main() -> Any:
            return square.map([1] * 8).result()

        assert main() == [1] * 8
        assert BODIES == [1]


# Whatever happens --------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=150)
@given(
    st.builds(random.Random, st.integers(0, 2**32)),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 5), st.none() | st.integers(1, 3)), min_size=1, max_size=4),
)
def test_every_question_is_answered_and_everything_ends(
    luck: random.Random, follows: bool, parts: list[tuple[int, int | None]]
) -> None:
    """With hits, misses, failures, losses and cancelling in any order: all that was asked for has ended."""
    play = Play(luck, follows, caches=True)
    number = 0
    for count, limit in parts:
        items = [play.make(number + index) for index in range(count)]
        number += count
        if limit is None:
            for item in items:
                play.ask(item)
        else:
            play.ask_map(items, limit)
        for _ in range(luck.randint(0, 10)):
            play.step()
    play.finish()
    assert not play.questions
    assert invariants.check(play.events, play.ledger.table) == []
