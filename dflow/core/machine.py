"""The state machine of task runs: everything that changes a task run's state is here.

1. Everything that changes a task run is in this file.
2. No clock, no luck, no I/O: time and luck arrive in events.
3. Nothing is mutated: ``step(run, event) -> (run, commands)``.
4. The caller commits before it acts on the commands.

The machine is a table of rows ``(stage, event) -> guard -> stage, effect``. `step` takes the first row
whose stage and event fit and whose guard holds; without one the event is refused: the very same record
comes back, and nothing is to be done. So news that is late, doubled or out of order is harmless, and
applying an event twice is applying it once.

Reports carry the number of the dispatch they speak of. A dispatch is not an attempt: an attempt opens
with the report of its start, or with its outcome where the start was not reported. A *generation* is
one asking for the task run; what is final is final within its generation, and only `Reopened` begins
the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.creation import create as create
from dflow.core.creation import create_all as create_all
from dflow.core.creation import ids_of as ids_of
from dflow.core.creation import unfold as unfold
from dflow.core.records import Attempt, Cause, Ending, ErrorInfo, Held, Stage, TaskRun
from dflow.core.retry import delay, losses_left, retries_left
from dflow.states import TYPE_OF_NAME

Changes = dict[str, Any]
Step = tuple[TaskRun, tuple[do.Command, ...]]


# Guards: may this row fire? ----------------------------------------------------------------------


def always(run: TaskRun, event: Any) -> bool:
    """No condition."""
    return True


def current(run: TaskRun, event: ev.Report) -> bool:
    """The report speaks of the present dispatch."""
    return event.dispatch == run.dispatch


def may_retry(run: TaskRun, event: ev.AttemptRaised | ev.AttemptTimedOut) -> bool:
    """The report is current, the condition agrees and a retry is left."""
    return current(run, event) and event.retriable and retries_left(run.policy, run.raised)


def free_loss(run: TaskRun, event: ev.WorkerLost) -> bool:
    """The report is current, and the loss is nobody's fault."""
    return current(run, event) and event.cause is not Cause.WORKER_DIED


def may_lose(run: TaskRun, event: ev.WorkerLost) -> bool:
    """The report is current, and one more loss is in the budget."""
    return current(run, event) and losses_left(run.policy, run.losses)


def untried(run: TaskRun, event: ev.TaskEvent) -> bool:
    """No attempt has been made in this generation."""
    return not run.attempts_now


def timer_fits(run: TaskRun, event: ev.RetryDue) -> bool:
    """The timer was set for the attempt that was made last."""
    return event.generation == run.generation and event.attempt == len(run.attempts_now)


def next_generation(run: TaskRun, event: ev.Reopened) -> bool:
    """The generation is a later one."""
    return event.generation > run.generation


def value_unwanted(run: TaskRun, event: ev.Reopened) -> bool:
    """The generation is a later one, and the value is not kept, or not given any more."""
    return next_generation(run, event) and not run.held.kept


def value_given(run: TaskRun, event: ev.TaskEvent) -> bool:
    """The value has not been outdated."""
    return run.held is not Held.OUTDATED


def later_use(run: TaskRun, event: ev.Reused) -> bool:
    """The value, which can be given, is given in a later generation of the flow run than before."""
    return event.generation > run.reused and value_given(run, event)


def late_start(run: TaskRun, event: ev.AttemptStarted) -> bool:
    """The report is current, and it is the first of its start."""
    return current(run, event) and run.open_attempt is None


def value_held(run: TaskRun, event: ev.ResultLost) -> bool:
    """The report is current, and the value is where it is said to be lost from."""
    return current(run, event) and run.held is (Held.STORED if event.stored else Held.RUNNER)


def value_lost(run: TaskRun, event: ev.Report) -> bool:
    """The report is current, and the value is lost."""
    return current(run, event) and run.held is Held.LOST


def other_name(run: TaskRun, event: ev.TaskRunNamed) -> bool:
    """The name is another one."""
    return event.name != run.name


