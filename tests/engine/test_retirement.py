"""Task runs that nobody needs leave the driver's memory, and nobody can tell, but by its size."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow import current_run, flow, task, wait
from dflow.core import invariants
from dflow.core.id_set import IdSet
from dflow.core.records import FlowRun, Stage, TaskRun
from dflow.core.replay import Table
from dflow.engine import driver_scope, retirement
from dflow.engine.awaited import Awaited
from dflow.errors import JournalUnavailable
from task_runners import ThreadPoolTaskRunner
from tests.engine.playing import FLOW, Play
from tests.engine.test_ledger import played
from tests.engine.world import PATIENCE, World, assert_sound


@pytest.fixture(autouse=True, scope="module")
def _few_stay() -> Iterator[None]:
    """Let them go as soon as they may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retirement, "KEPT", 0)
        patch.setattr(retirement, "AT_ONCE", 3)
        patch.setattr(driver_scope, "OVER", 1)
        yield


# The ledger, by itself ------------------------------------------------------------------------------------


def play(seed: int, *, retires: bool, follows: bool, shares_memory: bool, lags: bool) -> Play:
    """Return a play; `retires` decides nothing that luck does."""
    return Play(random.Random(seed), follows, shares_memory, lags=lags, held=True, retires=retires)


@settings(max_examples=1000)
@given(
    st.integers(0, 2**32),
    st.integers(1, 25),
    st.fixed_dictionaries(dict.fromkeys(("follows", "shares_memory", "lags"), st.booleans())),
)
def test_what_happens_is_the_same(seed: int, count: int, how: dict[str, bool]) -> None:
    """With the same luck the history is the same, and who has left and who has not are all there were."""
    whole, part = (play(seed, retires=retires, **how) for retires in (False, True))
    for one in (whole, part):
        played(one, count)
    assert part.events == whole.events
    for one in (whole, part):
        for asked in list(one.asked):
            while one.handles[asked.task_run_id] > 0:
                one.drop(asked.task_run_id)
    assert part.events == whole.events
    assert not part.left.keys() & part.runs.keys()
    assert part.left | part.runs == whole.runs
    assert all(run.dispatch == 1 for run in part.left.values())
    assert all(run_id in part.ledger.retirement for run_id in part.left)
    stay = {
        run_id
        for run_id, run in part.runs.items()
        if run.stage is not Stage.COMPLETED or run.dispatch > 1
    }
    for run in reversed(part.runs.values()):
        if run.id in stay:
            stay |= {upstream.task_run_id for upstream in run.upstreams}
    assert part.runs.keys() == stay & part.runs.keys()
    # A body that begins again asks for all again, which goes on as if none had left.
    part.retires = False
    assert part.ledger.retirement.end() is bool(part.left)
    assert part.ledger.take_back([*part.left.values(), *part.runs.values()]) == part.left
    part.ledger.retirement.forget()
    assert not any(run_id in part.ledger.retirement for run_id in part.left)
    for one in (whole, part):
        for event in list(one.asked):
            one.ask(event)
        one.finish()
    assert part.runs == whole.runs
    table = Table()
    table.flow_runs.update(part.ledger.table.flow_runs)
    table.task_runs.update((run_id, part.runs[run_id]) for run_id in whole.runs)
    assert invariants.check(part.events, table) == []
    assert part.ledger.tally.unfinished[FLOW] == 0
    assert part.ledger.tally.groups == whole.ledger.tally.groups


# Flows ------------------------------------------------------------------------------------------------------

BODIES: list[Any] = []


@pytest.fixture(autouse=True)
def _no_bodies() -> None:
    BODIES.clear()


@task
def double(x: int) -> int:
    """Return twice a number."""
    BODIES.append(x)
    return 2 * x


def names_in_memory(world: World) -> set[str]:
    """Return the names of the task runs that the ledger has."""
    world.settle()
    world.settle()  # what was dropped with the first goes with the second
    while world.session.ledger.retirement.due:
        world.settle()
    ledger = world.session.ledger
    ids = set(ledger.table.task_runs)
    assert set(ledger._graph._progress) == ids
    for known in (ledger.claims, world.session.dispatcher.asked, world.session.tracker.shown):
        assert set(known) - set(ledger.table.flow_runs) <= ids
    return {run.name for run in ledger.table.task_runs.values()}


