"""Maps: what is mapped, what is the same for all, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic
import pytest

from dflow import current_run, flow, task, unmapped
from dflow.core import events as ev
from dflow.core.replay import replay
from dflow.engine import driver_scope
from dflow.engine.driver_scope import DriverScope
from dflow.engine.maps import FIRST, PART
from dflow.engine.posts import Do
from dflow.engine.tracker import Tracker
from dflow.errors import ParameterError, SerializationError
from dflow.testing import ScriptedRunner
from tests.engine.far import FarRunner
from tests.engine.world import Running, World, start

pytestmark = pytest.mark.usefixtures("world")


@task
def pair(x: Any, y: Any = None) -> Any:
    """Return what came."""
    return x, y


@task
def several(*values: Any, **more: Any) -> Any:
    """Return what came."""
    return values, more


@task
def numbers(count: int) -> list[int]:
    """Return a list."""
    return list(range(count))


class Model(pydantic.BaseModel):
    """A model is iterable, and one thing."""

    a: int = 1


@dataclass
class Row:
    """No iterable."""

    a: int = 1


def run(body: Any) -> Any:
    """Run a body as a flow."""
    return flow(body)()


@pytest.mark.parametrize(
    "given",
    [
        [1, 2],
        (1, 2),
        range(1, 3),
        {1: "a", 2: "b"}.keys(),
        (n for n in (1, 2)),
        {1, 2},
        np.array([1, 2]),
    ],
)
def test_every_iterable_is_mapped(given: Any) -> None:
    """Lists, tuples, ranges, views, generators, sets and arrays."""
    assert run(lambda: pair.map(given).result()) == [(1, None), (2, None)]


@pytest.mark.parametrize(
    "same", ["ab", b"ab", bytearray(b"ab"), {"a": 1, "b": 2}, Model(), Row(), 5, None, np.array(5)]
)
def test_what_is_one_thing_is_the_same_for_all(same: Any) -> None:
    """Texts, bytes, dicts, models, numbers and arrays without dimensions are not mapped."""
    assert run(lambda: pair.map([1, 2], same).result()) == [(1, same), (2, same)]
    with pytest.raises(ParameterError, match=r"'pair\.map' got nothing to map over"):
        run(lambda: pair.map(same))


def test_rows_of_an_array_are_items() -> None:
    """An array of two dimensions is mapped over its rows."""
    found = run(lambda: pair.map(np.arange(6).reshape(2, 3)).result())
    assert [row.tolist() for row, _ in found] == [[0, 1, 2], [3, 4, 5]]


def test_unmapped_is_the_same_for_all() -> None:
    """A list, or the future of one, that is not to be mapped."""

    def body() -> Any:
        values = numbers.submit(3)
        return [
            pair.map([1, 2], unmapped([7, 8])).result(),
            pair.map(x=[1], y=unmapped(values)).result(),
            pair.map([1], unmapped([values])).result(),
        ]

    first, second, third = run(body)
    assert first == [(1, [7, 8]), (2, [7, 8])]
    assert second == [(1, [0, 1, 2])]
    assert third == [(1, [[0, 1, 2]])]


def test_lengths_must_agree() -> None:
    """The error names the arguments with their lengths, and what to do."""
    with pytest.raises(ParameterError, match=r"'x' has 2, 'y' has 3.*unmapped"):
        run(lambda: pair.map([1, 2], [1, 2, 3]))
    with pytest.raises(ParameterError, match=r"'0' has 1, 'a' has 2"):
        run(lambda: several.map([1], a=[1, 2]))


def test_a_map_over_nothing_is_empty(world: World) -> None:
    """An empty list is no error, and makes no task run; also where another argument is a future."""

    def body() -> Any:
        empty = pair.map([], numbers.submit(0))
        empty.wait()
        return empty.result() + pair.map([]).states

    assert run(body) == []
    assert set(world.states()) == {"numbers-0"}


def test_futures_are_items_and_lists() -> None:
    """A list of futures is mapped over them; the future of a list over its items."""

    def body() -> Any:
        listed = numbers.submit(2)
        return pair.map([numbers.submit(1), 5], listed).result()

    assert run(body) == [([0], 0), (5, 1)]


def test_maps_of_maps_depend_item_by_item(runner: ScriptedRunner) -> None:
    """An item goes when its own upstream has completed, whatever the others do."""
    flow = start(lambda: pair.map(pair.map([1, 2]), unmapped("u")).result(), runner)
    one, two = runner.expect(2)
    runner.succeed(two, "two")
    third = runner.expect(3)[2]
    assert third.info.task_run_name == "pair-3"
    runner.succeed(one, "one")
    runner.succeed(third, 3)
    runner.succeed(runner.expect(4)[3], 4)
    assert flow.result() == [4, 3]


def test_arguments_without_names_are_mapped() -> None:
    """Functions with ``*args`` and ``**kwargs`` get their items in their places."""
    found = run(
        lambda: several.map([1, 2], "s", unmapped([0]), a=[3, 4], b=unmapped((9,))).result()
    )
    assert found == [((1, "s", [0]), {"a": 3, "b": (9,)}), ((2, "s", [0]), {"a": 4, "b": (9,)})]


def test_a_large_map_is_few_messages(world: World) -> None:
    """Ten thousand items are a few events, the first of them short, and their names count on."""
    count = 10_000
    runner = ScriptedRunner()
    flow = start(lambda: pair.map(range(count)).result(), runner)
    works = runner.expect(count, timeout=30)
    for number, work in enumerate(works):
        runner.succeed(work, number)
    assert flow.result() == list(range(count))
    made = world.events(ev.MapCreated)
    assert [len(event.items) for event in made] == [FIRST, *[PART] * 9, PART - FIRST]
    names = [item.name for event in made for item in event.items]
    assert names == [f"pair-{number}" for number in range(count)]


def test_a_map_that_cannot_be_made_asks_for_nothing(world: World) -> None:
    """However late it comes, an item that cannot travel is found before anything is asked for."""
    items = [*range(3 * PART), threading.Lock()]
    with pytest.raises(SerializationError, match="'x'"):
        flow(task_runner=FarRunner())(lambda: pair.map(items))()
    assert world.events(ev.MapCreated) == []


def test_a_failed_future_of_another_flow_is_found_first(world: World) -> None:
    """What raises when it is looked at keeps all of a long map from being asked for."""
    kept: list[Any] = []

    @flow(task_runner="threads")
    def first() -> None:
        kept.append(numbers.submit("no number"))
        kept[0].wait()

    first(return_state=True)
    before = len(world.events(ev.MapCreated))
    with pytest.raises(TypeError):
        flow(lambda: pair.map([*range(2 * PART), kept[0]]))()
    assert len(world.events(ev.MapCreated)) == before


def test_a_list_that_changes_while_it_is_mapped(world: World) -> None:
    """A long map takes the list as it was when it was called, whatever the first bodies do to it."""
    xs = list(range(2 * PART))

    @task
    def change(x: int) -> int:
        xs[-1] = -1
        return x

    found = flow(task_runner="inline")(lambda: change.map(xs).result())()
    assert found == list(range(2 * PART))
    assert len(world.events(ev.MapCreated)) > 1


def test_a_map_that_is_interrupted_in_the_middle(world: World) -> None:
    """What was asked for before is cancelled: nobody has its futures."""
    calls = itertools.count()

    @task
    def stop(x: int) -> int:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        flow(task_runner="inline")(lambda: stop.map(range(2 * PART)))()
    states = {run.state_name for run in replay(world.events(ev.Event)).task_runs.values()}
    assert states <= {"Completed", "Cancelled", "Cancelling"}


def test_a_map_that_is_interrupted_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the part that was just asked for is cancelled, and all futures that nobody got are let go."""
    submit, drop = DriverScope.submit, DriverScope.drop
    asked: list[int] = []
    dropped: set[str] = set()

    def interrupted(scope: DriverScope, event: Any, *rest: Any) -> None:
        submit(scope, event, *rest)
        asked.append(len(event.items))
        if len(asked) == 2:
            raise KeyboardInterrupt

    def noted(scope: DriverScope, *task_run_ids: str) -> None:
        dropped.update(task_run_ids)
        drop(scope, *task_run_ids)

    monkeypatch.setattr(DriverScope, "submit", interrupted)
    monkeypatch.setattr(DriverScope, "drop", noted)
    with pytest.raises(KeyboardInterrupt):
        run(lambda: pair.map(range(2 * PART)))
    made = replay(world.events(ev.Event)).task_runs
    assert len(asked) == 2
    assert len(made) == sum(asked)
    assert made.keys() <= dropped
    assert {each.state_name for each in made.values()} <= {"Completed", "Cancelled", "Cancelling"}


