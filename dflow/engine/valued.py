"""Which values are with their runners, and who still needs them: what nobody needs is released."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dflow.core import events as ev
from dflow.core.records import Held, TaskRun
from dflow.engine.claims import Claim
from dflow.engine.needs import Needs


class Valued:
    """The values of one ledger. `release` lets the runner of a task run let go of its value."""

    def __init__(
        self,
        task_runs: Mapping[str, TaskRun],
        claims: Mapping[str, Claim],
        release: Callable[[TaskRun], None],
    ) -> None:
        self.with_runner: set[str] = set()
        self._task_runs = task_runs
        self._claims = claims
        self._release = release
        self._needs = Needs()

    def obtainable(self, run: TaskRun) -> bool:
        """Tell whether the value of a completed task run can be given."""
        at_runner = run.id in self.with_runner and run.held is not Held.OUTDATED
        return run.held.kept or at_runner

    def needed(self, task_run_id: str) -> bool:
        """Tell whether the value of a task run is with its runner, or needed wherever it is."""
        return task_run_id in self.with_runner or self._needs.needed(task_run_id)

    def take_handles(self, task_run_ids: Iterable[str]) -> None:
        """Note one more future of each of these task runs."""
        self._needs.take_handles(task_run_ids)

    def drop_handles(self, task_run_ids: Iterable[str]) -> None:
        """Note that one future of each of these task runs is gone."""
        for task_run_id in task_run_ids:
            self._needs.drop_handle(task_run_id)
            if task_run_id in self.with_runner:
                self.release_if_unneeded(task_run_id)

    def release_if_unneeded(self, task_run_id: str) -> None:
        """Let go of the value of a final task run that nobody needs."""
        if task_run_id not in self.with_runner or self._needs.needed(task_run_id):
            return
        run = self._task_runs.get(task_run_id)
        if run is not None and run.stage.final:
            self.with_runner.discard(task_run_id)
            self._release(run)

    def note(self, run: TaskRun, event: ev.Event) -> None:
        """Note what an event says of where a value is."""
        if isinstance(event, ev.AttemptSucceeded):
            claim = self._claims.get(run.id)
            if claim is None or claim.here:
                return
            if run.held.kept and not claim.shares_memory:
                self._release(run)
            else:
                self.with_runner.add(run.id)
        elif isinstance(event, ev.ResultLost | ev.Reopened):
            self.with_runner.discard(run.id)
        elif isinstance(event, ev.ResultRecomputed):
            self.with_runner.add(run.id)

    def note_loss(self, run: TaskRun | None, event: ev.ResultLost) -> None:
        """Note that a value has gone from its runner, though it may be kept elsewhere."""
        if run is not None and run.dispatch == event.dispatch and not event.stored:
            self.with_runner.discard(run.id)

    def count_consumers(self, run: TaskRun) -> None:
        """Keep count of the unfinished task runs that need each value."""
        wanted = not run.stage.final and run.id in self._claims
        for upstream_id in self._needs.set_upstreams(run.id, run.upstreams if wanted else ()):
            self.release_if_unneeded(upstream_id)
