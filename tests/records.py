"""What is recorded of a run, for tests that look at it."""

from __future__ import annotations

from dflow.core import invariants
from dflow.core.events import Event
from dflow.core.replay import Table
from dflow.ports import RunReader


def table_of(reader: RunReader) -> Table:
    """Return the records of a run."""
    table = Table()
    table.flow_runs.update((run.id, run) for run in reader.flow_runs())
    table.task_runs.update((run.id, run) for run in reader.task_runs())
    return table


def events_of(reader: RunReader) -> list[Event]:
    """Return the events of a run, none of which may be missing."""
    numbered = list(reader.events())
    assert invariants.numbers_without_gaps(numbered) == []
    return [event for _, event in numbered if event is not None]


def sound(reader: RunReader) -> Table:
    """Return the records of a run, whose invariants must hold."""
    table = table_of(reader)
    assert invariants.check(events_of(reader), table) == []
    return table