def returned(target: Stage) -> Guard:
    """Return the guard that holds for a current report of a state made by hand that is `target`."""

    def guard(run: TaskRun, event: ev.StateReturned) -> bool:
        kind = TYPE_OF_NAME.get(event.state_name)
        return current(run, event) and kind is not None and kind.value.lower() == target.value

    guard.__name__ = f"returned_{target.value}"
    guard.__doc__ = f"The report is current, and the state that was returned is {target.value}."
    return guard


# Effects: what else changes, and what is to be done ------------------------------------------------


def opened(run: TaskRun, dispatch: int, at: float, worker: str) -> tuple[Attempt, ...]:
    """Return the attempts with one that started at `at` open at their end."""
    if run.open_attempt is not None:
        return run.attempts
    number = len(run.attempts_now) + 1
    return (*run.attempts, Attempt(run.generation, number, dispatch, at, worker))


def closed(
    run: TaskRun,
    event: ev.TaskEvent,
    ending: Ending,
    *,
    error: ErrorInfo | None = None,
    cause: Cause | None = None,
) -> tuple[Attempt, ...]:
    """Return the attempts with the last one ended by `event`; an outcome opens one first if need be.

    Clocks differ and jump: an attempt never ends before it started.
    """
    attempts, worker = run.attempts, ""
    measured: Changes = {}
    if isinstance(event, ev.Outcome):
        size = event.size if isinstance(event, ev.AttemptSucceeded) else None
        if run.open_attempt is None:
            return (*attempts, _whole(run, event, ending, error, size))
        worker = event.worker
        measured = {"seconds": event.seconds, "cpu": event.cpu, "memory": event.memory}
        measured["size"] = size
    if not attempts or attempts[-1].ending is not Ending.OPEN:
        return attempts
    changes = {
        "ending": ending,
        "ended_at": max(event.at, attempts[-1].started_at),
        "error": error,
        "cause": cause,
        "worker": worker or attempts[-1].worker,
        **measured,
    }
    return (*attempts[:-1], replace(attempts[-1], **changes))


def _whole(
    run: TaskRun, event: ev.Outcome, ending: Ending, error: ErrorInfo | None, size: int | None
) -> Attempt:
    """Return an attempt that opens and ends with its outcome."""
    return Attempt(
        run.generation,
        len(run.attempts_now) + 1,
        event.dispatch,
        event.started_at,
        event.worker,
        ending,
        max(event.at, event.started_at),
        event.seconds,
        error,
        None,
        event.cpu,
        event.memory,
        size,
    )


def dispatch(run: TaskRun, event: ev.UpstreamsMet) -> tuple[Changes, tuple[do.Command, ...]]:
    """Number a new dispatch and hand it to the runner."""
    number = run.dispatch + 1
    order = do.Dispatch(
        run.id, number, run.generation, len(run.attempts_now) + 1, confirm_start=run.suspect
    )
    return {"dispatch": number, "state_name": "Pending", "message": ""}, (order,)


def start(run: TaskRun, event: ev.AttemptStarted) -> tuple[Changes, tuple[do.Command, ...]]:
    """Open an attempt, and set its deadline if it has one."""
    attempts = opened(run, event.dispatch, event.at, event.worker)
    timeout = run.policy.timeout
    orders = () if timeout is None else (do.SetDeadline(run.id, event.dispatch, timeout),)
    return {"attempts": attempts, "state_name": "Running", "message": ""}, orders


def rename(run: TaskRun, event: ev.TaskRunNamed) -> tuple[Changes, tuple[do.Command, ...]]:
    """Take a new name."""
    return {"name": event.name}, ()


def start_and_stop(
    run: TaskRun, event: ev.AttemptStarted
) -> tuple[Changes, tuple[do.Command, ...]]:
    """Open an attempt that came too late, and stop it."""
    changes: Changes = {"attempts": opened(run, event.dispatch, event.at, event.worker)}
    return changes, (do.Stop(run.id, event.dispatch),)


def succeed(run: TaskRun, event: ev.AttemptSucceeded) -> tuple[Changes, tuple[do.Command, ...]]:
    """Close the attempt; its value is where the event says."""
    changes: Changes = {
        "attempts": closed(run, event, Ending.SUCCEEDED),
        "state_name": "Completed",
        "message": event.message,
        "held": event.held,
        "stored": event.stored,
        "error": None,
    }
    return changes, (do.Settle(run.id),)


