"""What becomes of dispatches that fail, are lost, come back or are reported wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from dflow import task
from dflow.core import events as ev
from dflow.core.records import Cause, Ending
from dflow.errors import CrashedError
from dflow.messages import StartConfirmed
from dflow.testing import START, FakeClock, ScriptedRunner
from tests.engine.world import World, start

pytestmark = pytest.mark.usefixtures("world")


@task
def work(x: int = 0) -> int:
    """Never run: the test says what becomes of it."""
    return x


def one(**options: Any) -> Callable[[], Any]:
    """Return the body of a flow that waits for one task run."""
    return lambda: work.with_options(**options).submit().result()


def test_a_retry_goes_out_when_its_time_has_come(world: World, runner: ScriptedRunner) -> None:
    """Not before, and not twice; nothing is with the runner meanwhile."""
    flow = start(one(retries=2, retry_delay_seconds=[10, 60]), runner)
    runner.fail(runner.expect(1)[0], ValueError("first"))
    world.settle()
    assert world.states() == {"work-0": "AwaitingRetry"}
    world.clock.advance(9.9)
    world.settle()
    assert len(runner.works) == 1
    world.clock.advance(0.1)
    second = runner.expect(2)[1]
    assert (second.info.attempt, second.info.dispatch) == (2, 2)
    runner.fail(second, ValueError("second"), at=world.clock.now())
    world.clock.advance(59)
    world.settle()
    assert len(runner.works) == 2
    world.clock.advance(1)
    runner.succeed(runner.expect(3)[2], 7, at=world.clock.now())
    assert flow.result() == 7
    attempts = world.task_runs()["work-0"].attempts
    assert [attempt.ending for attempt in attempts] == [
        Ending.RAISED,
        Ending.RAISED,
        Ending.SUCCEEDED,
    ]


def test_lost_attempts_are_announced(
    runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt that a lost worker costs has its line; a start that was not heard of is no attempt."""
    flow = start(one(max_worker_losses=2), runner)
    runner.lose(runner.expect(1)[0])
    died = runner.expect(2)[1]
    runner.start(died)
    runner.lose(died)
    planned = runner.expect(3)[2]
    runner.start(planned)
    runner.lose(planned, Cause.SCALED_DOWN)
    runner.succeed(runner.expect(4)[3], 7)
    assert flow.result() == 7
    lost = [line for line in caplog.messages if line.startswith("LOST")]
    assert len(lost) == 2
    assert lost[0].startswith("LOST    work-0 | ")
    assert lost[0].endswith("; it runs again (loss 1 of 2)")
    assert lost[1].endswith("; it runs again")


