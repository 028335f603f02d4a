"""What must hold of every history and of the records it leaves, each as one small function.

A history is unrolled once into its changes (``history.py``). Each function here, in
``record_invariants.py`` and in ``event_invariants.py`` looks at changes, at records or at events, and
returns a readable sentence for every break that it finds: an empty list means that all is well. `check`
runs them all. Everything is linear in the number of events, and nothing here changes anything.

Asserted by property tests, after every fault test, and by ``dflow doctor``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeGuard

from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.event_invariants import (
    each_event_counts,
    speaks_of_known_runs,
    states_add_up,
    twice_is_once,
)
from dflow.core.event_invariants import (
    numbers_without_gaps as numbers_without_gaps,
)
from dflow.core.history import Change, FlowChange, TaskChange, unroll
from dflow.core.record_invariants import (
    Run,
    attempts_in_order,
    completed_once,
    no_negative_durations,
    replay_agrees,
    returned_ends_it,
    states_fit_stages,
)
from dflow.core.records import Cause, Ending, FlowRun, FlowStage, Held, Need, Stage, Upstream
from dflow.core.replay import Table
from dflow.states import TYPE_OF_NAME

# Helpers ------------------------------------------------------------------------------------------


def _of_tasks(changes: Iterable[Change]) -> Iterator[TaskChange]:
    return (change for change in changes if isinstance(change, TaskChange))


def _ends(change: Change) -> bool:
    return change.after.stage.final and not (change.before and change.before.stage.final)


# All of them ---------------------------------------------------------------------------------------


def check(
    events: Sequence[ev.Event], table: Table | None = None, rules: machine.Table = machine.TABLE
) -> list[str]:
    """Return what is broken in a history and in the records that were kept of it, if they are given.

    `rules` are those of task runs, by which the history is replayed.
    """
    changes, replayed = unroll(events, rules)
    kept = replayed if table is None else table
    task_runs = [*kept.task_runs.values(), *(change.after for change in _of_tasks(changes))]
    flow_runs = [c.after for c in changes if isinstance(c, FlowChange)]
    broken = [
        *speaks_of_known_runs(events),
        *states_add_up(events, kept),
        *replay_agrees(replayed, kept),
        *final_stays_final(changes),
        *stale_news_changes_nothing(changes),
        *dispatch_numbers_grow(changes),
        *budgets_kept(changes),
        *names_stay(changes),
        *ends_as_returned(changes),
        *deadlines_set(changes),
        *upstreams_heeded(changes),
        *nothing_after_cancel(changes),
        *root_ends_last(changes),
        *each_event_counts(events, changes),
        *twice_is_once(events, rules),
        *states_fit_stages([*kept.flow_runs.values(), *flow_runs, *task_runs]),
        *attempts_in_order(task_runs),
        *completed_once(task_runs),
        *returned_ends_it(task_runs),
        *no_negative_durations(task_runs),
    ]
    return list(dict.fromkeys(broken))


# Over the changes ----------------------------------------------------------------------------------


def _begun_anew(change: Change) -> bool:
    """Tell whether a change began a new generation."""
    begins = isinstance(change.event, ev.Reopened | ev.FlowRunStarted)
    before = change.before.generation if change.before else 0
    return begins and change.after.generation > before and not change.after.stage.final


def final_stays_final(changes: Iterable[Change]) -> list[str]:
    """Return what changed after its end, or what changed its generation without being asked for again.

    The value of what has completed may be lost at the runner and come back, and it may be outdated for good.
    """
    broken = []
    for change in changes:
        before, after = change.before, change.after
        if before is None or _begun_anew(change):
            continue
        if after.generation != before.generation:
            broken.append(f"Event {change.number} changed the generation of '{after.id}'.")
        if before.stage.final and not _only_value_moved(before, after):
            broken.append(f"Event {change.number} changed '{after.id}', which had ended.")
    return broken


def _only_value_moved(before: Run, after: Run) -> bool:
    outdated = after.held is Held.OUTDATED is not before.held
    fixed = Held.JOURNAL in (before.held, after.held) or before.held is Held.OUTDATED
    if before.held is not after.held and fixed and not outdated:
        return False
    movable = ("changed_at", "held", "stored", "asked", "reused")
    changeable = [name for name in movable if hasattr(after, name)]
    return replace(before, **{name: getattr(after, name) for name in changeable}) == after


def stale_news_changes_nothing(changes: Iterable[Change]) -> list[str]:
    """Return the reports that changed a task run though they speak of another dispatch."""
    return [
        f"Event {change.number} is of dispatch {change.event.dispatch} and changed '{change.after.id}', "
        f"whose dispatch was {change.before.dispatch}."
        for change in _of_tasks(changes)
        if change.before is not None
        and isinstance(change.event, ev.Report)
        and change.event.dispatch != change.before.dispatch
    ]


def dispatch_numbers_grow(changes: Iterable[Change]) -> list[str]:
    """Return the dispatches that do not have the next number, or that do not wait for a suspect's start."""
    broken = []
    for change in _of_tasks(changes):
        before, after = change.before, change.after
        last = before.dispatch if before else 0
        orders = [order for order in change.orders if isinstance(order, do.Dispatch)]
        if after.dispatch != last + len(orders) or any(o.dispatch != last + 1 for o in orders):
            broken.append(
                f"Event {change.number} took '{after.id}' from dispatch {last} to {after.dispatch}."
            )
        suspect = before is not None and before.suspect
        if any(order.confirm_start != suspect for order in orders):
            broken.append(f"Event {change.number} dispatched the suspect '{after.id}' unconfirmed.")
    return broken