def end_as_returned(
    run: TaskRun, event: ev.StateReturned
) -> tuple[Changes, tuple[do.Command, ...]]:
    """Close the attempt; the task run ends in the state that its body made by hand."""
    changes: Changes = {
        "attempts": closed(run, event, Ending.RETURNED, error=event.error),
        "state_name": event.state_name,
        "message": event.message,
        "error": event.error,
    }
    return changes, (do.Settle(run.id),)


def _failure(run: TaskRun, event: ev.AttemptRaised | ev.AttemptTimedOut) -> Changes:
    timed_out = isinstance(event, ev.AttemptTimedOut)
    ending = Ending.TIMED_OUT if timed_out else Ending.RAISED
    return {
        "attempts": closed(run, event, ending, error=event.error),
        "raised": run.raised + 1,
        "error": event.error,
        "state_name": "TimedOut" if timed_out else "Failed",
        "message": message_of(event),
    }


def message_of(failure: ev.AttemptRaised | ev.AttemptTimedOut) -> str:
    """Return how a failed attempt is told of."""
    error = failure.error
    timed_out = isinstance(failure, ev.AttemptTimedOut)
    return error.text if timed_out else f"{error.type_name}: {error.text}"


def fail(
    run: TaskRun, event: ev.AttemptRaised | ev.AttemptTimedOut
) -> tuple[Changes, tuple[do.Command, ...]]:
    """Close the attempt; it was the last one."""
    return _failure(run, event), (do.Settle(run.id),)


def retry_later(
    run: TaskRun, event: ev.AttemptRaised | ev.AttemptTimedOut
) -> tuple[Changes, tuple[do.Command, ...]]:
    """Close the attempt and set a timer for the next."""
    changes = _failure(run, event)
    seconds = delay(run.policy, run.raised + 1, event.luck)
    due = event.at + seconds
    made = sum(a.generation == run.generation for a in changes["attempts"])
    changes |= {"due": due, "state_name": "AwaitingRetry" if seconds > 0 else "Retrying"}
    return changes, (do.SetTimer(run.id, due, run.generation, made),)


def lose(
    run: TaskRun, event: ev.WorkerLost | ev.DispatchVoided
) -> tuple[Changes, tuple[do.Command, ...]]:
    """Close the attempt as lost at no charge; the task run goes again."""
    changes: Changes = {
        "attempts": closed(run, event, Ending.LOST, cause=event.cause),
        "state_name": "Pending",
        "message": event.message,
    }
    return changes, (do.Consider(run.id),)


def lose_charged(run: TaskRun, event: ev.WorkerLost) -> tuple[Changes, tuple[do.Command, ...]]:
    """Close the attempt as lost, charge it, and let the task run go again."""
    changes, orders = lose(run, event)
    return changes | {"losses": run.losses + 1}, orders


def crash(run: TaskRun, event: ev.WorkerLost) -> tuple[Changes, tuple[do.Command, ...]]:
    """Close the attempt as lost; the budget of losses is spent."""
    losses = run.losses + 1
    changes: Changes = {
        "attempts": closed(run, event, Ending.LOST, cause=event.cause),
        "losses": losses,
        "state_name": "Crashed",
        "message": f"{losses} workers died while they ran it. {event.message}".strip(),
    }
    return changes, (do.Settle(run.id),)


def void(run: TaskRun, event: ev.DispatchVoided) -> tuple[Changes, tuple[do.Command, ...]]:
    """Forget the dispatch; the task run goes again."""
    return {"message": event.message}, (do.Consider(run.id),)


def void_lost(run: TaskRun, event: ev.WorkerLost) -> tuple[Changes, tuple[do.Command, ...]]:
    """Forget a dispatch whose start was not heard of: whether the worker died of it, the next start tells."""
    suspect = run.suspect or event.cause is Cause.WORKER_DIED
    return {"suspect": suspect}, (do.Consider(run.id),)


def go_again(run: TaskRun, event: ev.TaskEvent) -> tuple[Changes, tuple[do.Command, ...]]:
    """Let the graph decide when the task run goes."""
    return {"due": None, "state_name": "Pending", "message": ""}, (do.Consider(run.id),)