def test_a_map_waits_for_what_it_is_told_to(runner: ScriptedRunner) -> None:
    """Every item waits for ``wait_for``; their states can be returned."""
    flow = start(
        lambda: [s.name for s in pair.map([1, 2], wait_for=[numbers.submit(1)], return_state=True)],
        runner,
    )
    first = runner.expect(1)[0]
    assert first.info.task_name == "numbers"
    runner.succeed(first)
    one, two = runner.expect(3)[1:]
    runner.succeed(one)
    runner.succeed(two)
    assert flow.result() == ["Completed", "Completed"]


def test_equal_items_are_task_runs_of_their_own(world: World) -> None:
    """The same item twice runs twice."""
    assert run(lambda: pair.map([1, 1, 1]).result()) == [(1, None)] * 3
    assert len(world.task_runs()) == 3


def test_an_endless_iterable_that_raises_is_the_users_error(world: World) -> None:
    """What a generator raises comes out of the call of ``map``, and nothing was asked for."""

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        run(lambda: pair.map(broken()))
    assert world.task_runs() == {}


def test_a_long_map_keeps_pace_with_the_tracker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is busy only a few parts are asked for; all of them when it has come to that."""
    monkeypatch.setattr(driver_scope, "PACE", 60.0)
    free, asked = threading.Event(), threading.Event()

    @flow(task_runner="threads")
    def main() -> int:
        world.session.tracker.post(Do(lambda _: free.wait(30.0)))
        futures = pair.map(range(10 * PART))
        asked.set()
        return len(futures)

    running = Running(main)
    assert not asked.wait(1.0)  # it would take a tenth of that to ask for all
    free.set()
    assert running.result() == 10 * PART


def test_an_interrupted_map_holds_up_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was interrupted: nobody waits for a mark that was never sent."""
    monkeypatch.setattr(driver_scope, "PACE", 600.0)
    original, interrupts = Tracker.post, itertools.count()

    def post(self: Tracker, *posts: Any) -> None:
        if sys._getframe(1).f_code.co_name == "keep_pace" and next(interrupts) == 0:
            raise KeyboardInterrupt
        original(self, *posts)

    monkeypatch.setattr(Tracker, "post", post)

    @flow(task_runner="threads")
    def main() -> int:
        with pytest.raises(KeyboardInterrupt):
            pair.map(range(3 * PART))
        return len(pair.map(range(3 * PART)))

    assert Running(main).result() == 3 * PART


