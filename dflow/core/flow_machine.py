"""The state machine of flow runs: everything that changes a flow run's state is here.

The rules are those of ``machine.py``: pure, a table of guarded rows, refusal gives the same record back.
A flow run's generation counts how often its body was begun: the first time, for a retry, to resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import FlowRun, FlowStage, Held
from dflow.core.retry import delay, retries_left
from dflow.states import TYPE_OF_NAME

Changes = dict[str, Any]
FlowStep = tuple[FlowRun, tuple[do.Command, ...]]


# Guards ----------------------------------------------------------------------------------------------


def always(run: FlowRun, event: Any) -> bool:
    """No condition."""
    return True


def next_generation(run: FlowRun, event: ev.FlowRunStarted) -> bool:
    """The generation is the next one."""
    return event.generation == run.generation + 1


def may_retry(run: FlowRun, event: ev.FlowRunRaised) -> bool:
    """The condition agrees, and a retry is left."""
    return event.retriable and retries_left(run.policy, run.raised)


def value_given(run: FlowRun, event: ev.FlowRunOutdated) -> bool:
    """The value could be given until now."""
    return run.held is not Held.OUTDATED


def ends_as(target: FlowStage) -> FlowGuard:
    """Return the guard that holds when the state that was worked out is `target`."""

    def guard(run: FlowRun, event: ev.FlowRunReturned | ev.FlowRunRaised) -> bool:
        kind = TYPE_OF_NAME.get(event.state_name)
        return kind is not None and kind.value.lower() == target.value

    guard.__name__ = f"ends_{target.value}"
    guard.__doc__ = f"The final state that was worked out is {target.value}."
    return guard


# Effects ---------------------------------------------------------------------------------------------


def begin(run: FlowRun, event: ev.FlowRunStarted) -> tuple[Changes, tuple[do.Command, ...]]:
    """Run the body; a flow that had ended, or was interrupted, gets fresh retries only if it had ended."""
    changes: Changes = {
        "generation": event.generation,
        "state_name": "Running",
        "message": "",
        "due": None,
        "held": Held.NOWHERE,
        "stored": None,
    }
    if run.stage.final:
        changes |= {"raised": 0, "error": None}
    return changes, (do.RunBody(run.id, event.generation),)


def settle(run: FlowRun, event: ev.FlowRunReturned) -> tuple[Changes, tuple[do.Command, ...]]:
    """End as was worked out from what the body returned."""
    changes: Changes = {
        "state_name": event.state_name,
        "message": event.message,
        "held": event.held,
        "stored": event.stored,
        "error": event.error,
    }
    return changes, (do.Settle(run.id),)


def fail(run: FlowRun, event: ev.FlowRunRaised) -> tuple[Changes, tuple[do.Command, ...]]:
    """End as the event says; no retry is left, or none is due."""
    timed_out = event.state_name == "TimedOut"
    changes: Changes = {
        "raised": run.raised + 1,
        "error": event.error,
        "state_name": event.state_name,
        "message": event.error.text
        if timed_out
        else f"{event.error.type_name}: {event.error.text}",
    }
    return changes, (do.Settle(run.id),)


def retry_later(run: FlowRun, event: ev.FlowRunRaised) -> tuple[Changes, tuple[do.Command, ...]]:
    """Set a timer for the next time."""
    seconds = delay(run.policy, run.raised + 1, event.luck)
    due = event.at + seconds
    changes, _ = fail(run, event)
    changes |= {"due": due, "state_name": "AwaitingRetry" if seconds > 0 else "Retrying"}
    return changes, (do.SetTimer(run.id, due, run.generation, run.raised + 1),)


def interrupt(run: FlowRun, event: ev.FlowRunInterrupted) -> tuple[Changes, tuple[do.Command, ...]]:
    """Stop here, to be resumed."""
    return {"state_name": "Interrupted", "message": event.message}, (do.Settle(run.id),)


def outdate(run: FlowRun, event: ev.FlowRunOutdated) -> tuple[Changes, tuple[do.Command, ...]]:
    """Give the value no more; the flow run stays completed until it is called."""
    return {"held": Held.OUTDATED}, ()


def ask_to_end(
    run: FlowRun, event: ev.FlowCancelRequested
) -> tuple[Changes, tuple[do.Command, ...]]:
    """Ask the body to end."""
    return {"state_name": "Cancelling", "due": None}, (do.Stop(run.id, 0),)


def cancelled(
    run: FlowRun, event: ev.FlowRunStopped | ev.FlowCancelRequested | ev.FlowRunRaised
) -> tuple[Changes, tuple[do.Command, ...]]:
    """End cancelled."""
    message = event.message if isinstance(event, ev.FlowRunStopped) else ""
    return {"state_name": "Cancelled", "message": message, "due": None}, (do.Settle(run.id),)


# The table -------------------------------------------------------------------------------------------

FlowGuard = Callable[[FlowRun, Any], bool]
FlowEffect = Callable[[FlowRun, Any], tuple[Changes, tuple[do.Command, ...]]]


@dataclass(frozen=True, slots=True)
class FlowRow:
    """In `stage`, when `event` comes and `guard` holds: go to `target`, with `effect`."""

    stage: FlowStage
    event: type[ev.FlowEvent]
    guard: FlowGuard
    target: FlowStage
    effect: FlowEffect


def _rows() -> Iterator[FlowRow]:
    pending, running = FlowStage.PENDING, FlowStage.RUNNING
    retry, cancelling = FlowStage.AWAITING_RETRY, FlowStage.CANCELLING
    interrupted = FlowStage.INTERRUPTED
    completed, failed = FlowStage.COMPLETED, FlowStage.FAILED
    crashed, is_cancelled = FlowStage.CRASHED, FlowStage.CANCELLED

    # A body may begin from anywhere but where one is at work: from RUNNING and CANCELLING only
    # after FlowRunInterrupted has told that their driver is gone.
    for stage in (pending, retry, interrupted, completed, failed, crashed, is_cancelled):
        yield FlowRow(stage, ev.FlowRunStarted, next_generation, running, begin)

    for stage in (running, cancelling):
        for target in (completed, failed, crashed, is_cancelled):
            yield FlowRow(stage, ev.FlowRunReturned, ends_as(target), target, settle)
        yield FlowRow(stage, ev.FlowRunStopped, always, is_cancelled, cancelled)
    yield FlowRow(running, ev.FlowRunRaised, may_retry, retry, retry_later)
    yield FlowRow(running, ev.FlowRunRaised, ends_as(crashed), crashed, fail)
    yield FlowRow(running, ev.FlowRunRaised, ends_as(is_cancelled), is_cancelled, fail)
    yield FlowRow(running, ev.FlowRunRaised, always, failed, fail)
    yield FlowRow(cancelling, ev.FlowRunRaised, always, is_cancelled, cancelled)

    yield FlowRow(running, ev.FlowCancelRequested, always, cancelling, ask_to_end)
    for stage in (pending, retry, interrupted):
        yield FlowRow(stage, ev.FlowCancelRequested, always, is_cancelled, cancelled)

    for stage in (pending, running, retry, cancelling):
        yield FlowRow(stage, ev.FlowRunInterrupted, always, interrupted, interrupt)
    yield FlowRow(completed, ev.FlowRunOutdated, value_given, completed, outdate)


FlowTable = dict[tuple[FlowStage, type[ev.FlowEvent]], tuple[FlowRow, ...]]


def tabulate(rows: tuple[FlowRow, ...]) -> FlowTable:
    """Return the rows by (stage, event), in their order."""
    table: FlowTable = {}
    for row in rows:
        key = (row.stage, row.event)
        table[key] = (*table.get(key, ()), row)
    return table


FLOW_ROWS: tuple[FlowRow, ...] = tuple(_rows())
FLOW_TABLE: FlowTable = tabulate(FLOW_ROWS)


def step(run: FlowRun, event: ev.FlowEvent, table: FlowTable = FLOW_TABLE) -> FlowStep:
    """Return the flow run as `event` leaves it, and what is to be done; the same object if refused."""
    for row in table.get((run.stage, type(event)), ()):
        if row.guard(run, event):
            changes, orders = row.effect(run, event)
            at = max(run.changed_at, event.at)
            return replace(run, stage=row.target, changed_at=at, **changes), orders
    return run, ()


def create(event: ev.FlowRunCreated) -> FlowStep:
    """Return the flow run that `event` brought into being."""
    run = FlowRun(
        id=event.flow_run_id,
        root_id=event.root_id,
        parent_id=event.parent_id,
        flow_name=event.flow_name,
        name=event.name,
        created_at=event.at,
        changed_at=event.at,
        policy=event.policy,
        tags=event.tags,
        upstreams=event.upstreams,
    )
    return run, ()