def upstream_failed(
    run: TaskRun, event: ev.UpstreamFailed
) -> tuple[Changes, tuple[do.Command, ...]]:
    """End without an attempt, naming the chain of failures."""
    changes: Changes = {
        "state_name": "UpstreamFailed",
        "message": f"Something upstream failed: {event.chain}",
        "due": None,
    }
    return changes, (do.Settle(run.id),)


def upstream_failed_withdrawn(
    run: TaskRun, event: ev.UpstreamFailed
) -> tuple[Changes, tuple[do.Command, ...]]:
    """End without an attempt, and take back the dispatch that waited for the upstream."""
    changes, orders = upstream_failed(run, event)
    return changes, (do.Withdraw(run.id, run.dispatch), *orders)


def upstream_gone(run: TaskRun, event: ev.UpstreamFailed) -> tuple[Changes, tuple[do.Command, ...]]:
    """End because an upstream, which had completed before the first attempt, failed this time."""
    message = f"Cannot be tried again, because something upstream failed since: {event.chain}"
    return {"state_name": "UpstreamLost", "message": message}, (do.Settle(run.id),)


def upstream_lost(run: TaskRun, event: ev.UpstreamLost) -> tuple[Changes, tuple[do.Command, ...]]:
    """End because the value of an upstream is gone."""
    return {"state_name": "UpstreamLost", "message": event.message}, (do.Settle(run.id),)


def hit(run: TaskRun, event: ev.CacheHit) -> tuple[Changes, tuple[do.Command, ...]]:
    """End well without an attempt."""
    changes: Changes = {
        "state_name": "Cached",
        "message": event.message,
        "held": event.held,
        "stored": event.stored,
        "error": None,
    }
    return changes, (do.Settle(run.id),)


def cancel(run: TaskRun, event: ev.TaskEvent) -> tuple[Changes, tuple[do.Command, ...]]:
    """End a task run of which nothing is under way."""
    return {"state_name": "Cancelled", "message": "", "due": None}, (do.Settle(run.id),)


def withdraw(run: TaskRun, event: ev.CancelRequested) -> tuple[Changes, tuple[do.Command, ...]]:
    """Take the dispatch back; the runner will say whether its body had started."""
    return {"state_name": "Cancelling"}, (do.Withdraw(run.id, run.dispatch),)


def stop(run: TaskRun, event: ev.CancelRequested) -> tuple[Changes, tuple[do.Command, ...]]:
    """Ask the running body to stop."""
    return {"state_name": "Cancelling"}, (do.Stop(run.id, run.dispatch),)


def _cancelled_by(ending: Ending) -> Effect:
    def effect(run: TaskRun, event: ev.TaskEvent) -> tuple[Changes, tuple[do.Command, ...]]:
        failures = ev.AttemptRaised | ev.AttemptTimedOut | ev.StateReturned
        error = event.error if isinstance(event, failures) else None
        cause = event.cause if isinstance(event, ev.WorkerLost) else None
        changes, orders = cancel(run, event)
        attempts = closed(run, event, ending, error=error, cause=cause)
        return changes | {"attempts": attempts}, orders

    effect.__doc__ = f"End cancelled; the attempt, if any, was {ending.value}."
    return effect


def abandon(run: TaskRun, event: ev.StopExpired) -> tuple[Changes, tuple[do.Command, ...]]:
    """End cancelled; the body goes on, and what it reports is late news."""
    changes, orders = cancel(run, event)
    changes |= {
        "attempts": closed(run, event, Ending.ABANDONED),
        "message": "Its body could not be stopped and goes on; its outcome will not be recorded.",
    }
    return changes, orders


def pause(run: TaskRun, event: ev.PauseRequested) -> tuple[Changes, tuple[do.Command, ...]]:
    """Wait until somebody says go on."""
    return {"state_name": "Paused", "message": "", "due": None}, ()


def lose_value(run: TaskRun, event: ev.ResultLost) -> tuple[Changes, tuple[do.Command, ...]]:
    """Note that the value is gone; the task run stays completed."""
    return {"held": Held.LOST, "stored": None}, ()


def regain_value(
    run: TaskRun, event: ev.ResultRecomputed
) -> tuple[Changes, tuple[do.Command, ...]]:
    """Note that the value is back."""
    return {"held": Held.RUNNER}, ()


