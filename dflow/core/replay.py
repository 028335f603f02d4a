"""From events to records: the one way in which a history becomes a table of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import flow_machine, machine
from dflow.core.records import FlowRun, TaskRun

Changed = tuple[TaskRun | FlowRun, tuple[do.Command, ...]]
"""A record that was changed or made, and what is to be done for it."""


class Table:
    """The flow runs and task runs of one root flow run, as a history of events leaves them.

    Only tests give other `rules` than those of the machine, to see that breaking them is noticed.
    """

    def __init__(self, rules: machine.Table = machine.TABLE) -> None:
        self.task_runs: dict[str, TaskRun] = {}
        self.flow_runs: dict[str, FlowRun] = {}
        self._rules = rules

    def apply(self, event: ev.Event) -> list[Changed]:
        """Apply one event; return each record that it changed or made, with what is to be done for it.

        An event that is refused, or that speaks of an unknown run, changes nothing and returns nothing.
        """
        if isinstance(event, ev.TaskCreated):
            return self._create([machine.create(event)])
        if isinstance(event, ev.TaskEvent):
            return self._step(event)
        if isinstance(event, ev.MapCreated):
            return self._create(machine.create_all(event))
        if isinstance(event, ev.FlowRunCreated):
            return list(self._create_flow(event))
        if isinstance(event, ev.FlowEvent):
            return list(self._step_flow(event))
        return []

    def family(self, flow_run_id: str) -> set[str]:
        """Return a flow run and the subflows under it: called by it, by its tasks, by its subflows."""
        family = {flow_run_id}
        for run in self.flow_runs.values():
            caller = self.task_runs.get(run.parent_id or "")
            if run.parent_id in family or (caller is not None and caller.flow_run_id in family):
                family.add(run.id)
        return family

    def _create(self, created: Iterable[machine.Step]) -> list[Changed]:
        made: list[Changed] = []
        for step in created:
            run = step[0]
            if run.id not in self.task_runs:
                self.task_runs[run.id] = run
                made.append(step)
        return made

    def _create_flow(
        self, event: ev.FlowRunCreated
    ) -> Iterator[tuple[FlowRun, tuple[do.Command, ...]]]:
        if event.flow_run_id not in self.flow_runs:
            run, orders = flow_machine.create(event)
            self.flow_runs[run.id] = run
            yield run, orders

    def _step(self, event: ev.TaskEvent) -> list[Changed]:
        before = self.task_runs.get(event.task_run_id)
        if before is None:
            return []
        run, orders = machine.step(before, event, self._rules)
        if run is before:
            return []
        self.task_runs[run.id] = run
        return [(run, orders)]

    def _step_flow(self, event: ev.FlowEvent) -> Iterator[tuple[FlowRun, tuple[do.Command, ...]]]:
        before = self.flow_runs.get(event.flow_run_id)
        if before is not None:
            run, orders = flow_machine.step(before, event)
            if run is not before:
                self.flow_runs[run.id] = run
                yield run, orders


def replay(events: Iterable[ev.Event]) -> Table:
    """Return the table that a history of events leaves."""
    table = Table()
    for event in events:
        table.apply(event)
    return table