def until_none_is_in_memory(world: World) -> None:
    """Wait until the ledger has no task run any more."""
    deadline = time.monotonic() + PATIENCE
    while names := names_in_memory(world):
        assert time.monotonic() < deadline, names
        gc.collect()
        time.sleep(0.01)


def test_who_has_no_future_goes(world: World) -> None:
    """Those of maps and of submits when the last future is gone, and what was called directly."""

    @flow
    def main() -> int:
        assert double.map(range(10)).result() == [2 * x for x in range(10)]
        assert double(10) == 20
        held = double.submit(11)
        wait([double.submit(12), held])
        assert names_in_memory(world) == {"double-11"}
        return held.result()

    assert main() == 22
    assert set(world.states().values()) == {"Completed"}
    assert len(world.states()) == 13
    assert_sound(world.journal)


def test_what_is_depended_on_stays_as_long(world: World) -> None:
    """A chain goes from its end, when the future of that goes."""

    @flow
    def main() -> int:
        end = double.submit(1)
        for _ in range(5):
            end = double.submit(end)
        value = end.result()
        assert len(names_in_memory(world)) == 6
        del end
        assert names_in_memory(world) == set()
        return value

    assert main() == 64
    assert_sound(world.journal)


def test_failures_stay(world: World) -> None:
    """And what they depend on: who fails later for their sake names them."""

    @task
    def fails(x: int) -> int:
        raise ValueError(f"bad {x}")

    @flow
    def main() -> str:
        failed = fails.submit(double.submit(1))
        wait([failed])
        assert names_in_memory(world) == {"double-0", "fails-0"}
        return str(double.submit(failed).result(raise_on_failure=False))

    assert "bad 2" in main()
    assert_sound(world.journal)


def test_who_called_and_who_was_called_by_a_task_stay(world: World) -> None:
    """Bodies of tasks may be tried again, and ask again; so may those of the subflows that they call."""

    @flow
    def inner(x: int) -> int:
        return double(x) + double(x + 1)

    @task
    def outer(x: int) -> int:
        return double.submit(x).result() + inner(x)

    @flow
    def main() -> int:
        value = outer.submit(1).result() + inner(5)
        assert names_in_memory(world) == {"outer-0", "double-0"}
        return value

    assert main() == 2 + 6 + 22
    assert_sound(world.journal)


@pytest.mark.parametrize("retried", ["main", "inner"])
def test_a_body_that_is_tried_again_finds_all(world: World, retried: str) -> None:
    """What has left is recalled, whichever flow begins again, and does not run again."""

    def fail_once(name: str) -> None:
        BODIES.append(name)
        if name == retried and BODIES.count(name) == 1:
            raise ValueError("once")

    @flow(retries=1)
    def inner() -> int:
        value = sum(double.map(range(5)).result()) + double(100)
        assert names_in_memory(world) == set() or BODIES.count(retried) == 1
        fail_once("inner")
        return value

    @flow(retries=1)
    def main() -> int:
        value = sum(double.map(range(10, 15)).result()) + inner()
        fail_once("main")
        return value

    assert main() == 120 + 220
    assert sorted(x for x in BODIES if isinstance(x, int)) == [*range(5), *range(10, 15), 100]
    assert not [line for line in world.lines() if "not asked for again" in line]
    assert_sound(world.journal)


def test_who_waits_while_all_are_recalled(world: World) -> None:
    """Those that have left meanwhile have ended, for one flow run too whose end waits for them."""
    gates = [threading.Event() for _ in range(3)]

    @task
    def waits(number: int) -> None:
        gates[number].wait(PATIENCE)

    @flow
    def first() -> None:
        for number in range(3):
            waits.submit(number)

    @flow(retries=1)
    def again() -> None:
        BODIES.append("again")
        if len(BODIES) == 1:
            for gate in gates[1:]:  # the end of the other one waits for the first of them
                gate.set()
            while len(names_in_memory(world)) > 1:
                pass
            raise ValueError("once")
        gates[0].set()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=3))
    def main() -> None:
        handles = [first.start(), again.start()]
        for handle in handles:
            handle.result(timeout=PATIENCE)

    main()
    assert BODIES == ["again"] * 2
    assert_sound(world.journal)


def test_who_looks_while_all_come_back() -> None:
    """One that is gone no more at the second look is shown by then."""
    run = TaskRun("t", FLOW, FLOW, "task", "t", 0.0, stage=Stage.COMPLETED)

    class Returning(dict[str, TaskRun | FlowRun]):
        """It has the task run from the second look on."""

        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            self.setdefault(key, run)
            return found

    calls: list[int] = []
    awaited = Awaited(Returning(), IdSet())
    awaited.when_all_final(["t"], lambda: calls.append(1))
    assert calls == [1]