def reuse(run: TaskRun, event: ev.Reused) -> tuple[Changes, tuple[do.Command, ...]]:
    """Note that the value was given again."""
    return {"reused": event.generation, "asked": event.generation}, ()


def outdate(run: TaskRun, event: ev.Outdated) -> tuple[Changes, tuple[do.Command, ...]]:
    """Give the value no more; the task run stays completed until it is asked for."""
    return {"held": Held.OUTDATED}, ()


def _next(run: TaskRun, event: ev.Reopened) -> Changes:
    outdated = run.held is Held.OUTDATED  # until there is another one
    return {
        "generation": event.generation,
        "upstreams": event.upstreams,
        "policy": event.policy,
        "attempts": closed(run, event, Ending.LOST, cause=Cause.DRIVER_LOST),
        "state_name": "Pending",
        "message": "",
        "held": Held.OUTDATED if outdated else Held.NOWHERE,
        "stored": None,
        "source": event.source,
        "asked": event.asked,
        "anew": event.generation if outdated and run.stage is Stage.COMPLETED else run.anew,
        "suspect": False,
    }


def reopen(run: TaskRun, event: ev.Reopened) -> tuple[Changes, tuple[do.Command, ...]]:
    """Begin a new generation with fresh budgets."""
    changes = _next(run, event) | {"raised": 0, "losses": 0, "error": None, "due": None}
    return changes, (do.Consider(run.id),)


def take_up(run: TaskRun, event: ev.Reopened) -> tuple[Changes, tuple[do.Command, ...]]:
    """Begin a new generation of a task run that was cut short: what is spent stays spent."""
    return _next(run, event) | {"due": None}, (do.Consider(run.id),)


def keep_waiting(run: TaskRun, event: ev.Reopened) -> tuple[Changes, tuple[do.Command, ...]]:
    """Begin a new generation of a task run that awaits a retry: it keeps its time."""
    due = run.due if run.due is not None else event.at
    changes = _next(run, event) | {"state_name": "AwaitingRetry", "due": due}
    return changes, (do.SetTimer(run.id, due, event.generation, 0),)


# The table -----------------------------------------------------------------------------------------

Guard = Callable[[TaskRun, Any], bool]
Effect = Callable[[TaskRun, Any], tuple[Changes, tuple[do.Command, ...]]]


@dataclass(frozen=True, slots=True)
class Row:
    """In `stage`, when `event` comes and `guard` holds: go to `target`, with `effect`."""

    stage: Stage
    event: type[ev.TaskEvent]
    guard: Guard
    target: Stage
    effect: Effect


