"""The task runs of a ledger that were adopted: see `adoption`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import Stage, TaskRun
from dflow.engine.claims import Claim

if TYPE_CHECKING:
    from dflow.engine.ledger import Ledger

UNDER_WAY = frozenset({Stage.DISPATCHED, Stage.RUNNING})
"""Where a dispatch is that has begun, or may begin, somewhere."""


class Adopted:
    """The task runs of one ledger that were adopted: those that nobody has asked for yet, and the others."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self._asked: dict[str, int] = {}
        self._held: set[str] = set()

    def take(self, ledger: Ledger, task_run_ids: Iterable[str], claim: Claim) -> None:
        """Claim task runs for the runner that has them."""
        runs = [ledger.table.task_runs[run_id] for run_id in task_run_ids]
        ledger.claims.update((run.id, claim) for run in runs)
        ledger.take_handles([run.id for run in runs])
        self._held.update(run.id for run in runs)
        for run in runs:
            if run.stage is Stage.COMPLETED:
                ledger.with_runner.add(run.id)
            else:
                self.waiting.add(run.id)
                timeout = run.policy.timeout if run.stage is Stage.RUNNING else None
                deadline = do.SetDeadline(run.id, run.dispatch, timeout or 0.0)
                ledger.connect(run, () if timeout is None else (deadline,))

    def give(self, ledger: Ledger, asked: Iterable[ev.TaskCreated], claim: Claim) -> list[str]:
        """Give dispatches that are under way to whoever asks for their task runs; return which."""
        given = []
        for item in asked if self else ():
            run_id = item.task_run_id
            if run_id in self._held:
                self._held.discard(run_id)
                ledger.drop_handles([run_id])  # whoever asks has one by now
            if run_id in self.waiting:
                self.waiting.discard(run_id)
                known = ledger.claims.pop(run_id)
                if not claim.here and known.runner == claim.runner:
                    self._asked[run_id] = item.asked
                    given.append(run_id)
        return given

    def follow(self, ledger: Ledger, run: TaskRun, at: float) -> list[ev.Event]:
        """Keep up with what becomes of a task run; return what follows."""
        if run.stage in UNDER_WAY:
            return []
        if run.id in self.waiting:
            self.waiting.discard(run.id)
            if not run.stage.final:
                ledger.claims.pop(run.id, None)  # it goes again once somebody asks for it
        asked = self._asked.pop(run.id, None)
        if asked is None or run.stage is not Stage.COMPLETED or run.asked >= asked:
            return []
        return [ev.Reused(at=at, task_run_id=run.id, generation=asked)]

    def __bool__(self) -> bool:
        return bool(self.waiting or self._asked or self._held)
