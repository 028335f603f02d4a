"""The transition table of flow runs: each row fires where it should, and nothing else does."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import flow_machine
from dflow.core.codec import KINDS
from dflow.core.flow_machine import FLOW_ROWS, FLOW_TABLE, FlowRow, create, step
from dflow.core.records import ErrorInfo, FlowRun, FlowStage, Held, Policy

ERROR = ErrorInfo("ValueError", "no")
EVENTS = [c for c in KINDS.values() if issubclass(c, ev.FlowEvent) and c is not ev.FlowRunCreated]


def example(kind: type[ev.FlowEvent], run: FlowRun, **more: object) -> ev.FlowEvent:
    """Return an event of a kind that fits a flow run as it is now, but for the fields given."""
    given: dict[str, object] = {"at": run.changed_at + 1.0, "flow_run_id": run.id}
    fields: dict[type[ev.FlowEvent], dict[str, object]] = {
        ev.FlowRunStarted: {"generation": run.generation + 1},
        ev.FlowRunReturned: {"state_name": "Completed"},
        ev.FlowRunRaised: {"error": ERROR},
        ev.FlowRunInterrupted: {"message": "its driver died"},
    }
    return kind(**(given | fields.get(kind, {}) | more))  # type: ignore[arg-type]  # the fields of `kind`


def at(stage: FlowStage, policy: Policy = Policy()) -> FlowRun:
    """Return a flow run that lived its way into a stage."""
    run, _ = create(
        ev.FlowRunCreated(
            at=1.0,
            flow_run_id="f",
            root_id="f",
            parent_id=None,
            flow_name="f",
            name="f",
            policy=policy,
        )
    )
    for event in lives(run)[stage]:
        after, _ = step(run, event)
        assert after is not run
        run = after
    return run


def lives(run: FlowRun) -> dict[FlowStage, list[ev.FlowEvent]]:
    """Return the events that lead a new flow run into each stage."""
    started = example(ev.FlowRunStarted, run)

    def returned(state_name: str) -> list[ev.FlowEvent]:
        return [started, example(ev.FlowRunReturned, run, state_name=state_name)]

    return {
        FlowStage.PENDING: [],
        FlowStage.RUNNING: [started],
        FlowStage.AWAITING_RETRY: [started, example(ev.FlowRunRaised, run)],
        FlowStage.CANCELLING: [started, example(ev.FlowCancelRequested, run)],
        FlowStage.INTERRUPTED: [started, example(ev.FlowRunInterrupted, run)],
        FlowStage.COMPLETED: returned("Completed"),
        FlowStage.FAILED: returned("Failed"),
        FlowStage.CRASHED: returned("Crashed"),
        FlowStage.CANCELLED: returned("Cancelled"),
    }


RETRYING = Policy(retries=1, retry_delays=(3.0,))


def scene(row: FlowRow) -> tuple[FlowRun, ev.FlowEvent]:
    """Return a flow run and an event for which this row of the table, and none before it, holds."""
    retries = FlowStage.AWAITING_RETRY in (row.stage, row.target)
    run = at(row.stage, RETRYING if retries else Policy())
    ends = row.event in (ev.FlowRunReturned, ev.FlowRunRaised) and row.target.final
    return run, example(row.event, run, **({"state_name": row.target.title()} if ends else {}))


def name(row: FlowRow) -> str:
    """Return the name of a row."""
    return f"{row.stage}-{row.event.__name__}-{row.target}"


each_row = pytest.mark.parametrize("row", FLOW_ROWS, ids=name)


def refused(run: FlowRun, event: ev.FlowEvent) -> bool:
    """Tell whether the very same record comes back, and nothing is to be done."""
    after, orders = step(run, event)
    return after is run and orders == ()


@each_row
def test_a_row_fires(row: FlowRow) -> None:
    """Each row is reached by a life of events, lands where it says and has its own effect."""
    run, event = scene(row)
    changes, orders = row.effect(run, event)
    expected = replace(run, stage=row.target, changed_at=event.at, **changes)
    assert step(run, event) == (expected, orders)


@each_row
def test_an_end_is_settled(row: FlowRow) -> None:
    """Who ends or is interrupted is settled, once; who begins runs its body; a retry has its timer.

    What had ended is not settled again.
    """
    run, event = scene(row)
    kinds = [type(order) for order in step(run, event)[1]]
    first = {
        FlowStage.RUNNING: do.RunBody,
        FlowStage.AWAITING_RETRY: do.SetTimer,
        FlowStage.CANCELLING: do.Stop,
    }
    had_ended = row.stage.final and row.target.final
    assert kinds == ([] if had_ended else [first.get(row.target, do.Settle)])


@pytest.mark.parametrize("stage", FlowStage)
def test_what_the_table_does_not_name_is_refused(stage: FlowStage) -> None:
    """Every pair of stage and event that has no row leaves the record as it is."""
    run = at(stage, RETRYING)
    others = [kind for kind in EVENTS if (stage, kind) not in FLOW_TABLE]
    assert others
    assert [kind for kind in others if not refused(run, example(kind, run))] == []


@pytest.mark.parametrize("row", [r for r in FLOW_ROWS if r.event is ev.FlowRunStarted], ids=name)
@pytest.mark.parametrize("ahead", [-1, 0, 2])
def test_generations_come_one_by_one(row: FlowRow, ahead: int) -> None:
    """A body begins in the next generation, and in no other."""
    run, _ = scene(row)
    assert refused(run, example(ev.FlowRunStarted, run, generation=run.generation + ahead))


@pytest.mark.parametrize("state_name", ["Running", "Paused", "Interrupted", "Nonsense"])
def test_a_flow_ends_in_a_final_state(state_name: str) -> None:
    """A return value cannot be worked out to a state that is not final, or that nobody knows."""
    run = at(FlowStage.RUNNING)
    assert refused(run, example(ev.FlowRunReturned, run, state_name=state_name))


def test_retries_are_spent() -> None:
    """With one retry a flow runs twice; the second failure is final, and keeps its error."""
    run = at(FlowStage.AWAITING_RETRY, RETRYING)
    run, _ = step(run, example(ev.FlowRunStarted, run))
    run, _ = step(run, example(ev.FlowRunRaised, run, state_name="TimedOut"))
    assert (run.stage, run.state_name, run.raised) == (FlowStage.FAILED, "TimedOut", 2)
    assert run.error == ERROR


def test_a_condition_that_refuses_ends_it() -> None:
    """A failure that is not to be retried is final, with retries left."""
    run = at(FlowStage.RUNNING, RETRYING)
    assert step(run, example(ev.FlowRunRaised, run, retriable=False))[0].stage is FlowStage.FAILED


@pytest.mark.parametrize("state_name", ["Crashed", "Cancelled"])
def test_a_body_that_raises_may_end_crashed_or_cancelled(state_name: str) -> None:
    """What a body raises is counted, kept and told, also where it ends the flow run otherwise."""
    run = at(FlowStage.RUNNING, RETRYING)
    event = example(ev.FlowRunRaised, run, state_name=state_name, retriable=False)
    after, orders = step(run, event)
    assert (after.stage, after.state_name) == (FlowStage(state_name.lower()), state_name)
    assert (after.raised, after.error, after.message) == (1, ERROR, "ValueError: no")
    assert orders == (do.Settle("f"),)


def test_what_is_raised_while_cancelling_is_cancelled() -> None:
    """A flow run that was asked to end is cancelled, whatever its body makes of it."""
    run = at(FlowStage.CANCELLING, RETRYING)
    after, _ = step(run, example(ev.FlowRunRaised, run, state_name="Crashed"))
    assert (after.stage, after.state_name, after.raised) == (FlowStage.CANCELLED, "Cancelled", 0)


def test_fresh_retries_only_after_the_end() -> None:
    """What is resumed keeps the retries that it spent; what had ended begins with all of them."""
    waiting = at(FlowStage.AWAITING_RETRY, RETRYING)
    stopped, _ = step(waiting, example(ev.FlowRunInterrupted, waiting))
    assert step(stopped, example(ev.FlowRunStarted, stopped))[0].raised == 1
    failed = at(FlowStage.RUNNING)
    failed, _ = step(failed, example(ev.FlowRunRaised, failed))
    again, _ = step(failed, example(ev.FlowRunStarted, failed))
    assert (again.raised, again.error, again.held) == (0, None, Held.NOWHERE)


def test_an_outdated_value_stays_outdated() -> None:
    """It is said once, and ends with the next generation."""
    run = at(FlowStage.COMPLETED)
    outdated, _ = step(run, example(ev.FlowRunOutdated, run))
    assert (outdated.stage, outdated.held) == (FlowStage.COMPLETED, Held.OUTDATED)
    assert refused(outdated, example(ev.FlowRunOutdated, run))
    assert step(outdated, example(ev.FlowRunStarted, outdated))[0].held is Held.NOWHERE


def test_clocks_may_go_back() -> None:
    """News from an earlier clock changes nothing in the past."""
    run = at(FlowStage.RUNNING)
    after, _ = step(run, example(ev.FlowCancelRequested, run, at=-86_400.0))
    assert after.changed_at == run.changed_at


def test_guards_have_names() -> None:
    """Each guard says in its name and its docstring when it holds."""
    assert flow_machine.ends_as(FlowStage.FAILED).__name__ == "ends_failed"
    assert all(row.guard.__doc__ for row in FLOW_ROWS)
