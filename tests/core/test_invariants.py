"""Each invariant holds its peace over what is right, and speaks up about what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import event_invariants, invariants, machine, record_invariants
from dflow.core import events as ev
from dflow.core.history import FlowChange, TaskChange, unroll
from dflow.core.records import (
    Attempt,
    Ending,
    ErrorInfo,
    FlowRun,
    FlowStage,
    Held,
    Need,
    Policy,
    Stage,
    TaskRun,
    Upstream,
)
from dflow.core.replay import Table, replay
from tests.core.playing import play

RUN = TaskRun(
    id="t", flow_run_id="f", parent_id="f", task_name="t", name="t", created_at=1.0, changed_at=2.0
)
FLOW = FlowRun(id="f", root_id="f", parent_id=None, flow_name="f", name="f", created_at=0.0)
OPEN = Attempt(1, 1, 1, 1.0)
WON = replace(OPEN, ending=Ending.SUCCEEDED, ended_at=2.0, seconds=1.0)
LOST = replace(WON, ending=Ending.LOST)
DONE = replace(RUN, stage=Stage.COMPLETED, state_name="Completed", attempts=(WON,), dispatch=1)
CACHED = replace(DONE, state_name="Cached", attempts=(), dispatch=0)
RUNNING = replace(RUN, stage=Stage.RUNNING, state_name="Running", attempts=(OPEN,), dispatch=1)
FAILED = replace(RUN, stage=Stage.FAILED, state_name="Failed", raised=1)
SKIPPED = replace(FAILED, state_name="UpstreamFailed", raised=0)
CANCELLING = replace(RUN, stage=Stage.CANCELLING, state_name="Cancelling", dispatch=1)
CRASHED = replace(RUN, stage=Stage.CRASHED, state_name="Crashed", losses=4)

BY_HAND = replace(LOST, ending=Ending.RETURNED)
RETURNED = replace(FAILED, raised=0, attempts=(BY_HAND,), dispatch=1)
CANCELLED = replace(RETURNED, stage=Stage.CANCELLED, state_name="Cancelled")

ERROR = ErrorInfo("ValueError", "no")
MET = ev.UpstreamsMet(at=3.0, task_run_id="t")
STARTED = ev.AttemptStarted(at=3.0, task_run_id="t", dispatch=1)
WORKER_LOST = ev.WorkerLost(at=3.0, task_run_id="t", dispatch=1)
RAISED = ev.AttemptRaised(
    at=3.0, task_run_id="t", dispatch=1, started_at=2.0, seconds=1.0, error=ERROR
)
REFUSED = replace(RAISED, retriable=False)
UPSTREAM_FAILED = ev.UpstreamFailed(at=3.0, task_run_id="t", cause_id="u", chain="t ← u")
CANCEL = ev.CancelRequested(at=3.0, task_run_id="t")
FLOW_CANCEL = ev.FlowCancelRequested(at=3.0, flow_run_id="f")
STATE_RETURNED = ev.StateReturned(
    at=3.0, task_run_id="t", dispatch=1, started_at=2.0, seconds=1.0, state_name="Failed"
)
NAMED = ev.TaskRunNamed(at=3.0, task_run_id="t", name="n")
REOPENED = ev.Reopened(at=3.0, task_run_id="t", generation=2)
DISPATCH = (do.Dispatch("t", 1, 1, 1),)
RETRYING = replace(RUN, stage=Stage.AWAITING_RETRY, state_name="Retrying", raised=1, due=9.0)


def change(
    event: ev.Event, before: TaskRun | None, after: TaskRun, orders: tuple[do.Command, ...] = ()
) -> TaskChange:
    """Return a change, as event 7 of its history."""
    return TaskChange(7, event, before, after, orders)


@pytest.mark.parametrize("seed", range(20))
def test_a_right_history_is_right(seed: int) -> None:
    """A history of the machines as they are breaks nothing, nor does any beginning of it."""
    driver = play(seed, machine.TABLE)
    assert driver.broken() == []
    for end in range(0, len(driver.history), 25):
        assert invariants.check(driver.history[:end]) == []


def test_numbers_without_gaps() -> None:
    """Numbers begin at 1 and go one by one; each gap is named once."""
    rows = [(1, "a"), (2, "b"), (4, "d"), (5, "e"), (5, "e")]
    assert invariants.numbers_without_gaps([]) == []
    assert invariants.numbers_without_gaps(rows[:2]) == []
    assert invariants.numbers_without_gaps(rows) == [
        "Event 4 stands where event 3 is due.",
        "Event 5 stands where event 6 is due.",
    ]
    assert invariants.numbers_without_gaps(rows[1:2]) == ["Event 2 stands where event 1 is due."]


def test_unknown_runs_are_named() -> None:
    """An event of a run that was not created before it is named."""
    assert event_invariants.speaks_of_known_runs([MET, FLOW_CANCEL]) == [
        "Event 1 speaks of the unknown task run 't'.",
        "Event 2 speaks of the unknown flow run 'f'.",
    ]


def created() -> list[ev.Event]:
    """Return the beginning of a history: the flow run and the task run."""
    flow = ev.FlowRunCreated(
        at=0.0, flow_run_id="f", root_id="f", parent_id=None, flow_name="f", name="f"
    )
    task = ev.TaskCreated(
        at=1.0, task_run_id="t", flow_run_id="f", parent_id="f", task_name="t", name="t"
    )
    return [flow, task]


def test_what_is_refused_is_named() -> None:
    """An event that changes nothing where it stands was never recorded there."""
    assert invariants.check([*created(), MET, STARTED]) == []
    assert invariants.check([*created(), STARTED, MET, MET]) == [
        "Event 3 (AttemptStarted) is refused where it stands.",
        "Event 5 (UpstreamsMet) is refused where it stands.",
    ]


def test_what_counts_twice_is_named() -> None:
    """An event that changes something again when it is applied once more is named."""
    again = machine.Row(
        Stage.CANCELLING, ev.CancelRequested, machine.always, Stage.CANCELLING, machine.stop
    )
    events = [*created(), MET, STARTED, CANCEL]
    assert event_invariants.twice_is_once(events) == []
    assert event_invariants.twice_is_once(events, machine.tabulate((*machine.ROWS, again))) == [
        "Event 5 (CancelRequested) changes 't' a second time."
    ]


def test_each_state_on_the_way_is_looked_at() -> None:
    """A record that was wrong for a while is named, though its end is right."""
    wrong = machine.Row(
        Stage.DISPATCHED,
        ev.AttemptStarted,
        machine.current,
        Stage.RUNNING,
        lambda run, event: (machine.start(run, event)[0] | {"state_name": "Completed"}, ()),
    )
    rows = [r for r in machine.ROWS if (r.stage, r.event) != (wrong.stage, wrong.event)]
    won = ev.AttemptSucceeded(
        at=4.0, task_run_id="t", dispatch=1, started_at=3.0, seconds=1.0, held=Held.RUNNER
    )
    broken = invariants.check(
        [*created(), MET, STARTED, won], None, machine.tabulate([*rows, wrong])
    )
    assert broken == ["Run 't' is running and shows the state 'Completed'."]


def test_states_add_up() -> None:
    """Task runs without a record, and records without a creation, are named."""
    created = [
        ev.MapCreated(
            at=1.0, flow_run_id="f", parent_id="f", task_name="t", items=(ev.MapItem("a", "a"),)
        )
    ]
    table = Table()
    table.task_runs["t"] = RUN
    assert event_invariants.states_add_up(created, replay(created)) == []
    assert event_invariants.states_add_up(created, table) == [
        "Task run 'a' was created and has no record.",
        "Task run 't' has a record and was not created.",
    ]


def test_records_are_compared_with_their_replay() -> None:
    """A record that is missing, is too many, or differs from its replay is named with what differs."""
    kept, replayed = Table(), Table()
    kept.task_runs.update(t=RUN, a=replace(RUN, id="a"))
    replayed.task_runs.update(t=replace(RUN, dispatch=1, held=Held.LOST))
    replayed.flow_runs.update(f=FLOW)
    assert record_invariants.replay_agrees(kept, kept) == []
    assert record_invariants.replay_agrees(replayed, kept) == [
        "Run 't' is not what its replay gives: dispatch, held differ.",
        "Run 'a' is only in the records.",
        "Run 'f' is only in the replay.",
    ]


RecordCheck = Callable[[list[TaskRun]], list[str]]
WRONG_RECORDS: list[tuple[str, RecordCheck, TaskRun]] = [
    (
        "a state of another stage",
        record_invariants.states_fit_stages,
        replace(RUN, state_name="Running"),
    ),
    ("an unknown state", record_invariants.states_fit_stages, replace(RUN, state_name="Nonsense")),
    ("completed with an error", record_invariants.states_fit_stages, replace(DONE, error=ERROR)),
    ("a timer without a retry", record_invariants.states_fit_stages, replace(RUN, due=3.0)),
    ("a retry without a timer", record_invariants.states_fit_stages, replace(RETRYING, due=None)),
    (
        "a gap",
        record_invariants.attempts_in_order,
        replace(DONE, attempts=(replace(WON, number=2),)),
    ),
    (
        "a number twice",
        record_invariants.attempts_in_order,
        replace(DONE, dispatch=2, attempts=(LOST, replace(WON, dispatch=2))),
    ),
    (
        "an old generation later",
        record_invariants.attempts_in_order,
        replace(
            DONE,
            generation=2,
            dispatch=2,
            attempts=(replace(WON, generation=2), replace(LOST, dispatch=2)),
        ),
    ),
    (
        "a generation to come",
        record_invariants.attempts_in_order,
        replace(DONE, attempts=(replace(WON, generation=2),)),
    ),
    (
        "one dispatch, two attempts",
        record_invariants.attempts_in_order,
        replace(DONE, attempts=(LOST, replace(WON, number=2))),
    ),
    ("a dispatch that never was", record_invariants.attempts_in_order, replace(DONE, dispatch=0)),
    (
        "two open",
        record_invariants.attempts_in_order,
        replace(RUNNING, dispatch=2, attempts=(OPEN, replace(OPEN, number=2, dispatch=2))),
    ),
    ("running without", record_invariants.attempts_in_order, replace(RUNNING, attempts=(LOST,))),
    ("open at rest", record_invariants.attempts_in_order, replace(DONE, attempts=(OPEN,))),
    (
        "completed without a success",
        record_invariants.completed_once,
        replace(DONE, attempts=(LOST,)),
    ),
    (
        "a success that did not complete",
        record_invariants.completed_once,
        replace(RUN, attempts=(WON,)),
    ),
    (
        "two successes",
        record_invariants.completed_once,
        replace(DONE, attempts=(WON, replace(WON, number=2))),
    ),
    (
        "cached after an attempt",
        record_invariants.completed_once,
        replace(CACHED, attempts=(LOST,)),
    ),
    (
        "tried again after its own state",
        record_invariants.returned_ends_it,
        replace(DONE, attempts=(BY_HAND, replace(WON, number=2, dispatch=2)), stage=Stage.FAILED),
    ),
    (
        "going on after its own state",
        record_invariants.returned_ends_it,
        replace(RUN, attempts=(BY_HAND,)),
    ),
    ("crashed by nobody", record_invariants.returned_ends_it, CRASHED),
    (
        "crashed by what it raised",
        record_invariants.returned_ends_it,
        replace(CRASHED, attempts=(replace(LOST, ending=Ending.RAISED),)),
    ),
    (
        "changed before it was made",
        record_invariants.no_negative_durations,
        replace(RUN, changed_at=0.5),
    ),
    (
        "ended before it started",
        record_invariants.no_negative_durations,
        replace(DONE, attempts=(replace(WON, ended_at=0.5),)),
    ),
    (
        "took less than no time",
        record_invariants.no_negative_durations,
        replace(DONE, attempts=(replace(WON, seconds=-1.0),)),
    ),
]


@pytest.mark.parametrize(
    ("check", "run"), [pytest.param(*case[1:], id=case[0]) for case in WRONG_RECORDS]
)
def test_a_wrong_record_is_named(check: RecordCheck, run: TaskRun) -> None:
    """A record that cannot be is named once by its invariant, which accepts the records that can be."""
    crashed = replace(CRASHED, dispatch=1, attempts=(LOST,))
    reopened = replace(RETURNED, stage=Stage.WAITING, state_name="Pending", generation=2)
    ends = [crashed, replace(crashed, attempts=(BY_HAND,)), RETURNED, CANCELLED, reopened]
    assert check([RUN, DONE, CACHED, RUNNING, SKIPPED, CANCELLING, *ends]) == []
    [sentence] = check([run])
    assert "'t'" in sentence


ChangeCheck = Callable[[list[TaskChange | FlowChange]], list[str]]
final_stays_final = invariants.final_stays_final
budgets_kept = invariants.budgets_kept
dispatch_numbers_grow = invariants.dispatch_numbers_grow
ends_as_returned = invariants.ends_as_returned
DUE = replace(RUNNING, policy=Policy(timeout=5.0))
SPENT = replace(RUN, stage=Stage.RUNNING, losses=3)
WRONG_CHANGES: list[tuple[str, ChangeCheck, TaskChange]] = [
    ("it changed", final_stays_final, change(MET, DONE, replace(DONE, message="other"))),
    ("it began again by itself", final_stays_final, change(MET, DONE, RUN)),
    ("its generation moved", final_stays_final, change(MET, RUN, replace(RUN, generation=2))),
    (
        "a kept value was lost",
        final_stays_final,
        change(MET, replace(DONE, held=Held.JOURNAL), replace(DONE, held=Held.LOST)),
    ),
    (
        "stale news",
        invariants.stale_news_changes_nothing,
        change(STARTED, replace(RUN, dispatch=2), RUNNING),
    ),
    (
        "a number twice",
        dispatch_numbers_grow,
        change(MET, replace(RUN, dispatch=1), replace(RUN, dispatch=1), DISPATCH),
    ),
    ("a number from nowhere", dispatch_numbers_grow, change(STARTED, RUN, RUNNING)),
    (
        "a suspect goes unconfirmed",
        dispatch_numbers_grow,
        change(MET, replace(RUN, suspect=True), replace(RUN, dispatch=1), DISPATCH),
    ),
    ("not charged", budgets_kept, change(REFUSED, RUNNING, replace(FAILED, raised=0))),
    ("charged for nothing", budgets_kept, change(MET, RUN, replace(RUN, raised=1))),
    ("retried with nothing left", budgets_kept, change(RAISED, RUNNING, RETRYING)),
    (
        "retried against the condition",
        budgets_kept,
        change(REFUSED, RUNNING, replace(RETRYING, policy=Policy(retries=1))),
    ),
    (
        "given up too early",
        budgets_kept,
        change(RAISED, RUNNING, replace(FAILED, policy=Policy(retries=1))),
    ),
    ("lost for nothing", budgets_kept, change(MET, RUN, replace(RUN, losses=1))),
    ("lost too often", budgets_kept, change(WORKER_LOST, SPENT, replace(RUN, losses=4))),
    (
        "crashed too early",
        budgets_kept,
        change(WORKER_LOST, replace(SPENT, losses=0), replace(CRASHED, losses=1)),
    ),
    ("crashed by what it raised", budgets_kept, change(MET, RUNNING, replace(CRASHED, losses=0))),
    (
        "a state by hand was charged",
        budgets_kept,
        change(STATE_RETURNED, RUNNING, replace(RETURNED, raised=1)),
    ),
    ("another name by itself", invariants.names_stay, change(MET, RUN, replace(RUN, name="n"))),
    ("not the new name", invariants.names_stay, change(NAMED, RUNNING, RUNNING)),
    (
        "more than the name",
        invariants.names_stay,
        change(NAMED, RUNNING, replace(RUNNING, name="n", message="!")),
    ),
    (
        "a name, and something to do",
        invariants.names_stay,
        change(NAMED, RUNNING, replace(RUNNING, name="n"), DISPATCH),
    ),
    (
        "a state by hand became another",
        ends_as_returned,
        change(STATE_RETURNED, RUNNING, replace(RETURNED, state_name="TimedOut")),
    ),
    (
        "a state by hand of another stage",
        ends_as_returned,
        change(STATE_RETURNED, RUNNING, replace(RETURNED, stage=Stage.CRASHED)),
    ),
    (
        "a state by hand was taken for a loss",
        ends_as_returned,
        change(STATE_RETURNED, RUNNING, replace(RETURNED, attempts=(LOST,))),
    ),
    (
        "a state by hand of another attempt",
        ends_as_returned,
        change(
            STATE_RETURNED,
            RUNNING,
            replace(RETURNED, attempts=(replace(BY_HAND, dispatch=2),), dispatch=2),
        ),
    ),
    (
        "a state by hand undid a cancel",
        ends_as_returned,
        change(STATE_RETURNED, CANCELLING, RETURNED),
    ),
    ("no deadline", invariants.deadlines_set, change(STARTED, RUN, DUE)),
    (
        "a deadline of another dispatch",
        invariants.deadlines_set,
        change(STARTED, RUN, DUE, (do.SetDeadline("t", 2, 5.0),)),
    ),
    (
        "another deadline",
        invariants.deadlines_set,
        change(STARTED, RUN, DUE, (do.SetDeadline("t", 1, 6.0),)),
    ),
    (
        "a deadline for what may take for ever",
        invariants.deadlines_set,
        change(STARTED, RUN, RUNNING, (do.SetDeadline("t", 1, 5.0),)),
    ),
    (
        "a deadline without a start",
        invariants.deadlines_set,
        change(MET, RUN, DUE, (do.SetDeadline("t", 1, 5.0),)),
    ),
    ("it failed without an attempt", invariants.upstreams_heeded, change(RAISED, RUN, FAILED)),
    ("no upstream had failed", invariants.upstreams_heeded, change(UPSTREAM_FAILED, RUN, SKIPPED)),
]


@pytest.mark.parametrize(
    ("check", "wrong"), [pytest.param(*case[1:], id=case[0]) for case in WRONG_CHANGES]
)
def test_a_wrong_change_is_named(check: ChangeCheck, wrong: TaskChange) -> None:
    """A change that may not be is named, with its event and its task run."""
    [sentence] = check([wrong])
    assert sentence.startswith("Event 7")
    assert "'t'" in sentence


def test_a_state_made_by_hand_may_have_any_name() -> None:
    """A body may say that something upstream failed, or that it took too long: it is taken at its word."""
    for state_name in ("Failed", "TimedOut", "UpstreamFailed"):
        after = replace(RETURNED, state_name=state_name)
        right = [change(replace(STATE_RETURNED, state_name=state_name), RUNNING, after)]
        assert ends_as_returned(right) == []
        assert budgets_kept(right) == []
        assert invariants.upstreams_heeded(right) == []
    assert ends_as_returned([change(STATE_RETURNED, CANCELLING, CANCELLED)]) == []


def test_names_and_deadlines_as_they_should_be() -> None:
    """A rename changes the name alone; a start sets its deadline; a late one that is stopped needs none."""
    assert invariants.names_stay([change(NAMED, RUNNING, replace(RUNNING, name="n"))]) == []
    stopped = change(STARTED, CANCELLING, replace(CANCELLING, policy=DUE.policy))
    right = [change(STARTED, RUN, DUE, (do.SetDeadline("t", 1, 5.0),)), stopped]
    assert invariants.deadlines_set(right) == []


def test_values_come_and_go() -> None:
    """The value of what completed may be lost at the runner and come back, and no more."""
    at_runner, lost = replace(DONE, held=Held.RUNNER), replace(DONE, held=Held.LOST)
    assert final_stays_final([change(MET, at_runner, lost), change(MET, lost, at_runner)]) == []


def test_what_ends_may_be_asked_for_again() -> None:
    """A new generation is the way out of an end."""
    after = replace(RUN, generation=2)
    assert final_stays_final([change(REOPENED, FAILED, after)]) == []
    assert budgets_kept([change(REOPENED, FAILED, after)]) == []


IN_THE_WAY = [
    (Need.DATA, Stage.FAILED),
    (Need.DATA, Stage.CANCELLED),
    (Need.WAIT, Stage.CRASHED),
    (Need.WAIT, Stage.RUNNING),
    (Need.ALLOW, Stage.RUNNING),
]
NOT_IN_THE_WAY = [
    (Need.DATA, Stage.RUNNING),
    (Need.DATA, Stage.COMPLETED),
    (Need.WAIT, Stage.COMPLETED),
    (Need.ALLOW, Stage.FAILED),
]


@pytest.mark.parametrize(("need", "stage"), IN_THE_WAY + NOT_IN_THE_WAY)
def test_nothing_goes_too_early(need: Need, stage: Stage) -> None:
    """What is dispatched although an upstream stands in its way is named."""
    made = replace(RUN, id="u", stage=stage)
    run = replace(RUN, upstreams=(Upstream("u", need),))
    changes = [change(MET, made, made), change(MET, run, run)]
    expected = ["Event 7: 't' was dispatched though 'u' stood in its way."]
    broken = (need, stage) in IN_THE_WAY
    assert invariants.upstreams_heeded(changes) == (expected if broken else [])


def test_what_was_tried_is_not_skipped() -> None:
    """UpstreamFailed is for what was never tried in its generation, below something that failed."""
    failed = change(CANCEL, None, replace(RUN, id="u", stage=Stage.CANCELLED))
    skipped = replace(SKIPPED, upstreams=(Upstream("u"),))
    assert invariants.upstreams_heeded([failed, change(UPSTREAM_FAILED, RUN, skipped)]) == []
    tried = replace(skipped, attempts=(LOST,))
    assert invariants.upstreams_heeded([failed, change(UPSTREAM_FAILED, RUN, tried)]) == [
        "Event 7: 't' ended UpstreamFailed after an attempt."
    ]


def test_nothing_goes_on_after_cancelling() -> None:
    """What was cancelled may be stopped, end, or complete; it may not be dispatched, nor run on."""
    cancelled = change(CANCEL, RUNNING, CANCELLING)
    stopped = change(STARTED, CANCELLING, CANCELLING, (do.Stop("t", 1),))
    right = [cancelled, stopped, change(RAISED, CANCELLING, DONE)]
    assert invariants.nothing_after_cancel(right) == []
    assert invariants.nothing_after_cancel([cancelled, change(WORKER_LOST, CANCELLING, RUN)]) == [
        "Event 7: 't' was cancelled, and became waiting."
    ]
    assert invariants.nothing_after_cancel(
        [cancelled, change(STARTED, CANCELLING, CANCELLING)]
    ) == ["Event 7: 't' was cancelled, and started without being stopped."]
    again = change(REOPENED, CANCELLING, replace(RUN, generation=2))
    assert invariants.nothing_after_cancel([cancelled, again]) == []


def test_nothing_is_dispatched_in_a_cancelled_flow_run() -> None:
    """While a flow run is cancelled none of its task runs may go, until its body begins again."""
    ending = FlowChange(6, FLOW_CANCEL, FLOW, replace(FLOW, stage=FlowStage.CANCELLING))
    begun = FlowChange(6, FLOW_CANCEL, FLOW, replace(FLOW, stage=FlowStage.RUNNING))
    goes = change(MET, RUN, replace(RUN, stage=Stage.DISPATCHED, dispatch=1), DISPATCH)
    assert invariants.nothing_after_cancel([ending, begun, goes]) == []
    assert invariants.nothing_after_cancel([ending, goes]) == [
        "Event 7 dispatched 't' of a cancelled flow run."
    ]


def test_the_root_ends_last() -> None:
    """A root flow run that has ended before its task runs is named once, with some of them."""
    ended = FlowChange(8, FLOW_CANCEL, FLOW, replace(FLOW, stage=FlowStage.FAILED))
    child = replace(FLOW, id="g", parent_id="f", stage=FlowStage.FAILED)
    started, finished = change(MET, None, RUNNING), change(MET, RUNNING, DONE)
    assert invariants.root_ends_last([started, FlowChange(7, MET, None, child)]) == []
    assert invariants.root_ends_last([started, finished, ended]) == []
    sentence = "Flow run 'f' is failed, 1 task runs are not: 't' …"
    assert invariants.root_ends_last([started, ended, started]) == [sentence]
    assert invariants.root_ends_last([ended, started]) == [sentence]
    assert invariants.root_ends_last([ended, started, finished]) == []


def test_many_events() -> None:
    """A map of ten thousand is checked about as fast as it is replayed."""
    names = [f"t{i}" for i in range(10_000)]
    items = tuple(ev.MapItem(name, name) for name in names)
    events: list[ev.Event] = [
        ev.MapCreated(at=0.0, flow_run_id="f", parent_id="f", task_name="t", items=items)
    ]
    for name in names:
        events += [
            replace(MET, task_run_id=name),
            replace(STARTED, task_run_id=name),
            replace(RAISED, task_run_id=name),
        ]
    assert invariants.check(events) == []


def test_the_history_is_unrolled_in_order() -> None:
    """Each change knows its event's number, and the record before and after."""
    created = ev.FlowRunCreated(
        at=0.0, flow_run_id="f", root_id="f", parent_id=None, flow_name="f", name="f"
    )
    changes, table = unroll([created, FLOW_CANCEL, FLOW_CANCEL])
    assert [(c.number, c.event) for c in changes] == [(1, created), (2, FLOW_CANCEL)]
    assert changes[0].before is None
    assert changes[1].before is changes[0].after
    assert changes[1].after is table.flow_runs["f"]
