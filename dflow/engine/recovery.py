"""What the driver before has left: it is closed, and what nobody has asked for again is told apart."""

from __future__ import annotations

from dflow.core import events as ev
from dflow.core.asked import left_behind
from dflow.core.records import Cause, FlowStage, Stage
from dflow.core.replay import Table
from dflow.engine.ledger import Ledger

MESSAGE = "Its driver ended before it did."


def recover(ledger: Ledger, at: float) -> None:
    """Close what a driver that is gone has left open: nothing that it had sent out will be heard of."""
    for flow_run in list(ledger.table.flow_runs.values()):
        if not flow_run.stage.final and flow_run.stage is not FlowStage.INTERRUPTED:
            ledger.apply(ev.FlowRunInterrupted(at=at, flow_run_id=flow_run.id, message=MESSAGE))
    for run in list(ledger.table.task_runs.values()):
        if run.stage in (Stage.DISPATCHED, Stage.RUNNING, Stage.CANCELLING):
            ledger.apply(
                ev.WorkerLost(
                    at=at,
                    task_run_id=run.id,
                    dispatch=run.dispatch,
                    cause=Cause.DRIVER_LOST,
                    message=MESSAGE,
                )
            )


def left_unclaimed(table: Table) -> list[str]:
    """Return the names of the finished task runs that nobody has asked for again."""
    return [run.name for run in left_behind(table.task_runs, table.flow_runs)]