def test_the_last_loss_is_announced_as_a_crash(
    world: World, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing runs again then, and nothing says so."""
    flow = start(one(max_worker_losses=0), runner)
    runner.start(runner.expect(1)[0])
    runner.lose(runner.works[0])
    with pytest.raises(CrashedError):
        flow.result()
    assert [line for line in caplog.messages if line.startswith("LOST")] == []
    assert [line for line in caplog.messages if line.startswith("CRASHED work-0")] != []
    assert world.states() == {"work-0": "Crashed"}


def test_a_retry_without_delay_goes_at_once(world: World, runner: ScriptedRunner) -> None:
    """Its state in between says so, and no clock has to move."""
    flow = start(one(retries=1), runner)
    runner.fail(runner.expect(1)[0], ValueError())
    runner.succeed(runner.expect(2)[1], 1)
    assert flow.result() == 1
    assert len(world.events(ev.RetryDue)) == 1


@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_each_retry_is_shown_once(
    world: World, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture, delay: float
) -> None:
    """With which attempt failed, why, and when the next one goes: at once, or later."""
    flow = start(one(retries=2, retry_delay_seconds=delay), runner)
    for number in (1, 2):
        runner.fail(runner.expect(number)[-1], ValueError(f"failure {number}"))
        world.settle()
        world.clock.advance(delay)
    runner.succeed(runner.expect(3)[-1], 1)
    assert flow.result() == 1
    assert [line for line in caplog.messages if line.startswith("RETRY")] == [
        f"RETRY   work-0 | attempt {number} of 3 failed: ValueError: failure {number}; next in {delay:.1f} s"
        for number in (1, 2)
    ]


def test_retries_are_counted(world: World, runner: ScriptedRunner) -> None:
    """After the last one the exception itself is raised, and the run has failed."""
    flow = start(one(retries=1), runner)
    for number in (1, 2):
        runner.fail(runner.expect(number)[-1], ValueError(f"attempt {number}"))
    with pytest.raises(ValueError, match="attempt 2"):
        flow.result()
    assert world.states() == {"work-0": "Failed"}


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_jump_of_the_clock_loses_no_retry(
    world: World, runner: ScriptedRunner, jump: float
) -> None:
    """The time of day may be put right by a day: the wait is as long as it was to be, and happens once."""
    flow = start(one(retries=1, retry_delay_seconds=10), runner)
    runner.fail(runner.expect(1)[0], ValueError())
    world.settle()
    world.clock.jump(jump)
    world.clock.advance(9)
    world.settle()
    assert len(runner.works) == 1
    world.clock.advance(1)
    runner.succeed(runner.expect(2)[1], 1, at=world.clock.now())
    assert flow.result() == 1


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_worker_whose_clock_is_off_delays_nothing(
    world: World, runner: ScriptedRunner, hours: int
) -> None:
    """The wait is that of the policy, by the driver's clock."""
    flow = start(one(retries=1, retry_delay_seconds=10), runner)
    runner.fail(runner.expect(1)[0], ValueError(), at=START + 3600 * hours)
    world.settle()
    world.clock.advance(9)
    world.settle()
    assert len(runner.works) == 1
    world.clock.advance(1)
    runner.succeed(runner.expect(2)[1], 1)
    assert flow.result() == 1


def test_a_loss_before_the_start_costs_nothing(world: World, runner: ScriptedRunner) -> None:
    """Work that only waited on a dying worker goes again; whoever may have killed it has to confirm."""
    flow = start(one(max_worker_losses=0), runner)
    for number in range(1, 5):
        runner.lose(runner.expect(number)[-1])
    last = runner.expect(5)[-1]
    assert [w.info.confirm_start for w in runner.works] == [False, True, True, True, True]
    runner.start(last)
    world.settle()
    assert runner.told == [(last.info.key, StartConfirmed(last.info.key))]
    runner.succeed(last, 1)
    assert flow.result() == 1
    assert world.task_runs()["work-0"].losses == 0


def test_a_loss_after_the_start_is_charged(world: World, runner: ScriptedRunner) -> None:
    """With the budget spent it has crashed, which is told apart from a failure, and no retry is used."""
    flow = start(one(max_worker_losses=1, retries=5), runner)
    for number in (1, 2):
        latest = runner.expect(number)[-1]
        runner.start(latest)
        runner.lose(latest)
    with pytest.raises(CrashedError, match=r"'work-0' has ended as Crashed. 2 workers died"):
        flow.result()
    run = world.task_runs()["work-0"]
    assert (run.state_name, run.losses, run.raised) == ("Crashed", 2, 0)


@pytest.mark.parametrize("cause", [Cause.SCALED_DOWN, Cause.SCHEDULER_LOST, Cause.DRIVER_LOST])
def test_losses_that_are_nobodys_fault_are_free(runner: ScriptedRunner, cause: Cause) -> None:
    """Planned scale-down and lost schedulers cost nothing, started or not."""
    flow = start(one(max_worker_losses=0), runner)
    for number in range(1, 4):
        latest = runner.expect(number)[-1]
        runner.start(latest)
        runner.lose(latest, cause)
    runner.succeed(runner.expect(4)[-1], 1)
    assert flow.result() == 1
    assert not runner.works[-1].info.confirm_start


def test_a_void_dispatch_goes_again(runner: ScriptedRunner) -> None:
    """Without charge, under a number of its own, as the same attempt."""
    flow = start(one(), runner)
    runner.void(runner.expect(1)[0])
    again = runner.expect(2)[1]
    assert (again.info.dispatch, again.info.attempt) == (2, 1)
    runner.succeed(again, 1)
    assert flow.result() == 1


def test_news_that_is_doubled_late_or_stale_changes_nothing(
    world: World, runner: ScriptedRunner
) -> None:
    """The first outcome of an attempt is its only one, and an old dispatch has no say."""
    flow = start(lambda: [work.submit(n).result() for n in (1, 2)], runner)
    old = runner.expect(1)[0]
    runner.void(old)
    present = runner.expect(2)[1]
    runner.succeed(old, "stale")
    runner.fail(old, ValueError("stale"))
    runner.lose(old)
    world.settle()
    assert world.states() == {"work-0": "Pending"}
    runner.start(present)
    runner.start(present)
    runner.succeed(present, "right")
    other = runner.expect(3)[2]
    world.settle()  # a first dispatch may be out before its record
    before = len(list(world.reader().events()))
    runner.succeed(present, "doubled")
    runner.fail(present, ValueError("late"))
    runner.lose(present)
    runner.start(present)
    world.settle()
    assert len(list(world.reader().events())) == before
    runner.succeed(other, 2)
    assert flow.result() == ["right", 2]


def test_an_outcome_without_a_start_opens_the_attempt(world: World, runner: ScriptedRunner) -> None:
    """News of a start may be lost: the outcome tells it all."""
    flow = start(one(), runner)
    runner.succeed(runner.expect(1)[0], 1, at=START + 5)
    flow.result()
    (attempt,) = world.task_runs()["work-0"].attempts
    assert (attempt.ending, attempt.started_at) == (Ending.SUCCEEDED, START + 5)


def test_what_cannot_be_handed_over_fails_once(world: World) -> None:
    """A runner that refuses a dispatch fails it, with the very exception, and without a retry."""

    class Refusing(ScriptedRunner):
        def dispatch(self, _: object) -> None:
            raise error

    error = OSError("no room")
    flow = start(one(retries=3), Refusing())
    with pytest.raises(OSError, match="no room") as caught:
        flow.result()
    assert caught.value is error
    assert world.task_runs()["work-0"].raised == 1


def test_a_report_of_an_unknown_run_is_harmless(runner: ScriptedRunner) -> None:
    """News of a task run that this driver never made is passed over."""
    flow = start(one(), runner)
    mine = runner.expect(1)[0]
    runner.succeed(replace(mine, info=replace(mine.info, task_run_id="unknown")), 0)
    runner.succeed(mine, 1)
    assert flow.result() == 1


def test_the_clock_of_a_test_stands_still() -> None:
    """A fake clock moves only when it is told to; a jump does not touch its monotonic time."""
    clock = FakeClock()
    clock.advance(5)
    clock.jump(-100)
    assert (clock.now(), clock.monotonic()) == (START - 95, 5.0)
