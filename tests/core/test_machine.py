"""The transition table of task runs: each row fires where it should, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.codec import KINDS
from dflow.core.machine import ROWS, TABLE, Row, create, step
from dflow.core.records import Cause, Ending, Held, Policy, Stage, TaskRun
from tests.core.simulated_runner import ERROR, STORED

EVENTS = [
    cls for cls in KINDS.values() if issubclass(cls, ev.TaskEvent) and cls is not ev.TaskCreated
]


def example(kind: type[ev.TaskEvent], run: TaskRun, **more: object) -> ev.TaskEvent:
    """Return an event of a kind that fits a task run as it is now, but for the fields given."""
    given: dict[str, object] = {"at": run.changed_at + 1.0, "task_run_id": run.id}
    if issubclass(kind, ev.Report):
        given["dispatch"] = run.dispatch
    if issubclass(kind, ev.Outcome):
        given |= {"started_at": run.changed_at, "seconds": 1.0}
    if kind in (ev.AttemptRaised, ev.AttemptTimedOut):
        given["error"] = ERROR
    fields: dict[type[ev.TaskEvent], dict[str, object]] = {
        ev.DispatchVoided: {"cause": Cause.UPSTREAM},
        ev.RetryDue: {"generation": run.generation, "attempt": len(run.attempts_now)},
        ev.UpstreamFailed: {"cause_id": "u", "chain": "t ← u"},
        ev.UpstreamLost: {"cause_id": "u", "message": "gone"},
        ev.StateReturned: {"state_name": "Failed"},
        ev.TaskRunNamed: {"name": "another"},
        ev.Reused: {"generation": run.reused + 1},
        ev.Reopened: {"generation": run.generation + 1, "policy": run.policy},
    }
    return kind(**(given | fields.get(kind, {}) | more))  # type: ignore[arg-type]  # the fields of `kind`


def lived(policy: Policy, *kinds: type[ev.TaskEvent]) -> TaskRun:
    """Return a task run after these events, each of which must be admitted."""
    run, _ = create(
        ev.TaskCreated(
            at=1.0,
            task_run_id="t",
            flow_run_id="f",
            parent_id="f",
            task_name="t",
            name="t",
            policy=policy,
        )
    )
    for kind in kinds:
        after, _ = step(run, example(kind, run))
        assert after is not run
        run = after
    return run


DISPATCHED = (ev.UpstreamsMet,)
RUNNING = (*DISPATCHED, ev.AttemptStarted)
LIVES: dict[Stage, tuple[type[ev.TaskEvent], ...]] = {
    Stage.WAITING: (),
    Stage.DISPATCHED: DISPATCHED,
    Stage.RUNNING: RUNNING,
    Stage.AWAITING_RETRY: (*RUNNING, ev.AttemptRaised),
    Stage.PAUSED: (ev.PauseRequested,),
    Stage.CANCELLING: (*DISPATCHED, ev.CancelRequested),
    Stage.COMPLETED: (*RUNNING, ev.AttemptSucceeded),
    Stage.FAILED: (ev.UpstreamFailed,),
    Stage.CRASHED: (*RUNNING, ev.WorkerLost),
    Stage.CANCELLED: (ev.CancelRequested,),
}
"""A short life that leads into each stage."""

TRIED = (*RUNNING, ev.DispatchVoided)
"""The life of a task run that waits again, after an attempt."""


def at(stage: Stage, policy: Policy | None = None) -> TaskRun:
    """Return a task run in a stage."""
    budgets = {
        Stage.AWAITING_RETRY: Policy(retries=1),
        Stage.CRASHED: Policy(max_worker_losses=0),
    }
    return lived(policy or budgets.get(stage, Policy()), *LIVES[stage])


def scene(row: Row) -> tuple[TaskRun, ev.TaskEvent]:
    """Return a task run and an event for which this row of the table, and none before it, holds."""
    if row.guard is machine.value_lost:
        run = lived(Policy(), *LIVES[Stage.COMPLETED], ev.ResultLost)
    elif row.effect is machine.upstream_gone:
        run = lived(Policy(), *TRIED)
    elif row.effect is machine.retry_later:
        run = at(row.stage, Policy(retries=1, retry_delays=(3.0,)))
    elif row.effect is machine.crash:
        run = at(row.stage, Policy(max_worker_losses=0))
    else:
        run = at(row.stage)
    free: dict[str, object] = {}
    if row.guard is machine.free_loss:
        free = {"cause": Cause.SCALED_DOWN}
    elif row.effect is machine.end_as_returned:
        free = {"state_name": row.target.capitalize()}
    return run, example(row.event, run, **free)


def name(row: Row) -> str:
    """Return the name of a row."""
    return f"{row.stage}-{row.event.__name__}-{row.target}-{row.guard.__name__}"


each_row = pytest.mark.parametrize("row", ROWS, ids=name)


def refused(run: TaskRun, event: ev.TaskEvent) -> bool:
    """Tell whether the very same record comes back, and nothing is to be done."""
    after, orders = step(run, event)
    return after is run and orders == ()


@each_row
def test_a_row_fires(row: Row) -> None:
    """Each row is reached by a life of events, lands where it says and has its own effect."""
    run, event = scene(row)
    changes, orders = row.effect(run, event)
    expected = replace(run, stage=row.target, changed_at=event.at, **changes)
    assert step(run, event) == (expected, orders)


TAKES_OUT = {
    Stage.WAITING: do.Consider,
    Stage.DISPATCHED: do.Dispatch,
    Stage.AWAITING_RETRY: do.SetTimer,
}
STAYS = (ev.TaskRunNamed,)
"""What changes a task run where it is: it neither enters a stage nor leaves one."""


@each_row
def test_a_stage_is_never_left_to_itself(row: Row) -> None:
    """Who enters a stage is told, in commands, what leads out of it; who ends is settled, once."""
    run, event = scene(row)
    _, orders = step(run, event)
    kinds = [type(order) for order in orders]
    assert kinds.count(do.Settle) == (row.target.final and not row.stage.final)
    if row.event in STAYS:
        assert (row.target, kinds) == (row.stage, [])
    elif row.target in TAKES_OUT:
        assert TAKES_OUT[row.target] in kinds
    if row.target is Stage.CANCELLING:
        assert kinds in ([do.Withdraw], [do.Stop])


@pytest.mark.parametrize("stage", Stage)
def test_what_the_table_does_not_name_is_refused(stage: Stage) -> None:
    """Every pair of stage and event that has no row leaves the record as it is."""
    run = at(stage)
    others = [kind for kind in EVENTS if (stage, kind) not in TABLE]
    assert others
    assert [kind for kind in others if not refused(run, example(kind, run))] == []


Case = tuple[Row, TaskRun, ev.TaskEvent]


def stale() -> Iterator[Case]:
    """Yield reports of other dispatches, old generations, timers of other attempts, and no news at all.

    And states by hand that do not end a task run, or that an attempt that succeeded speaks of.
    """
    for row in ROWS:
        run, event = scene(row)
        if isinstance(event, ev.Report):
            yield row, run, replace(event, dispatch=run.dispatch - 1)
            yield row, run, replace(event, dispatch=run.dispatch + 1)
        if row.event is ev.Reopened:
            yield row, run, example(ev.Reopened, run, generation=run.generation)
            yield row, run, example(ev.Reopened, run, generation=run.generation - 1)
        if row.event is ev.Reused:
            yield row, run, example(ev.Reused, run, generation=run.reused)
        if row.guard is machine.timer_fits:
            yield row, run, example(ev.RetryDue, run, attempt=2)
            yield row, run, example(ev.RetryDue, run, attempt=0)
            yield row, run, example(ev.RetryDue, run, generation=2)
        if row.guard is machine.other_name:
            yield row, run, example(ev.TaskRunNamed, run, name=run.name)
        if row.event is ev.StateReturned and row.effect is machine.end_as_returned:
            for state_name in ("Completed", "Running", "Paused", "Nonsense"):
                yield row, run, example(ev.StateReturned, run, state_name=state_name)


def unfit() -> Iterator[Case]:
    """Yield events that come in order, to records whose past forbids them."""
    running = at(Stage.RUNNING)
    kept, _ = step(running, example(ev.AttemptSucceeded, running, held=Held.JOURNAL))
    stored, _ = step(
        running, example(ev.AttemptSucceeded, running, held=Held.STORED, stored=STORED)
    )
    at_runner = at(Stage.COMPLETED)
    lost = lived(Policy(), *LIVES[Stage.COMPLETED], ev.ResultLost)
    outdated, _ = step(kept, example(ev.Outdated, kept))
    tried = [
        lived(Policy(), *TRIED),
        lived(Policy(), *TRIED, ev.UpstreamsMet),
        lived(Policy(), *TRIED, ev.PauseRequested),
    ]
    records = {
        machine.value_held: [kept, stored, lost],
        machine.value_lost: [kept, stored, at_runner],
        machine.value_unwanted: [kept, stored],
        machine.value_given: [outdated],
        machine.later_use: [outdated],
        machine.late_start: [lived(Policy(), *RUNNING, ev.CancelRequested)],
        machine.untried: tried,
    }
    for row in ROWS:
        alone = len(TABLE[row.stage, row.event]) == 1
        for run in records.get(row.guard, []):
            if alone and run.stage is row.stage:
                yield row, run, example(row.event, run)


FORBIDDEN = [*stale(), *unfit()]


@pytest.mark.parametrize(
    ("row", "run", "event"), [pytest.param(*case, id=name(case[0])) for case in FORBIDDEN]
)
def test_what_a_guard_forbids_is_refused(row: Row, run: TaskRun, event: ev.TaskEvent) -> None:
    """Stale reports, old generations, other timers, lost values and names it has change nothing."""
    assert run.stage is row.stage
    assert refused(run, event)


def test_every_guard_was_seen_to_refuse() -> None:
    """Every row that has a condition, and no second row behind it, is among those that refused."""
    refusing = {name(row) for row, _, _ in FORBIDDEN}
    others = [row for row in ROWS if name(row) not in refusing and row.guard is not machine.always]
    assert [name(row) for row in others if len(TABLE[row.stage, row.event]) == 1] == []


@pytest.mark.parametrize("row", [r for r in ROWS if issubclass(r.event, ev.Report)], ids=name)
def test_a_report_twice_is_a_report_once(row: Row) -> None:
    """A report that comes a second time is refused."""
    run, event = scene(row)
    once, _ = step(run, event)
    assert refused(once, event)


def test_a_generation_twice_is_a_generation_once() -> None:
    """To be asked for twice in a generation begins it once."""
    run = at(Stage.FAILED)
    event = example(ev.Reopened, run)
    assert refused(step(run, event)[0], event)


# What the effects say --------------------------------------------------------------------------------


def test_attempts_are_counted_in_their_generation() -> None:
    """Numbers go on within a generation, begin again with the next, and dispatches always go on."""
    run = lived(
        Policy(retries=1), *RUNNING, ev.AttemptRaised, ev.RetryDue, *DISPATCHED, ev.AttemptRaised,
        ev.Reopened, *DISPATCHED, ev.AttemptSucceeded,
    )  # fmt: skip
    assert [(a.generation, a.number, a.dispatch) for a in run.attempts] == [
        (1, 1, 1),
        (1, 2, 2),
        (2, 1, 3),
    ]
    assert [a.ending for a in run.attempts_now] == [Ending.SUCCEEDED]
    assert (run.raised, run.error) == (0, None)


def test_a_retry_waits_for_its_delay() -> None:
    """The timer is set from the time of the failure, with the delay that luck chose."""
    policy = Policy(retries=2, retry_delays=(10.0,), jitter=0.5)
    run = at(Stage.RUNNING, policy)
    event = example(ev.AttemptRaised, run, luck=0.0)
    after, orders = step(run, event)
    assert orders == (do.SetTimer("t", event.at + 5.0, 1, 1),)
    assert (after.state_name, after.due) == ("AwaitingRetry", event.at + 5.0)


def test_a_retry_without_delay_says_so() -> None:
    """A retry that need not wait is Retrying, not AwaitingRetry."""
    assert at(Stage.AWAITING_RETRY).state_name == "Retrying"


def test_a_condition_that_refuses_ends_it() -> None:
    """A failure that is not to be retried is final, with retries left."""
    run = at(Stage.RUNNING, Policy(retries=5))
    assert step(run, example(ev.AttemptRaised, run, retriable=False))[0].stage is Stage.FAILED


def test_a_suspect_must_confirm_its_start() -> None:
    """After its worker died with nothing heard, its starts are confirmed."""
    run = lived(Policy(), *DISPATCHED, ev.WorkerLost)
    assert (run.suspect, run.losses, run.attempts) == (True, 0, ())
    run, orders = step(run, example(ev.UpstreamsMet, run))
    assert orders == (do.Dispatch("t", 2, 1, 1, confirm_start=True),)
    run = step(run, example(ev.AttemptStarted, run))[0]
    assert run.suspect  # its next starts are confirmed too: each further death is heard of


def test_a_planned_loss_makes_no_suspect() -> None:
    """Work that waited on a worker that was taken away is no suspect."""
    run = at(Stage.DISPATCHED)
    event = example(ev.WorkerLost, run, cause=Cause.SCALED_DOWN)
    assert not step(run, event)[0].suspect


def test_losses_have_a_budget_of_their_own() -> None:
    """Deaths are charged to started bodies only, and the one beyond the budget is a crash."""
    run = lived(Policy(max_worker_losses=1), *RUNNING, ev.WorkerLost, *DISPATCHED, ev.WorkerLost)
    assert (run.stage, run.losses, run.raised) == (Stage.WAITING, 1, 0)
    run = lived(Policy(max_worker_losses=1), *RUNNING, ev.WorkerLost, *RUNNING, ev.WorkerLost)
    assert (run.stage, run.losses) == (Stage.CRASHED, 2)


def test_what_is_cut_short_keeps_what_it_spent() -> None:
    """A driver that died costs nothing and gives nothing: budgets and retry times go on."""
    policy = Policy(retries=2, retry_delays=(60.0,))
    run = lived(policy, *RUNNING, ev.AttemptRaised)
    event = example(ev.Reopened, run)
    after, orders = step(run, event)
    assert orders == (do.SetTimer("t", run.due or 0.0, 2, 0),)
    assert (after.stage, after.raised, after.due) == (Stage.AWAITING_RETRY, 1, run.due)
    running = at(Stage.RUNNING)
    taken_up, _ = step(running, example(ev.Reopened, running))
    assert taken_up.attempts[0].cause is Cause.DRIVER_LOST
    assert taken_up.losses == 0


@pytest.mark.parametrize("stage", [Stage.DISPATCHED, Stage.RUNNING])
@pytest.mark.parametrize("state_name", ["Failed", "TimedOut", "Crashed", "Cancelled"])
def test_a_state_made_by_hand_is_the_end(stage: Stage, state_name: str) -> None:
    """It is final with retries left, spends none of them, and keeps its name, message and error."""
    run = at(stage, Policy(retries=5))
    event = example(ev.StateReturned, run, state_name=state_name, message="why", error=ERROR)
    after, orders = step(run, event)
    assert (after.state_name, after.message, after.error) == (state_name, "why", ERROR)
    assert (after.raised, after.losses) == (0, 0)
    assert [(a.ending, a.error) for a in after.attempts] == [(Ending.RETURNED, ERROR)]
    assert orders == (do.Settle("t"),)


def test_a_state_made_by_hand_does_not_undo_a_cancel() -> None:
    """What was asked to end is cancelled; what its body returned is kept with the attempt."""
    run = lived(Policy(), *RUNNING, ev.CancelRequested)
    after, _ = step(run, example(ev.StateReturned, run, state_name="Crashed", error=ERROR))
    assert (after.stage, after.state_name) == (Stage.CANCELLED, "Cancelled")
    assert [(a.ending, a.error) for a in after.attempts] == [(Ending.RETURNED, ERROR)]


def test_a_completed_state_made_by_hand_has_its_message() -> None:
    """The message of a state that completes is shown, and the next generation forgets it."""
    run = at(Stage.RUNNING)
    after, _ = step(run, example(ev.AttemptSucceeded, run, message="best of three"))
    assert (after.state_name, after.message) == ("Completed", "best of three")
    assert step(after, example(ev.Reopened, after))[0].message == ""


def test_a_start_has_its_deadline() -> None:
    """Each attempt of a task run that may take so long gets a deadline of its own dispatch."""
    policy = Policy(retries=1, timeout=30.0)
    run = at(Stage.DISPATCHED, policy)
    assert step(run, example(ev.AttemptStarted, run))[1] == (do.SetDeadline("t", 1, 30.0),)
    again = lived(policy, *RUNNING, ev.AttemptTimedOut, ev.RetryDue, *DISPATCHED)
    assert step(again, example(ev.AttemptStarted, again))[1] == (do.SetDeadline("t", 2, 30.0),)
    without = at(Stage.DISPATCHED)
    assert step(without, example(ev.AttemptStarted, without))[1] == ()


def test_a_deadline_is_of_one_attempt() -> None:
    """The deadline of an attempt that has ended changes nothing for the next one."""
    run = lived(Policy(retries=1, timeout=30.0), *RUNNING)
    missed = example(ev.AttemptTimedOut, run)
    again = lived(
        Policy(retries=1, timeout=30.0), *RUNNING, ev.AttemptRaised, ev.RetryDue, *RUNNING
    )
    assert step(run, missed)[0].stage is Stage.AWAITING_RETRY
    assert refused(again, missed)


@pytest.mark.parametrize("stage", [Stage.DISPATCHED, Stage.RUNNING])
def test_a_new_name_is_all_that_changes(stage: Stage) -> None:
    """Renaming keeps the stage, the state and the attempts."""
    run = at(stage)
    event = example(ev.TaskRunNamed, run, name="train-3")
    assert step(run, event) == (replace(run, name="train-3", changed_at=event.at), ())


def test_tags_are_kept() -> None:
    """The tags that a task run, or a map, was created with are those of its records."""
    item = ev.MapItem("t[0]", "t[0]")
    made = ev.MapCreated(
        at=1.0, flow_run_id="f", parent_id="f", task_name="t", items=(item,), tags=("gpu", "x")
    )
    [created] = machine.unfold(made)
    assert create(created)[0].tags == ("gpu", "x")


def test_a_late_start_is_recorded_and_stopped() -> None:
    """A body that starts after it was cancelled has an attempt, and is asked to stop."""
    run = at(Stage.CANCELLING)
    after, orders = step(run, example(ev.AttemptStarted, run))
    assert after.open_attempt is not None
    assert orders == (do.Stop("t", run.dispatch),)


def test_an_outcome_opens_its_attempt() -> None:
    """An attempt whose start was not reported has the times and the worker of its outcome."""
    run = at(Stage.DISPATCHED)
    event = example(ev.AttemptSucceeded, run, at=9.0, started_at=7.0, worker="w")
    attempt = step(run, event)[0].attempts[0]
    assert (attempt.started_at, attempt.ended_at, attempt.worker) == (7.0, 9.0, "w")


def test_clocks_may_go_back() -> None:
    """News from an earlier clock gives no negative durations, and nothing changes in the past."""
    run = at(Stage.RUNNING)
    after, _ = step(run, example(ev.WorkerLost, run, at=-86_400.0))
    assert after.attempts[0].ended_at == after.attempts[0].started_at
    assert after.changed_at == run.changed_at


def test_a_cache_hit_forgets_the_error() -> None:
    """A value from the cache completes a run whose earlier attempt had failed."""
    run = lived(
        Policy(retries=1), *RUNNING, ev.AttemptRaised, ev.PauseRequested, ev.Reopened, ev.CacheHit
    )
    assert (run.state_name, run.error, run.attempts_now) == ("Cached", None, ())


def test_a_stored_value_is_lost_with_its_file() -> None:
    """What happens at the runner does not touch it; a value at the runner does not go with a file."""
    running = at(Stage.RUNNING)
    stored, _ = step(
        running, example(ev.AttemptSucceeded, running, held=Held.STORED, stored=STORED)
    )
    assert step(stored, example(ev.ResultLost, stored))[0] is stored
    lost, orders = step(stored, example(ev.ResultLost, stored, stored=True))
    assert (lost.held, lost.stored, lost.stage, orders) == (Held.LOST, None, Stage.COMPLETED, ())
    at_runner = at(Stage.COMPLETED)
    assert step(at_runner, example(ev.ResultLost, at_runner, stored=True))[0] is at_runner
