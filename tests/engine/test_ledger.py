"""The ledger: random graphs come to their end, counts add up, values go when nobody needs them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dflow.core import events as ev
from dflow.core import invariants
from dflow.core.records import Cause, FlowStage, Held, Need, Stage, TaskRun, Upstream
from dflow.core.replay import Table
from dflow.engine.claims import Claim
from dflow.engine.ledger import Ledger
from dflow.engine.recovery import recover
from dflow.engine.renewal import Again
from tests.engine.playing import ERROR, FLOW, Play

plays = st.builds(
    Play,
    st.builds(random.Random, st.integers(0, 2**32)),
    st.booleans(),
    st.booleans(),
    lags=st.booleans(),
)
many = hypothesis_settings(max_examples=1500)


def played(play: Play, count: int) -> Play:
    """Ask for task runs while others go on and futures are dropped, then let all come to its end."""
    number = 0
    while number < count:
        if play.luck.random() < 0.5:
            play.ask(play.make(number))
            number += 1
        elif play.luck.random() < 0.2 and play.asked:
            held = [t.task_run_id for t in play.asked if play.handles[t.task_run_id] > 0]
            if held:
                play.drop(play.luck.choice(held))
        else:
            play.step()
    play.finish()
    return play


def assert_counted(play: Play) -> None:
    """Assert that what the ledger counts is what there is."""
    counted = Counter(
        (run.flow_run_id, run.task_name, run.state_name) for run in play.runs.values()
    )
    kept = Counter(
        {
            (*group, name): n
            for group, states in play.ledger.tally.groups.items()
            for name, n in states.items()
        }
    )
    assert +kept == counted
    open_ones = [run for run in play.runs.values() if not run.stage.final]
    assert play.ledger.tally.unfinished[FLOW] == len(open_ones)


def assert_sound(play: Play) -> None:
    """Assert that nothing is broken in the history."""
    assert invariants.check(play.events, play.ledger.table) == []


@many
@given(plays, st.integers(1, 25))
def test_every_graph_comes_to_its_end(play: Play, count: int) -> None:
    """All that was asked for ends, with sound records and right counts, whatever the runner reports."""
    played(play, count)
    assert len(play.runs) == count
    assert_counted(play)
    assert_sound(play)


@many
@given(plays, st.integers(1, 25))
def test_values_stay_while_needed_and_go_after(play: Play, count: int) -> None:
    """None is let go while a future or a consumer needs it (checked at each release), none is left over."""
    played(play, count)
    for task_run_id in play.values & play.ledger.with_runner:
        assert play.needed(task_run_id), f"{task_run_id} is held for nobody"
    for task in play.asked:
        while play.handles[task.task_run_id] > 0:
            play.drop(task.task_run_id)
    assert not play.ledger.with_runner
    assert not play.values


@many
@given(plays, st.integers(1, 20))
def test_asking_again_keeps_what_is_there(play: Play, count: int) -> None:
    """A second pass finds what has completed and can be had, and opens a generation of all else.

    Also of what had taken a failure that may end otherwise this time, and of what follows from that.
    """
    played(play, count)
    before = dict(play.runs)
    misled = _misled(before)
    kept = {
        i
        for i, run in before.items()
        if run.stage is Stage.COMPLETED and play.ledger.obtainable(run) and i not in misled
    }
    for event in list(play.asked):
        play.ask(event)
    for task_run_id, run in play.runs.items():
        if task_run_id in kept:
            assert run is before[task_run_id]
        else:
            assert run.generation == before[task_run_id].generation + 1
    play.finish()
    assert_counted(play)
    assert_sound(play)


def _misled(runs: dict[str, TaskRun]) -> set[str]:
    """Return the task runs that had, among what they come from, a failure that was allowed."""
    misled: set[str] = set()
    for run in runs.values():  # upstreams come first
        for upstream in run.upstreams:
            failed = runs[upstream.task_run_id].stage is not Stage.COMPLETED
            if upstream.task_run_id in misled or (failed and upstream.need is Need.ALLOW):
                misled.add(run.id)
    return misled


def _later(play: Play, generation: int) -> Play:
    """Return the play of a driver that takes up what another has left."""
    table = Table()
    table.flow_runs |= play.ledger.table.flow_runs
    table.task_runs |= play.ledger.table.task_runs
    later = Play(play.luck, play.follows, play.shares_memory, Ledger(table), list(play.events))
    later.now = play.now
    recover(later.ledger, later.now)
    later.apply(ev.FlowRunStarted(at=later.now, flow_run_id=FLOW, generation=generation))
    return later


def _from(runs: dict[str, TaskRun], first: str) -> set[str]:
    """Return a task run and all that depends on it."""
    found = {first}
    for run in runs.values():  # upstreams come first
        if any(upstream.task_run_id in found for upstream in run.upstreams):
            found.add(run.id)
    return found


def _kept(runs: dict[str, TaskRun]) -> set[str]:
    """Return what has completed with a value that outlives its driver, and had taken no failure."""
    kept = {run.id for run in runs.values() if run.stage is Stage.COMPLETED and run.held.kept}
    return kept - _misled(runs)


@many
@given(plays, st.integers(1, 20), st.integers(0, 20), st.integers(0, 40))
def test_a_rerun_is_brought_to_its_end_by_whoever_comes_later(
    play: Play, count: int, asked: int, steps: int
) -> None:
    """What is to run again does, under one driver or the next, and once; what is not, does not."""
    played(play, count)
    before = dict(play.runs)
    chosen = play.luck.choice(list(before))
    again = _from(before, chosen)
    first = _later(play, 2)
    first.ledger.renewal.begin(Again(rerun=True, from_task=chosen), first.now)
    first.act()
    for event in play.asked[:asked]:
        first.ask(event)
    for _ in range(steps):
        first.step()
    between = dict(first.runs)
    last = _later(first, 3)
    for event in play.asked:
        last.ask(event)
    last.finish()
    for task_run_id, run in last.runs.items():
        if task_run_id in again:
            assert run.generation > before[task_run_id].generation
        elif task_run_id in _kept(before) - _misled(
            between
        ):  # a lost one may have failed meanwhile
            assert run.attempts == before[task_run_id].attempts
        done_again = between[task_run_id].generation > before[task_run_id].generation
        if task_run_id in _kept(between) and (done_again or task_run_id not in again):
            assert run.attempts == between[task_run_id].attempts
    assert_counted(last)
    assert_sound(last)


@many
@given(plays, st.integers(1, 20), st.integers(0, 60), st.booleans())
def test_a_dead_drivers_work_is_taken_up(
    play: Play, count: int, steps: int, all_again: bool
) -> None:
    """What another driver left is closed; what is asked for again goes on, the rest is cancelled."""
    for number in range(count):
        play.ask(play.make(number))
    for _ in range(steps):
        play.step()
    play.act()
    table = Table()
    table.flow_runs |= play.ledger.table.flow_runs
    table.task_runs |= play.ledger.table.task_runs
    luck = play.luck
    later = Play(luck, play.follows, play.shares_memory, Ledger(table), list(play.events))
    later.now = play.now
    recover(later.ledger, later.now)
    later.act()
    assert table.flow_runs[FLOW].stage is FlowStage.INTERRUPTED
    assert not later.out
    later.apply(ev.FlowRunStarted(at=later.now, flow_run_id=FLOW, generation=2))
    wanted = play.asked if all_again else play.asked[: count // 2]
    for event in wanted:
        later.ask(event)
    later.finish()
    left = later.ledger.closing.cancel_unclaimed(FLOW, later.now)
    later.act()
    assert all(run.stage.final for run in later.runs.values())
    asked = {event.task_run_id for event in wanted}
    assert not asked & set(left)
    assert all(later.runs[name].stage is Stage.CANCELLED for name in left)
    assert_counted(later)
    assert_sound(later)


@many
@given(plays, st.integers(1, 20), st.integers(0, 40))
def test_cancelling_everything_ends_everything(play: Play, count: int, steps: int) -> None:
    """Nothing is dispatched any more, and after giving up on what goes on there is nothing unfinished."""
    for number in range(count):
        play.ask(play.make(number))
    for _ in range(steps):
        play.step()
    out = set(play.out)
    play.ledger.closing.cancel_all(FLOW, play.now)
    play.act()
    late = play.make(count)
    play.ask(late)
    assert set(play.out) <= out
    assert play.runs[late.task_run_id].stage is Stage.CANCELLED
    for _ in range(10):
        play.step()
    play.ledger.closing.abandon_all(FLOW, play.now)
    play.act()
    assert not play.ledger.closing.unfinished_under(FLOW)
    untried = [run for run in play.runs.values() if run.stage is Stage.FAILED and not run.attempts]
    before = {run.id for run in untried if run.state_name == "UpstreamFailed"}
    assert all(_failed_before(play, i) for i in before)
    assert_counted(play)
    assert_sound(play)


def _failed_before(play: Play, task_run_id: str) -> bool:
    """Tell whether an upstream of a task run failed by itself, and was not cancelled."""
    sources = [play.runs[up.task_run_id] for up in play.runs[task_run_id].upstreams]
    return any(source.stage in (Stage.FAILED, Stage.CRASHED) for source in sources)


# Single cases ----------------------------------------------------------------------------------------


def quiet(*, follows: bool = False, shares_memory: bool = True) -> Play:
    """Return a play in which nothing happens by itself."""
    return Play(random.Random(0), follows, shares_memory)


def task(name: str, *upstreams: Upstream) -> ev.TaskCreated:
    """Return the beginning of a task run."""
    return ev.TaskCreated(
        at=1.0,
        task_run_id=name,
        flow_run_id=FLOW,
        parent_id=FLOW,
        task_name="t",
        name=name,
        upstreams=upstreams,
    )


def succeed(play: Play, name: str, held: Held = Held.RUNNER) -> None:
    """Let the present dispatch of a task run succeed."""
    key = (name, play.runs[name].dispatch)
    play.report(key, ev.AttemptSucceeded, started_at=play.now, seconds=1.0, held=held)


def test_only_a_runner_that_passes_values_on_is_given_more() -> None:
    """Where the runner follows, a chain is handed over at once; elsewhere each waits for its upstream."""
    for follows, handed_over in ((True, 3), (False, 1)):
        play = quiet(follows=follows)
        play.ask(task("a"))
        play.ask(task("b", Upstream("a")))
        play.ask(task("c", Upstream("b")))
        assert len(play.out) == handed_over


def test_a_gate_is_never_passed_on() -> None:
    """``wait_for`` waits for the end, also at a runner that follows."""
    play = quiet(follows=True)
    play.ask(task("a"))
    play.ask(task("b", Upstream("a", Need.WAIT)))
    assert list(play.out) == [("a", 1)]
    succeed(play, "a")
    assert list(play.out) == [("b", 1)]


def test_a_value_of_another_runner_is_waited_for() -> None:
    """A runner follows only itself."""
    play = quiet(follows=True)
    play.ask(task("a"))
    play.ledger.ask(task("b", Upstream("a")), Claim(2, follows=True), handles=True)
    play.act()
    assert list(play.out) == [("a", 1)]


def test_an_upstream_whose_value_is_lost_fails_its_consumer() -> None:
    """It is told from a failure, names who lost it, and the upstream stays completed."""
    play = quiet()
    play.ask(task("a"))
    succeed(play, "a")
    play.report(("a", 1), ev.ResultLost)
    play.ask(task("b", Upstream("a")))
    assert play.runs["b"].state_name == "UpstreamLost"
    assert "'a'" in play.runs["b"].message
    assert play.runs["a"].stage is Stage.COMPLETED
    play.ask(task("a"))
    assert play.runs["a"].generation == 2


@pytest.mark.parametrize("shares_memory", [True, False])
def test_what_the_journal_keeps_need_not_stay_at_a_far_runner(shares_memory: bool) -> None:
    """A small value is let go at once where keeping it costs something, and is still to be had."""
    play = quiet(shares_memory=shares_memory)
    play.ask(task("a"))
    succeed(play, "a", Held.JOURNAL)
    assert (play.values == {"a"}) == shares_memory
    play.ask(task("b", Upstream("a")))
    assert ("b", 1) in play.out


def test_a_map_of_old_and_new_makes_only_the_new() -> None:
    """Items that are there already are asked for again, the others made, with one event."""
    play = quiet()
    items = tuple(ev.MapItem(name, name) for name in "abc")
    created = ev.MapCreated(
        at=1.0, flow_run_id=FLOW, parent_id=FLOW, task_name="t", items=items[:2]
    )
    play.ledger.ask(created, Claim(1), handles=True)
    play.act()
    succeed(play, "a")
    play.ledger.ask(replace(created, items=items), Claim(1), handles=True)
    play.act()
    made = [event for event in play.events if isinstance(event, ev.MapCreated)]
    assert [[item.name for item in event.items] for event in made] == [["a", "b"], ["c"]]
    assert [run.generation for run in play.runs.values()] == [1, 1, 1]
    assert set(play.out) == {("b", 1), ("c", 1)}


def test_what_is_doomed_does_not_go_because_of_what_is_freed() -> None:
    """A failure that lets one upstream go, and takes the other with it, takes their consumer too."""
    play = quiet(follows=True)
    play.ask(task("x"))
    play.ask(task("doomed", Upstream("x")))
    play.ask(task("freed", Upstream("x", Need.ALLOW)))
    play.ask(task("both", Upstream("doomed"), Upstream("freed")))
    play.report(("x", 1), ev.AttemptRaised, started_at=1.0, seconds=0.0, error=ERROR)
    assert play.runs["both"].state_name == "UpstreamFailed"
    assert play.runs["both"].dispatch == 0
    assert ("freed", 1) in play.out
    assert_sound(play)


def test_what_may_fail_is_waited_for() -> None:
    """``allow_failure`` waits for the end, also at a runner that follows, and does not mind a lost value."""
    play = quiet(follows=True)
    play.ask(task("a"))
    play.ask(task("b", Upstream("a", Need.ALLOW)))
    assert list(play.out) == [("a", 1)]
    succeed(play, "a")
    assert list(play.out) == [("b", 1)]
    play.report(("a", 1), ev.ResultLost)
    play.report(("b", 1), ev.DispatchVoided, cause=Cause.UPSTREAM)
    assert list(play.out) == [("b", 2)]
