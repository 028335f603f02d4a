"""Closing: what is left of a flow run is cancelled, given up, or told apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dflow.core import events as ev
from dflow.core.records import Cause, FlowStage, TaskRun

if TYPE_CHECKING:
    from dflow.engine.ledger import Ledger


class Closing:
    """Closes flow runs of one ledger. In those that are among `flows` nothing begins any more."""

    def __init__(self, ledger: Ledger) -> None:
        self.flows: set[str] = set()
        self._ledger = ledger

    def cancel_all(self, flow_run_id: str, at: float) -> None:
        """Cancel all that is unfinished under a flow run, and whatever is asked for there from now on."""
        self.flows |= self._ledger.table.family(flow_run_id)
        self._cancel_left_flows(flow_run_id, at)
        for run in self.unfinished_under(flow_run_id):
            self._ledger.apply(ev.CancelRequested(at=at, task_run_id=run.id))

    def abandon_all(self, flow_run_id: str, at: float) -> None:
        """Give up on the bodies under a flow run that were asked to stop and go on."""
        for run in self.unfinished_under(flow_run_id):
            self._ledger.apply(ev.StopExpired(at=at, task_run_id=run.id, dispatch=run.dispatch))

    def cancel_unclaimed(self, flow_run_id: str, at: float) -> list[str]:
        """Cancel what an earlier driver left unfinished and nobody has asked for again; return the names.

        Under one flow run, the subflows that were not called again included.
        """
        self._cancel_left_flows(flow_run_id, at)
        asked = self._ledger.claims.keys() - self._ledger.adopted.waiting
        left = [run for run in self.unfinished_under(flow_run_id) if run.id not in asked]
        for run in left:
            self._ledger.apply(ev.CancelRequested(at=at, task_run_id=run.id))
        return [run.name for run in left]

    def give_up(self, task_run_ids: Iterable[str], at: float) -> None:
        """Cancel task runs whose caller, in whose thread they run, has gone away."""
        for task_run_id in task_run_ids:
            self._ledger.apply(ev.CancelRequested(at=at, task_run_id=task_run_id))
            self._ledger.apply(
                ev.DispatchVoided(
                    at=at,
                    task_run_id=task_run_id,
                    dispatch=self._ledger.table.task_runs[task_run_id].dispatch,
                    cause=Cause.WITHDRAWN,
                )
            )

    def unfinished_under(self, flow_run_id: str) -> list[TaskRun]:
        """Return the task runs that are not final, of a flow run and of the subflows under it."""
        if not self._ledger.tally.unfinished.total():
            return []
        family = self._ledger.table.family(flow_run_id)
        return [
            run
            for run in self._ledger.table.task_runs.values()
            if not run.stage.final and run.flow_run_id in family
        ]

    def _cancel_left_flows(self, flow_run_id: str, at: float) -> None:
        table = self._ledger.table
        for member in table.family(flow_run_id) - {flow_run_id}:
            run = table.flow_runs[member]
            if not run.stage.final and run.stage is not FlowStage.INTERRUPTED:
                message = "What ran it ended before it did."
                self._ledger.apply(
                    ev.FlowRunInterrupted(at=at, flow_run_id=member, message=message)
                )
            if not run.stage.final:
                self._ledger.apply(ev.FlowCancelRequested(at=at, flow_run_id=member))