def budgets_kept(changes: Iterable[Change]) -> list[str]:
    """Return what was charged wrongly, tried again beyond its budget, or given up within it."""
    broken = []
    for change in changes:
        broken += [f"Event {change.number}: '{change.after.id}' {f}." for f in _raised(change)]
        if isinstance(change, TaskChange):
            broken += [f"Event {change.number}: '{change.after.id}' {f}." for f in _losses(change)]
    return broken


def _raised(change: Change) -> Iterator[str]:
    """Yield what is wrong with the retries that a change spends, or ends for want of."""
    before, after, event = change.before, change.after, change.event
    failures = ev.AttemptRaised | ev.AttemptTimedOut | ev.FlowRunRaised
    counts = isinstance(event, failures) and before is not None and before.stage != "cancelling"
    if after.raised != (0 if before is None or _refreshed(change) else before.raised) + counts:
        yield f"has {after.raised} failures counted, which is not what happened"
    if isinstance(event, failures) and counts:
        spent = after.raised > after.policy.retries or not event.retriable
        if spent and not after.stage.final:
            yield f"is tried again after {after.raised} failures, with {after.policy.retries} retries"
        if not spent and after.stage.final:
            yield f"ended after {after.raised} failures, with {after.policy.retries} retries"


def _losses(change: TaskChange) -> Iterator[str]:
    """Yield what is wrong with the worker losses that a change spends, or ends for want of."""
    before, after, event = change.before, change.after, change.event
    died = isinstance(event, ev.WorkerLost) and event.cause is Cause.WORKER_DIED
    counts = died and before is not None and before.stage is Stage.RUNNING
    if after.losses != (0 if before is None or _refreshed(change) else before.losses) + counts:
        yield f"has {after.losses} worker losses counted, which is not what happened"
    spent = after.losses > after.policy.max_worker_losses
    if counts and spent and not after.stage.final:
        yield f"is tried again after {after.losses} worker losses"
    by_hand = isinstance(event, ev.StateReturned)
    if after.stage is Stage.CRASHED and not (counts and spent) and not by_hand:
        yield f"crashed after {after.losses} worker losses"


def names_stay(changes: Iterable[Change]) -> list[str]:
    """Return what got another name without being renamed, or was changed in more than its name by it."""
    broken = []
    for change in changes:
        before, after, event = change.before, change.after, change.event
        if before is None:
            continue
        renamed = isinstance(event, ev.TaskRunNamed)
        if after.name != (event.name if isinstance(event, ev.TaskRunNamed) else before.name):
            broken.append(f"Event {change.number} gave '{after.id}' the name '{after.name}'.")
        as_it_was = replace(after, name=before.name, changed_at=before.changed_at)
        if renamed and (as_it_was != before or change.orders):
            broken.append(f"Event {change.number} changed more of '{after.id}' than its name.")
    return broken


def ends_as_returned(changes: Iterable[Change]) -> list[str]:
    """Return the task runs that returned a state made by hand, and did not end with it.

    One that was asked to end before is cancelled, whatever it returns.
    """
    broken = []
    for change in _of_tasks(changes):
        event, after = change.event, change.after
        if not isinstance(event, ev.StateReturned):
            continue
        cancelling = change.before is not None and change.before.stage is Stage.CANCELLING
        expected = "Cancelled" if cancelling else event.state_name
        last = after.attempts[-1] if after.attempts else None
        by_it = last is not None and (last.dispatch, last.ending) == (
            event.dispatch,
            Ending.RETURNED,
        )
        fits = after.stage.upper() == TYPE_OF_NAME.get(expected)
        if not (by_it and fits and after.state_name == expected):
            broken.append(
                f"Event {change.number}: '{after.id}' returned the state '{event.state_name}', "
                f"and is {after.stage} as '{after.state_name}'."
            )
    return broken


def deadlines_set(changes: Iterable[Change]) -> list[str]:
    """Return the starts whose deadline was not set, and the deadlines that are not of a start."""
    broken = []
    for change in _of_tasks(changes):
        begins = isinstance(change.event, ev.AttemptStarted) and change.after.stage is Stage.RUNNING
        seconds = change.after.policy.timeout
        due = [(change.after.dispatch, seconds)] if begins and seconds is not None else []
        found = [(o.dispatch, o.seconds) for o in change.orders if isinstance(o, do.SetDeadline)]
        if found != due:
            broken.append(
                f"Event {change.number} set for '{change.after.id}' the deadlines {found}, not {due}."
            )
    return broken


