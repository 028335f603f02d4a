"""A history, unrolled: what each event did to each record. For those that look back, not for the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.records import FlowRun, TaskRun
from dflow.core.replay import Table


@dataclass(frozen=True, slots=True)
class TaskChange:
    """What event `number` of a history (from 1) did to a task run; `before` is None when it made it."""

    number: int
    event: ev.Event
    before: TaskRun | None
    after: TaskRun
    orders: tuple[do.Command, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowChange:
    """What event `number` of a history (from 1) did to a flow run; `before` is None when it made it."""

    number: int
    event: ev.Event
    before: FlowRun | None
    after: FlowRun
    orders: tuple[do.Command, ...] = ()


Change = TaskChange | FlowChange


def unroll(
    events: Iterable[ev.Event], rules: machine.Table = machine.TABLE
) -> tuple[list[Change], Table]:
    """Return the changes of a history in their order, and the table that it leaves."""
    table = Table(rules)
    changes: list[Change] = []
    for number, event in enumerate(events, 1):
        before = _subject(event, table)
        for after, orders in table.apply(event):
            if isinstance(after, TaskRun):
                task_run = before if isinstance(before, TaskRun) else None
                changes.append(TaskChange(number, event, task_run, after, orders))
            else:
                flow_run = before if isinstance(before, FlowRun) else None
                changes.append(FlowChange(number, event, flow_run, after, orders))
    return changes, table


def _subject(event: ev.Event, table: Table) -> TaskRun | FlowRun | None:
    if isinstance(event, ev.TaskEvent):
        return table.task_runs.get(event.task_run_id)
    if isinstance(event, ev.FlowEvent):
        return table.flow_runs.get(event.flow_run_id)
    return None