def _rows() -> Iterator[Row]:
    waiting, dispatched, running = Stage.WAITING, Stage.DISPATCHED, Stage.RUNNING
    retry, paused, cancelling = Stage.AWAITING_RETRY, Stage.PAUSED, Stage.CANCELLING
    completed, failed = Stage.COMPLETED, Stage.FAILED
    crashed, cancelled = Stage.CRASHED, Stage.CANCELLED

    yield Row(waiting, ev.UpstreamsMet, always, dispatched, dispatch)
    yield Row(waiting, ev.UpstreamFailed, untried, failed, upstream_failed)
    yield Row(waiting, ev.UpstreamFailed, always, failed, upstream_gone)
    yield Row(waiting, ev.UpstreamLost, always, failed, upstream_lost)
    yield Row(waiting, ev.CacheHit, untried, completed, hit)
    yield Row(waiting, ev.CancelRequested, always, cancelled, cancel)
    yield Row(waiting, ev.PauseRequested, always, paused, pause)

    yield Row(dispatched, ev.AttemptStarted, current, running, start)
    yield Row(dispatched, ev.DispatchVoided, current, waiting, void)
    yield Row(dispatched, ev.WorkerLost, current, waiting, void_lost)
    yield Row(dispatched, ev.UpstreamFailed, untried, failed, upstream_failed_withdrawn)
    yield Row(dispatched, ev.CancelRequested, always, cancelling, withdraw)

    for stage in (dispatched, running):
        yield Row(stage, ev.AttemptSucceeded, current, completed, succeed)
        for failure in (ev.AttemptRaised, ev.AttemptTimedOut):
            yield Row(stage, failure, may_retry, retry, retry_later)
            yield Row(stage, failure, current, failed, fail)
        yield Row(stage, ev.AttemptStopped, current, cancelled, _cancelled_by(Ending.STOPPED))
        for target in (failed, crashed, cancelled):
            yield Row(stage, ev.StateReturned, returned(target), target, end_as_returned)
        yield Row(stage, ev.TaskRunNamed, other_name, stage, rename)

    yield Row(running, ev.DispatchVoided, current, waiting, lose)
    yield Row(running, ev.WorkerLost, free_loss, waiting, lose)
    yield Row(running, ev.WorkerLost, may_lose, waiting, lose_charged)
    yield Row(running, ev.WorkerLost, current, crashed, crash)
    yield Row(running, ev.CancelRequested, always, cancelling, stop)

    yield Row(retry, ev.RetryDue, timer_fits, waiting, go_again)
    yield Row(retry, ev.CancelRequested, always, cancelled, cancel)
    yield Row(retry, ev.PauseRequested, always, paused, pause)

    yield Row(paused, ev.Unpaused, always, waiting, go_again)
    yield Row(paused, ev.UpstreamFailed, untried, failed, upstream_failed)
    yield Row(paused, ev.CancelRequested, always, cancelled, cancel)

    yield Row(cancelling, ev.AttemptStarted, late_start, cancelling, start_and_stop)
    yield Row(cancelling, ev.AttemptSucceeded, current, completed, succeed)
    yield Row(cancelling, ev.AttemptRaised, current, cancelled, _cancelled_by(Ending.RAISED))
    yield Row(cancelling, ev.AttemptTimedOut, current, cancelled, _cancelled_by(Ending.TIMED_OUT))
    yield Row(cancelling, ev.AttemptStopped, current, cancelled, _cancelled_by(Ending.STOPPED))
    yield Row(cancelling, ev.StateReturned, current, cancelled, _cancelled_by(Ending.RETURNED))
    yield Row(cancelling, ev.WorkerLost, current, cancelled, _cancelled_by(Ending.LOST))
    yield Row(cancelling, ev.DispatchVoided, current, cancelled, _cancelled_by(Ending.STOPPED))
    yield Row(cancelling, ev.StopExpired, current, cancelled, abandon)

    yield Row(completed, ev.ResultLost, value_held, completed, lose_value)
    yield Row(completed, ev.ResultRecomputed, value_lost, completed, regain_value)
    yield Row(completed, ev.Reused, later_use, completed, reuse)
    yield Row(completed, ev.Outdated, value_given, completed, outdate)
    yield Row(completed, ev.Reopened, value_unwanted, waiting, reopen)

    for stage in (failed, crashed, cancelled):
        yield Row(stage, ev.Reopened, next_generation, waiting, reopen)
    for stage in (waiting, dispatched, running, paused, cancelling):
        yield Row(stage, ev.Reopened, next_generation, waiting, take_up)
    yield Row(retry, ev.Reopened, next_generation, retry, keep_waiting)


Table = dict[tuple[Stage, type[ev.TaskEvent]], tuple[Row, ...]]


def tabulate(rows: Iterable[Row]) -> Table:
    """Return the rows by (stage, event), in their order."""
    table: dict[tuple[Stage, type[ev.TaskEvent]], tuple[Row, ...]] = {}
    for row in rows:
        key = (row.stage, row.event)
        table[key] = (*table.get(key, ()), row)
    return table


ROWS: tuple[Row, ...] = tuple(_rows())
TABLE: Table = tabulate(ROWS)


# Applying it -----------------------------------------------------------------------------------------


def step(run: TaskRun, event: ev.TaskEvent, table: Table = TABLE) -> Step:
    """Return the task run as `event` leaves it, and what is to be done.

    An event that no row admits is refused: the same object comes back, with no commands.
    `changed_at` never goes back, whatever the clocks do.
    """
    for row in table.get((run.stage, type(event)), ()):
        if row.guard(run, event):
            changes, orders = row.effect(run, event)
            at = max(run.changed_at, event.at)
            return replace(run, stage=row.target, changed_at=at, **changes), orders
    return run, ()
