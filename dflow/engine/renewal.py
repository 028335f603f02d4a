"""Renewal: which completed task runs give the value that is recorded of them, and which run again.

One that is asked for again gives its value, unless that is outdated: a rerun wants it anew, its code has
changed and the user wants that to count, or something that it was made from runs again to another end.
Whatever follows from an outdated value is outdated in the same transaction. So a driver that dies in between
leaves a record by which the next one does the rest, and does nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dflow.core import events as ev
from dflow.core.records import FlowStage, Stage, TaskRun
from dflow.core.replay import Table
from dflow.engine.lineage import ALLOWED, Lineage
from dflow.errors import RunNotFound
from dflow.results.source import has_changed


@dataclass(frozen=True, slots=True)
class Again:
    """How a run is taken up again.

    Resumed it gives what has completed; with `changed` that only while the code of its task is the same. A
    `rerun` does all again, or with `from_task` only that and what follows from it, or with `failed` only what
    has not completed.
    """

    rerun: bool = False
    from_task: str | None = None
    failed: bool = False
    changed: bool = False


RESUMED = Again()


class Renewal:
    """Outdates values in the table of one root flow run; `apply` applies an event to it."""

    def __init__(self, table: Table, apply: Callable[[ev.Event], None]) -> None:
        self._table = table
        self._apply = apply
        self._lineage: Lineage | None = None
        self._changed_too = False

    def begin(self, again: Again, at: float) -> None:
        """Outdate what is to run again now that the root flow run begins again. Raises `RunNotFound`."""
        self._changed_too = again.changed
        if again.rerun or again.changed:
            for flow_run in list(self._table.flow_runs.values()):
                if flow_run.parent_id is not None:  # their task runs decide, one by one
                    self._outdate(flow_run.id, at)
        if again.rerun and not again.failed:
            for task_run_id in self._chosen(again.from_task):
                self._outdate(task_run_id, at)

    def _chosen(self, from_task: str | None) -> list[str]:
        if from_task is None:
            return list(self._table.task_runs)
        called = _with_callers(self._table, named(self._table.task_runs.values(), from_task))
        return [*called, *Lineage(self._table).heirs(called, children=True)]

    def give(self, asked: ev.TaskCreated, run: TaskRun) -> None:
        """Give the value of a completed task run that is asked for again, or outdate it."""
        changed = has_changed(run.source, asked.source)
        if changed and self._changed_too:
            self._outdate(run.id, asked.at)
            self._outdate_heirs(run, asked.at)
        elif max(run.asked, run.reused) < asked.asked:
            self._apply(
                ev.Reused(at=asked.at, task_run_id=run.id, generation=asked.asked, changed=changed)
            )

    def opening(self, run: TaskRun, at: float) -> None:
        """Note that a task run is about to run again: others may have taken that it had failed."""
        if run.stage.final and run.stage is not Stage.COMPLETED:
            self._outdate_heirs(run, at)

    @property
    def follows(self) -> bool:
        """Whether it keeps up with anything."""
        return self._lineage is not None

    def follow(self, before: TaskRun | None, run: TaskRun) -> None:
        """Keep up with what becomes of a task run."""
        if self._lineage is None:
            return
        if before is None or before.generation != run.generation:
            self._lineage.add(run)
        elif run.stage.final and not before.stage.final:
            self._lineage.ended(run.id)

    def _outdate_heirs(self, run: TaskRun, at: float) -> None:
        if self._lineage is None:
            self._lineage = Lineage(self._table)
        failed = run.stage is not Stage.COMPLETED
        heirs = self._lineage.heirs([run.id], ALLOWED) if failed else self._lineage.heirs([run.id])
        for heir in heirs:
            self._outdate(heir, at)

    def _outdate(self, run_id: str, at: float) -> None:
        flow_run = self._table.flow_runs.get(run_id)
        if flow_run is None:
            if self._table.task_runs[run_id].stage is Stage.COMPLETED:
                self._apply(ev.Outdated(at=at, task_run_id=run_id))
        elif flow_run.stage is FlowStage.COMPLETED:
            self._apply(ev.FlowRunOutdated(at=at, flow_run_id=run_id))


def named(task_runs: Iterable[TaskRun], text: str) -> list[str]:
    """Return the task runs of the task with this name, or the one with this name or id.

    Raises `RunNotFound` if there is none.
    """
    runs = list(task_runs)
    for fits in (
        [run.id for run in runs if run.task_name == text],
        [run.id for run in runs if run.name == text],
        [run.id for run in runs if run.id == text],
    ):
        if fits:
            return fits
    tasks = ", ".join(f"'{name}'" for name in dict.fromkeys(run.task_name for run in runs))
    raise RunNotFound(
        f"The run has no task '{text}', and no task run of that name or id. "
        + (f"Its tasks are: {tasks}." if tasks else "It has no task runs.")
    )


def _with_callers(table: Table, task_run_ids: Iterable[str]) -> dict[str, None]:
    """Return task runs with those that have called them, in whose bodies alone they can run again."""
    found: dict[str, None] = {}
    for task_run_id in task_run_ids:
        run_id: str | None = task_run_id
        while run_id is not None and run_id not in found:
            task_run, flow_run = table.task_runs.get(run_id), table.flow_runs.get(run_id)
            if task_run is not None:
                found[run_id] = None
                run_id = task_run.parent_id
            else:
                run_id = None if flow_run is None else flow_run.parent_id
    return found
