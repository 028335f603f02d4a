"""Resumes in another order: whatever was finished and kept is found again, and given to its own call."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dflow import as_completed, current_run, flow, task, unmapped
from dflow.core.records import Held, Stage
from tests.engine.world import World, world_with

SEEDS = range(50)
RAN: list[tuple[str, int]] = []
"""The bodies that have begun: of which task run, in which of its generations."""


def note_body() -> None:
    """Note that the body that calls this has begun."""
    RAN.append((current_run().id, current_run().generation))


class Luck:
    """Decides orders, and in which of its steps a flow is interrupted, if it is."""

    def __init__(
        self, seed: int, steps: int = 0, how: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self.how = how
        self._random = random.Random(seed)
        self._left = self._random.randint(1, steps) if steps else 0

    def shuffled(self, items: Any) -> list[Any]:
        """Return items in any order."""
        found = list(items)
        self._random.shuffle(found)
        return found

    def step(self) -> None:
        """Interrupt the flow, if this is the moment."""
        self._left -= 1
        if self._left == 0:
            raise self.how


LUCK = Luck(0)


@pytest.fixture
def world() -> Iterator[World]:
    """Run tasks in threads, of which luck decides which comes first."""
    with world_with(runner="threads") as made:
        yield made


class Model:
    """What has no fingerprint, but a content."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


@task
def load(n: int) -> int:
    """Give a number."""
    note_body()
    return n


@task
def follow(n: int) -> int:
    """Follow from a number."""
    note_body()
    return 10 * n


@task
def fit(depth: int) -> Model:
    """Give an object."""
    note_body()
    return Model(depth)


@task
def grade(model: Model) -> int:
    """Look at an object."""
    note_body()
    return 100 * model.depth


@task
def outer(n: int) -> list[int]:
    """Submit others, in any order."""
    note_body()
    inner = {k: load.submit(1000 * n + k) for k in LUCK.shuffled(range(3))}
    doubled = {k: follow.submit(inner[k]) for k in LUCK.shuffled(inner)}
    return [doubled[k].result() for k in sorted(doubled)]


@task
def several(n: int) -> list[int]:
    """Give a list."""
    note_body()
    return list(range(n, n + 3))


@task
def added(n: int, more: int) -> int:
    """Add."""
    note_body()
    return n + more


@flow
def sweep() -> dict[str, Any]:
    """Ask for all of it, in any order."""
    parts: dict[str, Callable[[], Any]] = {
        "followed": _followed, "graded": _graded, "nested": _nested,
        "mapped": _mapped, "threads": _threads,
    }  # fmt: skip
    return {name: parts[name]() for name in LUCK.shuffled(parts)}


def _followed() -> list[int]:
    """What follows from whatever is there first, by its future."""
    loaded = [load.submit(n) for n in LUCK.shuffled(range(6))]
    following = []
    for future in as_completed(LUCK.shuffled(loaded)):
        LUCK.step()
        following.append(follow.submit(future))
    return sorted(future.result() for future in LUCK.shuffled(following))


def _graded() -> dict[int, int]:
    """What follows from whatever is there first, by its value, which has no fingerprint."""
    grades = {}
    for future in as_completed(LUCK.shuffled([fit.submit(n) for n in LUCK.shuffled(range(6))])):
        LUCK.step()
        model = future.result()
        grades[model.depth] = grade.submit(model)
    return {depth: future.result() for depth, future in sorted(grades.items())}


def _nested() -> list[list[int]]:
    LUCK.step()
    calls = {n: outer.submit(n) for n in LUCK.shuffled(range(3))}
    LUCK.step()
    return [calls[n].result() for n in sorted(calls)]


def _mapped() -> list[list[int]]:
    """Maps over lists that are still to come."""
    maps = {}
    for n in LUCK.shuffled(range(3)):
        maps[n] = added.map(several.submit(100 * n), unmapped(n))
        LUCK.step()
    return [maps[n].result() for n in sorted(maps)]


def _threads() -> list[int]:
    """Calls and submits from threads of the user's own."""

    def work(n: int) -> int:
        return load(50 + n) + load.submit(60 + n).result()

    with ThreadPoolExecutor(3) as pool:
        calls = [
            pool.submit(contextvars.copy_context().run, work, n) for n in LUCK.shuffled(range(5))
        ]
        LUCK.step()
        return sorted(call.result() for call in calls)


EXPECTED = {
    "followed": [10 * n for n in range(6)],
    "graded": {n: 100 * n for n in range(6)},
    "nested": [[10 * (1000 * n + k) for k in range(3)] for n in range(3)],
    "mapped": [[100 * n + k + n for k in range(3)] for n in range(3)],
    "threads": [110 + 2 * n for n in range(5)],
}


@flow
async def gathered() -> dict[int, int]:
    """Await what it asks for all at once, and in any order."""

    async def one(n: int) -> tuple[int, int]:
        future = load.submit(n)
        await future
        LUCK.step()
        return n, await follow.submit(future) + await grade.submit(Model(n))

    found = await asyncio.gather(*(one(n) for n in LUCK.shuffled(range(8))))
    return dict(sorted(found))


def kept(world: World) -> set[str]:
    """Return the ids of what has completed and is kept."""
    runs = world.reader().task_runs()
    return {r.id for r in runs if r.stage is Stage.COMPLETED and r.held is Held.JOURNAL}


def interrupted_and_resumed(
    luck: Luck, world: World, begin: Callable[[], Any], resume: Callable[[], Any], total: int
) -> Any:
    """Interrupt a flow by `luck`, resume it by other luck, and return what it gives.

    What was finished and kept must not have run again, and there must be `total` task runs in the end.
    """
    global LUCK  # noqa: PLW0603  (tasks have no other way to hear of it)
    LUCK = luck
    RAN.clear()
    try:
        begin()
        raise AssertionError("it was not interrupted")
    except luck.how:
        finished = kept(world)
    before = {run.id: run.attempts for run in world.reader().task_runs()}
    begun = {(run.id, run.generation) for run in world.reader().task_runs()}
    LUCK = Luck(luck.shuffled(range(1000))[0])
    value = resume()
    after = {run.id: run for run in world.reader().task_runs()}
    assert {i for i in finished if after[i].attempts != before[i]} == set()
    late = [run for run in RAN if run in begun]  # bodies of the first pass, which nobody waits for
    assert len(RAN) - len(late) <= len(after) - len(finished)
    assert len(after) == total  # what is found again is not asked for anew
    return value


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_was_finished_is_found_again(seed: int, world: World) -> None:
    """By as_completed and submits, by futures and by values, in nested tasks, maps and threads."""
    luck = Luck(seed, steps=18)
    value = interrupted_and_resumed(luck, world, sweep, lambda: sweep.resume("latest"), 67)
    assert value == EXPECTED


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_gathered_is_found_again(seed: int, world: World) -> None:
    """Coroutines of one flow, in whatever order they come."""
    value = interrupted_and_resumed(
        Luck(seed, 8, OSError),  # Ctrl-C would end the loop of pytest
        world,
        lambda: asyncio.run(gathered()),
        lambda: asyncio.run(_again()),
        24,
    )
    assert value == {n: 110 * n for n in range(8)}


async def _again() -> Any:
    return await gathered.resume("latest")
