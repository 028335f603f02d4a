"""What the driver before has left: it is closed, and what nobody has asked for again is told apart."""

from __future__ import annotations

from dflow.core import events as ev
from dflow.core.asked import left_behind, made_from_lost
from dflow.core.records import Cause, FlowStage, Held, Stage, TaskRun
from dflow.core.replay import Table
from dflow.engine.adoption import reattach
from dflow.engine.ledger import Ledger
from dflow.engine.session import Session
from dflow.ports import RunReader
from dflow.results import files

MESSAGE = "Its driver ended before it did."
SHOWN = 10
"""How many names are shown."""


def table_of(journal: RunReader) -> Table:
    """Return what is recorded of a run."""
    table = Table()
    table.flow_runs.update((run.id, run) for run in journal.flow_runs())
    table.task_runs.update((run.id, run) for run in journal.task_runs())
    return table


def take_over(session: Session, at: float) -> None:
    """Go on with what the driver before has left where it can be, and close the rest."""
    reattach(session)
    session.in_tracker(lambda ledger: recover(ledger, at))


def recover(ledger: Ledger, at: float) -> None:
    """Close what a driver that is gone has left open, and was not adopted: nothing will be heard of it."""
    for flow_run in list(ledger.table.flow_runs.values()):
        if not flow_run.stage.final and flow_run.stage is not FlowStage.INTERRUPTED:
            ledger.apply(ev.FlowRunInterrupted(at=at, flow_run_id=flow_run.id, message=MESSAGE))
    for run in list(ledger.table.task_runs.values()):
        open_stages = (Stage.DISPATCHED, Stage.RUNNING, Stage.CANCELLING)
        if run.stage in open_stages and run.id not in ledger.adopted.waiting:
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


def forget_damaged(session: Session) -> None:
    """Note which values in the journal cannot be read any more: their task runs will run again."""
    runs, now = session.ledger.table.task_runs, session.clock.now()
    damaged = [run_id for run_id in session.journal.damaged_values() if run_id in runs]
    if not damaged:
        return

    def forget(ledger: Ledger) -> None:
        for run_id in damaged:
            ledger.apply(ev.Outdated(at=now, task_run_id=run_id))

    session.in_tracker(forget)
    names = ", ".join(sorted(map(session.name_of, damaged))[:SHOWN])
    session.warn(
        f"{len(damaged)} values in the journal are damaged, and are computed again where they are asked for: "
        f"{names}{', …' if len(damaged) > SHOWN else ''}"
    )


def forget_gone(session: Session) -> None:
    """Note which values are not in their result stores any more: their task runs will run again.

    A file that has another size counts as gone. Raises `ResultStoreError` if a store cannot be looked at.
    """
    runs = session.ledger.table.task_runs
    kept = {r.id: r.stored for r in runs.values() if r.held is Held.STORED and r.stored is not None}
    gone = files.gone(kept)
    if not gone:
        return
    now = session.clock.now()

    def forget(ledger: Ledger) -> None:
        for run_id in gone:
            dispatch = ledger.table.task_runs[run_id].dispatch
            ledger.apply(ev.ResultLost(at=now, task_run_id=run_id, dispatch=dispatch, stored=True))

    session.in_tracker(forget)
    names = ", ".join(sorted(session.name_of(run_id) for run_id in gone)[:SHOWN])
    more = ", …" if len(gone) > SHOWN else ""
    session.warn(
        f"{len(gone)} of {len(kept)} results are not in their store any more, and are computed again "
        f"where they are asked for: {names}{more}"
    )


def mixed_with_lost(table: Table) -> list[tuple[TaskRun, TaskRun]]:
    """Return what was given again though it was made from a value that was lost and made again, with that."""
    return list(made_from_lost(table.task_runs, table.flow_runs))