def test_a_map_does_not_wait_for_what_its_caller_holds() -> None:
    """A log handler of the program may want, in the tracker's thread, a lock that the flow's body holds."""
    lock = threading.Lock()

    class Locked(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002  (of `Handler`)
            with lock:
                pass

    @task(retries=1)
    def fails(x: int) -> int:
        raise ValueError(x)

    @flow(task_runner="threads")
    def main() -> int:
        with lock:
            return len(fails.map(range(3 * PART)))

    handler, shown = Locked(), logging.getLogger("dflow.runs")
    shown.addHandler(handler)
    running = Running(main)
    try:
        assert running.result() == 3 * PART
    finally:
        shown.removeHandler(handler)


def test_a_map_holds_up_no_event_loop() -> None:
    """Not even where the tracker's thread waits for something that the loop has to do."""
    written: list[str] = []

    @task(retries=1)
    def fails_once(x: int) -> int:
        if current_run().attempt == 1 and x == 0:
            raise ValueError(x)
        return x

    @flow(task_runner="threads")
    async def main() -> int:
        loop, told = asyncio.get_running_loop(), threading.Event()

        async def write(line: str) -> None:
            written.append(line)

        class Handed(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                asyncio.run_coroutine_threadsafe(write(record.getMessage()), loop).result(30.0)
                told.set()

        handler, shown = Handed(logging.WARNING), logging.getLogger("dflow.runs")
        shown.addHandler(handler)
        try:
            futures = fails_once.map(range(3 * PART))
            await asyncio.to_thread(told.wait, 30.0)
        finally:
            shown.removeHandler(handler)
        return len(futures)

    assert Running(lambda: asyncio.run(main())).result() == 3 * PART
    assert [line[:14] for line in written] == ["RETRY   fails_"]


def test_a_log_handler_that_raises_harms_no_run(capfd: pytest.CaptureFixture[str]) -> None:
    """Though it is called in the thread that has all state: what it raised is printed."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    @task(retries=1)
    def fails_once(x: int) -> int:
        if current_run().attempt == 1:
            raise ValueError(x)
        return x

    handler, shown = Broken(logging.WARNING), logging.getLogger("dflow.runs")
    shown.addHandler(handler)
    try:
        assert flow(lambda: fails_once.submit(7).result())() == 7
    finally:
        shown.removeHandler(handler)
    assert "RuntimeError: RETRY   fails_once-0" in capfd.readouterr().err
