"""What must hold of the events of a history, one after the other. ``invariants.py`` says how it is used."""

from __future__ import annotations

from collections.abc import Iterable

from dflow.core import events as ev
from dflow.core import machine
from dflow.core.history import Change
from dflow.core.replay import Table


def numbers_without_gaps(numbered: Iterable[tuple[int, object]]) -> list[str]:
    """Return where the numbers of events, from 1, leave a gap or come twice."""
    broken = []
    due = 1
    for number, _ in numbered:
        if number != due:
            broken.append(f"Event {number} stands where event {due} is due.")
        due = number + 1
    return broken


def _created(event: ev.Event) -> list[str]:
    if isinstance(event, ev.MapCreated):
        return [item.task_run_id for item in event.items]
    return [event.task_run_id] if isinstance(event, ev.TaskCreated) else []


def speaks_of_known_runs(events: Iterable[ev.Event]) -> list[str]:
    """Return the events that speak of a run before it was created."""
    known: set[str] = set()
    broken = []
    for number, event in enumerate(events, 1):
        known.update(_created(event))
        if isinstance(event, ev.FlowRunCreated):
            known.add(event.flow_run_id)
        if isinstance(event, ev.TaskEvent) and event.task_run_id not in known:
            broken.append(f"Event {number} speaks of the unknown task run '{event.task_run_id}'.")
        if isinstance(event, ev.FlowEvent) and event.flow_run_id not in known:
            broken.append(f"Event {number} speaks of the unknown flow run '{event.flow_run_id}'.")
    return broken


def states_add_up(events: Iterable[ev.Event], table: Table) -> list[str]:
    """Return the task runs that were created and have no record, or have one and were not created."""
    created = dict.fromkeys(run_id for event in events for run_id in _created(event))
    lost = [f"'{i}' was created and has no record." for i in created if i not in table.task_runs]
    stray = [
        f"'{i}' has a record and was not created." for i in table.task_runs if i not in created
    ]
    return [f"Task run {sentence}" for sentence in lost + stray]


def each_event_counts(events: Iterable[ev.Event], changes: Iterable[Change]) -> list[str]:
    """Return the events that change nothing: what is refused is never recorded."""
    counted = {change.number for change in changes}
    return [
        f"Event {number} ({type(event).__name__}) is refused where it stands."
        for number, event in enumerate(events, 1)
        if number not in counted
    ]


def twice_is_once(events: Iterable[ev.Event], rules: machine.Table = machine.TABLE) -> list[str]:
    """Return the events that change something again when they are applied a second time."""
    table = Table(rules)
    broken = []
    for number, event in enumerate(events, 1):
        table.apply(event)
        if again := table.apply(event):
            name = again[0][0].id
            broken.append(
                f"Event {number} ({type(event).__name__}) changes '{name}' a second time."
            )
    return broken