def _refreshed(change: Change) -> bool:
    return change.before is not None and change.before.stage.final and _begun_anew(change)


def _fails_dependents(run: Run | None) -> TypeGuard[Run]:
    return run is not None and run.stage.final and run.stage != "completed"


def upstreams_heeded(changes: Iterable[Change]) -> list[str]:
    """Return what ended UpstreamFailed without a failed upstream or after an attempt, or went too early.

    A task run goes when no upstream that it needs has failed, what it waits for has completed, and
    what it allows to fail has ended. Upstreams of other root flow runs are not known here. A state made
    by hand may have any name.
    """
    latest: dict[str, Run] = {}
    broken = []
    for change in changes:
        latest[change.after.id] = change.after
        if isinstance(change, TaskChange):
            name = f"Event {change.number}: '{change.after.id}'"
            broken += [f"{name} {fault}." for fault in _upstream_faults(change, latest)]
    return broken


def _upstream_faults(change: TaskChange, latest: dict[str, Run]) -> Iterator[str]:
    run = change.after
    needed = (u for u in run.upstreams if u.need is not Need.ALLOW)
    if isinstance(change.event, ev.StateReturned):
        return
    if _ends(change) and run.state_name == "UpstreamFailed":
        if run.attempts_now:
            yield "ended UpstreamFailed after an attempt"
        if not any(_fails_dependents(latest.get(u.task_run_id)) for u in needed):
            yield "ended UpstreamFailed without a failed upstream"
    elif _ends(change) and run.stage is Stage.FAILED and not run.attempts_now:
        if run.state_name != "UpstreamLost":
            yield f"ended {run.state_name} without an attempt"
    elif isinstance(change.event, ev.UpstreamsMet) or _made_ready(change):
        early = (u.task_run_id for u in run.upstreams if _holds_back(u, latest.get(u.task_run_id)))
        yield from (f"was dispatched though '{upstream}' stood in its way" for upstream in early)


def _made_ready(change: TaskChange) -> bool:
    return change.before is None and change.after.stage is Stage.DISPATCHED


def _holds_back(upstream: Upstream, run: Run | None) -> bool:
    if run is None:
        return False
    if upstream.need is Need.ALLOW:
        return not run.stage.final
    return _fails_dependents(run) or (upstream.need is Need.WAIT and not run.stage.final)


_AFTER_CANCEL = frozenset({Stage.CANCELLING, Stage.CANCELLED, Stage.COMPLETED})


def nothing_after_cancel(changes: Iterable[Change]) -> list[str]:
    """Return what went on, or was dispatched, after it or its flow run was asked to end.

    A body that starts late, from an earlier dispatch, is recorded and stopped at once.
    """
    cancelled: dict[str, int] = {}
    ending: set[str] = set()
    broken = []
    for change in changes:
        after = change.after
        if isinstance(change, FlowChange):
            ends = change.after.stage in (FlowStage.CANCELLING, FlowStage.CANCELLED)
            (ending.add if ends else ending.discard)(after.id)
            continue
        if isinstance(change.event, ev.CancelRequested):
            cancelled[after.id] = after.generation
        dispatched = any(isinstance(order, do.Dispatch) for order in change.orders)
        if dispatched and change.after.flow_run_id in ending:
            broken.append(f"Event {change.number} dispatched '{after.id}' of a cancelled flow run.")
        if cancelled.get(after.id) == after.generation:
            name = f"Event {change.number}: '{after.id}'"
            broken += [f"{name} {fault}." for fault in _goes_on(change, dispatched)]
    return broken


def _goes_on(change: TaskChange, dispatched: bool) -> Iterator[str]:
    if dispatched or change.after.stage not in _AFTER_CANCEL:
        yield f"was cancelled, and became {change.after.stage}"
    starts = isinstance(change.event, ev.AttemptStarted)
    if starts and not any(isinstance(order, do.Stop) for order in change.orders):
        yield "was cancelled, and started without being stopped"


def root_ends_last(changes: Iterable[Change]) -> list[str]:
    """Return where the root flow run had ended while task runs had not.

    One that was asked for after that end, by something that the flow has left behind, must be cancelled.
    """
    unfinished: dict[str, None] = {}
    late: dict[str, None] = {}
    root: FlowRun | None = None
    broken = []
    for change in changes:
        ended = root is not None and root.stage.final
        if isinstance(change, FlowChange):
            root = change.after if change.after.parent_id is None else root
        elif change.after.stage.final:
            unfinished.pop(change.after.id, None)
            late.pop(change.after.id, None)
        else:
            (late if ended and change.before is None else unfinished)[change.after.id] = None
        if root is not None and root.stage.final and unfinished:
            broken.append(_has_left(root, unfinished))
            root = None
    return [*broken, _has_left(root, late)] if root is not None and late else broken


def _has_left(root: FlowRun, unfinished: dict[str, None]) -> str:
    some = ", ".join(f"'{run_id}'" for run_id in list(unfinished)[:3])
    count = len(unfinished)
    return f"Flow run '{root.id}' is {root.stage}, {count} task runs are not: {some} …"
