"""What a session tells of what was recorded: to people, and to attempts that wait for it.

Everything here runs in the tracker's thread, after the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dflow.core import events as ev
from dflow.core.records import FlowRun, Held, Stage, TaskRun
from dflow.engine import run_logs
from dflow.engine.dispatcher import Asking
from dflow.messages import LogEntry, Settled, StartConfirmed
from dflow.ports import OpenRunner

if TYPE_CHECKING:
    from dflow.engine.session import Session


class Telling:
    """Tells those outside the tracker what became of runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told_changed: set[str] = set()

    def echo(self, entries: Sequence[LogEntry], events: Sequence[ev.Event]) -> None:
        """Show what runs said, and what workers that are gone have cost them; remember small values."""
        run_logs.echo(entries, self._session.name_of)
        for event in events:
            if isinstance(event, ev.AttemptSucceeded | ev.CacheHit):
                self._session.recent.note(event.task_run_id, event.value)
            elif isinstance(event, ev.Reused):
                self._tell_changed(event)
            elif isinstance(event, ev.AttemptRaised | ev.AttemptTimedOut):
                run_logs.announce_retry(self._session.task_run(event.task_run_id), event)
            elif isinstance(event, ev.WorkerLost):
                run_logs.announce_loss(self._session.task_run(event.task_run_id), event)

    def _tell_changed(self, event: ev.Reused) -> None:
        """Tell, once for each task, that results of other code are given."""
        if event.changed:
            task_name = self._session.task_run(event.task_run_id).task_name
            if task_name not in self._told_changed:
                self._told_changed.add(task_name)
                run_logs.show_changed(self._session.root.flow_run_name, task_name)

    def changed(self, runs: Iterable[TaskRun | FlowRun]) -> None:
        """Tell what became of runs."""
        session, dispatcher = self._session, self._session.dispatcher
        for run in runs:
            run_logs.announce(run)
            session.persisting.note(run)
            asked = dispatcher.asked.get(run.id)
            if asked is None or isinstance(run, FlowRun):
                continue
            if run.stage.final:
                session.caches.settled(run)
                dispatcher.calls.pop(run.id, None)
                if run.stage is Stage.COMPLETED:
                    session.errors.pop(run.id, None)
            if asked.runner is not None and (dispatcher.confirming or asked.parent is not None):
                self._tell_attempts(run, asked, asked.runner)

    def _tell_attempts(self, run: TaskRun, asked: Asking, runner: OpenRunner) -> None:
        """Tell an attempt that its start is recorded, and its caller that it has ended."""
        key, confirming = (run.id, run.dispatch), self._session.dispatcher.confirming
        if key in confirming and run.stage is Stage.RUNNING:
            confirming.discard(key)
            runner.tell(key, StartConfirmed(key))
        if asked.parent is not None and run.stage.final:
            runner.tell(asked.parent, self._settled(run))

    def _settled(self, run: TaskRun) -> Settled:
        session = self._session
        root = session.task_run(session.ledger.root_failure(run.id))
        return Settled(
            task_run_id=run.id,
            state_name=run.state_name,
            message=run.message,
            at=run.changed_at,
            error=root.error if root.state_name in ("Failed", "TimedOut") else None,
            value=session.kept_bytes(run.id) if run.held is Held.JOURNAL else None,
            key=(run.id, run.dispatch) if run.id in session.ledger.with_runner else None,
            stored=run.stored if run.held is Held.STORED else None,
            dispatch=run.dispatch,
            name=run.name,
        )
