"""``max_in_flight``: never more than so many of a map are out, and nobody waits while there is room."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dflow import flow, task
from dflow.core import events as ev
from dflow.core import invariants
from dflow.core.records import Need, Stage, TaskRun
from dflow.core.replay import Table
from dflow.engine.gates import Gate
from dflow.engine.ledger import Ledger
from dflow.engine.recovery import recover
from dflow.errors import DefinitionError, ParameterError
from dflow.testing import ScriptedRunner
from tests.engine.playing import FLOW, Play
from tests.engine.world import World, named, start

OUT = (Stage.DISPATCHED, Stage.RUNNING, Stage.CANCELLING)
many = hypothesis_settings(max_examples=150)


@dataclass
class GatedPlay(Play):
    """A play whose maps have limits, which are looked at whenever something has happened."""

    groups: list[tuple[frozenset[str], int]] = field(default_factory=list)

    def ask_gated(self, first: int, count: int, limit: int) -> None:
        """Ask for a map of new task runs."""
        items = [self.make(first + number) for number in range(count)]
        self.groups.append((frozenset(item.task_run_id for item in items), limit))
        self.ask_map(items, limit)

    def act(self) -> None:
        """Do what is to be done, and look at the gates."""
        super().act()
        for group, limit in self.groups:
            runs = [self.runs[i] for i in group if i in self.runs]
            out = sum(run.stage in OUT for run in runs)
            assert out <= limit, f"{out} are out, and {limit} may be"
            waiting = [run.id for run in runs if self.could_go(run)]
            assert out == limit or not waiting, f"{waiting} wait though {limit - out} may go"

    def could_go(self, run: TaskRun) -> bool:
        """Tell whether nothing but a gate can hold a task run back."""
        if run.stage is not Stage.WAITING or run.id not in self.ledger.claims:
            return False
        sources = [(self.runs[up.task_run_id], up.need) for up in run.upstreams]
        return all(
            source.stage.final if need is Need.ALLOW else source.stage is Stage.COMPLETED
            for source, need in sources
        )

    def cancel_one(self) -> None:
        """Cancel a task run."""
        self.apply(ev.CancelRequested(at=self.now, task_run_id=self.luck.choice(list(self.runs))))

    def stop_one(self) -> None:
        """Let a body that is to stop do so, or be given up."""
        stopping = [run for run in self.runs.values() if run.stage is Stage.CANCELLING]
        if stopping:
            run = self.luck.choice(stopping)
            self.out.pop((run.id, run.dispatch), None)
            self.apply(ev.StopExpired(at=self.now, task_run_id=run.id, dispatch=run.dispatch))


plays = st.builds(
    GatedPlay, st.builds(random.Random, st.integers(0, 2**32)), st.booleans(), st.booleans()
)


@many
@given(plays, st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=4))
def test_no_more_than_the_limit_and_none_waits_in_vain(
    play: GatedPlay, maps: list[tuple[int, int]]
) -> None:
    """Whatever happens: success, failure, retry, loss, a dispatch that comes back, cancelling."""
    number = 0
    for count, limit in maps:
        play.ask_gated(number, count, limit)
        number += count
        for _ in range(play.luck.randint(0, 10)):
            play.luck.choice((play.step, play.step, play.step, play.cancel_one, play.stop_one))()
    while any(run.stage is Stage.CANCELLING for run in play.runs.values()):
        play.stop_one()
    play.finish()
    for group, limit in play.groups:
        play.ask_map([item for item in play.asked if item.task_run_id in group], limit)
    while any(run.stage is Stage.CANCELLING for run in play.runs.values()):
        play.stop_one()
    play.finish()
    assert invariants.check(play.events, play.ledger.table) == []


@many
@given(plays, st.integers(1, 10), st.integers(1, 3), st.integers(0, 30))
def test_limits_hold_after_a_resume(play: GatedPlay, count: int, limit: int, steps: int) -> None:
    """A map that another driver left is asked for again, with its limit."""
    play.ask_gated(0, count, limit)
    for _ in range(steps):
        play.step()
    table = Table()
    table.flow_runs |= play.ledger.table.flow_runs
    table.task_runs |= play.ledger.table.task_runs
    later = GatedPlay(play.luck, play.follows, play.shares_memory, Ledger(table), play.events)
    later.now, later.groups = play.now, play.groups
    recover(later.ledger, later.now)
    later.act()
    later.apply(ev.FlowRunStarted(at=later.now, flow_run_id=FLOW, generation=2))
    later.ask_map(play.asked, limit)
    later.finish()
    assert invariants.check(later.events, later.ledger.table) == []


# As users see it --------------------------------------------------------------------------------------


@task(retries=1, retry_delay_seconds=60)
def step(x: Any) -> Any:
    """Return what came."""
    return x


def test_a_retry_that_waits_gives_its_place_away(world: World, runner: ScriptedRunner) -> None:
    """One that awaits its retry does not count, and queues again when its time has come."""
    running = start(lambda: step.map([1, 2, 3], max_in_flight=1).result(), runner)
    (first,) = runner.expect(1)
    world.settle()
    assert len(runner.works) == 1
    runner.fail(first, ValueError("no"), at=world.clock.now())
    second = runner.expect(2)[1]
    assert second.info.task_run_name == "step-1"
    world.clock.advance(60)
    world.settle()
    assert len(runner.works) == 2
    runner.succeed(second, 2)
    third = runner.expect(3)[2]
    runner.succeed(third, 3)
    last = runner.expect(4)[3]
    assert [third.info.task_run_name, last.info.task_run_name] == ["step-2", "step-0"]
    runner.succeed(last, 1)
    assert running.result() == [1, 2, 3]


def test_one_that_is_gated_is_not_sent_after_its_upstream() -> None:
    """Where upstreams are still under way a task run would hold a place for nothing."""
    runner = ScriptedRunner(follows=True)
    running = start(lambda: step.map(step.map([1, 2]), max_in_flight=1).result(), runner)
    runner.expect(2)
    works = named(runner.works)
    runner.succeed(works["step-1"], 2)
    runner.succeed(runner.expect(3)[2], "two")
    runner.succeed(works["step-0"], 1)
    runner.succeed(runner.expect(4)[3], "one")
    assert running.result() == ["one", "two"]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("wrong", [0, -1, 2.0, "2", True])
def test_a_limit_is_a_number_of_task_runs(wrong: Any) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ParameterError, match=r"max_in_flight= must be a whole number, 1 or more"):
        flow(lambda: step.map([1], max_in_flight=wrong))()


@pytest.mark.usefixtures("world")
def test_a_map_on_the_inline_runner_has_its_limit() -> None:
    """There one runs at a time anyway."""
    assert flow(lambda: step.map([1, 2, 3], max_in_flight=2).result())() == [1, 2, 3]


def test_the_name_is_reserved_for_maps() -> None:
    """A task may not have such a parameter; a flow, which is not mapped, may."""

    def gated(max_in_flight: int) -> int:
        return max_in_flight

    with pytest.raises(DefinitionError, match="parameter 'max_in_flight'"):
        task(gated)
    assert flow(gated).fn(3) == 3


def test_a_long_queue_is_taken_in_order() -> None:
    """Those who queue get their turns in the order in which they came, however many they are."""
    gate = Gate(1)
    assert gate.let_through("first")
    names = [f"t{number}" for number in range(50_000)]
    assert not any(map(gate.let_through, names))
    served = []
    last = "first"
    for _ in names:
        gate.leave(last)
        for last in gate.turns():
            assert gate.let_through(last)
            served.append(last)
    assert served == names