def test_a_journal_that_cannot_be_used_delays_the_recall(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, and nothing runs again."""
    monkeypatch.setattr(retirement, "LOOK", 0.01)
    refused: list[int] = []

    @flow(retries=1)
    def main() -> int:
        value = sum(double.map(range(5)).result())
        if not refused:
            assert names_in_memory(world) == set()
            journal = world.session.journal
            task_runs = journal.task_runs

            def refuses() -> Iterator[TaskRun]:
                refused.append(1)
                if len(refused) < 3:
                    raise JournalUnavailable("busy")
                return task_runs()

            monkeypatch.setattr(journal, "task_runs", refuses)
            raise ValueError("once")
        return value

    assert main() == 20
    assert len(refused) == 3
    assert len(BODIES) == 5
    assert_sound(world.journal)


def test_a_subflow_that_is_called_late_belongs_to_its_flow(world: World) -> None:
    """A thread of a body calls it when the task run has left: the flow waits for what it asks for."""
    has_left, called = threading.Event(), threading.Event()

    @flow
    def inner() -> None:
        double.submit(1)
        called.set()

    @task
    def outer() -> threading.Thread:
        def late() -> None:
            has_left.wait(PATIENCE)
            inner()

        thread = threading.Thread(target=current_run().bind(late))
        thread.start()
        return thread

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def main() -> None:
        thread = outer.submit().result()
        assert names_in_memory(world) == set()
        has_left.set()
        assert called.wait(PATIENCE)
        table = world.session.ledger.table
        assert len(table.family(world.session.root.flow_run_id)) == 2
        thread.join()

    main()
    assert set(world.states().values()) == {"Completed"}
    assert_sound(world.journal)


def test_direct_calls_of_a_body_that_is_over_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though they are too few for the tracker to be told of before."""
    monkeypatch.setattr(driver_scope, "OVER", 100)

    @flow
    def inner(x: int) -> int:
        return double(x) + double(x + 1)

    @flow
    def main() -> None:
        for number in range(5):
            inner(10 * number)
        assert names_in_memory(world) == set()
        double(1000)
        assert names_in_memory(world) == {"double-0"}

    main()
    assert_sound(world.journal)


def test_maps_that_came_late_go(world: World) -> None:
    """Those over a list that was still to come are held by nobody but their futures."""

    @task
    def numbers(count: int) -> list[int]:
        return list(range(count))

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def main() -> None:
        for count in (3, 5):
            assert double.map(numbers.submit(count)).result() == [2 * x for x in range(count)]
        until_none_is_in_memory(world)

    main()
    assert_sound(world.journal)


def test_the_end_of_a_flow_waits_for_those_without_futures(world: World) -> None:
    """They may leave while it waits."""

    @flow
    def main() -> None:
        for x in range(50):
            double.submit(x)

    main()
    assert set(world.states().values()) == {"Completed"}
    assert len(BODIES) == 50
    assert_sound(world.journal)


def test_a_resumed_run_keeps_all(world: World) -> None:
    """It is compared with what was there before."""

    @flow
    def main() -> int:
        value = sum(double.map(range(5)).result())
        if BODIES.count("main") == 0:
            BODIES.append("main")
            assert names_in_memory(world) == set()
            raise ValueError("once")
        assert len(names_in_memory(world)) == 5
        return value

    with pytest.raises(ValueError, match="once"):
        main()
    assert main.resume("latest") == 20
    assert len(BODIES) == 6
    assert_sound(world.journal)


def test_what_the_journal_has_not_saved_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes once it is saved; others need not wait for it."""
    asked: list[int] = []

    @flow
    def main() -> None:
        journal = world.session.journal

        def unwilling(task_run_ids: Iterable[str]) -> list[str]:
            ids = list(task_run_ids)
            asked.append(len(ids))
            return ids[len(asked) % 2 :]

        monkeypatch.setattr(journal, "let_go", unwilling)
        monkeypatch.setattr(journal, "catch_up", lambda: True)
        assert double.map(range(7)).result() == [2 * x for x in range(7)]
        until_none_is_in_memory(world)

    main()
    assert asked[:2] == [3, 3]
    assert len(world.task_runs()) == 7
    assert_sound(world.journal)
