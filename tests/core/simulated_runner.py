"""A runner as bad luck would have it: news is lost, doubled, late, out of order, by clocks that differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import Cause, ErrorInfo, Held, Need, Stage, Stored, TaskRun

ERROR = ErrorInfo("ValueError", "no")
STORED = Stored("memory://store", "runs/f/t.1", size=3, digest="00", serializer="pickle")
CAUSES = (Cause.WORKER_DIED, Cause.WORKER_DIED, Cause.SCALED_DOWN, Cause.SCHEDULER_LOST)
# A body may always stop: somebody else may have asked it, or it goes on though it was asked.
RETURNS = ("return failed", "return crashed", "return cancelled")
ENDS = (
    *("succeed", "succeed and keep", "succeed and store"),
    *("raise", "raise for good", "time out", "stop", "void"),
    *RETURNS,
)


@dataclass
class Work:
    """One dispatch, as the runner has it. With `confirm`, the body waits until its start is known."""

    run_id: str
    dispatch: int
    confirm: bool
    started: bool = False


@dataclass
class SimulatedRunner:
    """What is out with the runner, and the news that is on its way to the driver.

    It knows the driver's records as Dask knows the graph: to see whose value is there.
    """

    task_runs: Mapping[str, TaskRun]
    works: dict[tuple[str, int], Work] = field(default_factory=dict)
    mail: list[ev.TaskEvent] = field(default_factory=list)
    values: set[str] = field(default_factory=set)
    now: float = 0.0

    def take(self, order: do.Dispatch) -> None:
        """Accept a dispatch."""
        self.values.discard(order.run_id)
        work = Work(order.run_id, order.dispatch, order.confirm_start)
        self.works[work.run_id, work.dispatch] = work

    def withdraw(self, order: do.Withdraw) -> None:
        """Give a dispatch back, unless its body has started: then its news will tell."""
        work = self.works.get((order.run_id, order.dispatch))
        if work is not None and not work.started:
            self._void(work, Cause.WITHDRAWN)

    def clock(self, work: Work) -> float:
        """Return what the clock of the work's worker shows: it is some seconds off."""
        return self.now + work.dispatch * 7 % 11 - 5

    def send(self, report: ev.TaskEvent, copies: int = 1) -> None:
        """Send a report so many times."""
        self.mail.extend([report] * copies)

    def _void(self, work: Work, cause: Cause, copies: int = 1) -> None:
        del self.works[work.run_id, work.dispatch]
        at = self.clock(work)
        self.send(
            ev.DispatchVoided(
                at=at, task_run_id=work.run_id, dispatch=work.dispatch, cause=cause, message="void"
            ),
            copies,
        )

    def start(self, work: Work, copies: int = 1) -> None:
        """Start a body if its upstreams are there; void it if one of them will not come.

        With no copies the report of the start is lost, unless somebody waits for it.
        """
        needs = [u.task_run_id for u in self._run(work).upstreams if u.need is Need.DATA]
        missing = [i for i in needs if i not in self.values and not self._completed(i)]
        if any(not self._is_out(i) for i in missing):
            self._void(work, Cause.UPSTREAM)
        elif not missing and (not work.started or work.confirm):
            work.started = True
            report = ev.AttemptStarted(
                at=self.clock(work), task_run_id=work.run_id, dispatch=work.dispatch, worker="w"
            )
            self.send(report, max(copies, work.confirm))

    def rename(self, work: Work, name: str) -> None:
        """Say which name was made from the values that a body had to wait for."""
        self.send(ev.TaskRunNamed(at=self.clock(work), task_run_id=work.run_id, name=name))

    def _run(self, work: Work) -> TaskRun:
        return self.task_runs[work.run_id]

    def _completed(self, run_id: str) -> bool:
        return self.task_runs[run_id].stage is Stage.COMPLETED

    def _is_out(self, run_id: str) -> bool:
        return (run_id, self.task_runs[run_id].dispatch) in self.works

    def may_end(self, work: Work) -> bool:
        """Tell whether the body is at work: it has started, and is not held back by an unknown start."""
        attempt = self._run(work).open_attempt
        known = attempt is not None and attempt.dispatch == work.dispatch
        return work.started and (known or not work.confirm)

    def end(self, work: Work, how: str, copies: int = 1) -> None:
        """End a body in one of the ways of `ENDS`."""
        if how == "void":
            self._void(work, Cause.UPSTREAM, copies)
            return
        del self.works[work.run_id, work.dispatch]
        if how.startswith("succeed"):
            self.values.add(work.run_id)
        self.send(self._outcome(work, how), copies)

    def _outcome(self, work: Work, how: str) -> ev.Outcome:
        at = self.clock(work)

        def says(kind: Callable[..., ev.Outcome], **more: object) -> ev.Outcome:
            return kind(
                at=at,
                task_run_id=work.run_id,
                dispatch=work.dispatch,
                started_at=at + 1.0,
                seconds=0.5,
                **more,
            )

        match how:
            case "succeed":
                return says(ev.AttemptSucceeded, held=Held.RUNNER)
            case "succeed and keep":
                return says(ev.AttemptSucceeded, held=Held.JOURNAL, value=b"v")
            case "succeed and store":
                return says(ev.AttemptSucceeded, held=Held.STORED, stored=STORED)
            case "time out":
                return says(ev.AttemptTimedOut, error=ERROR)
            case "stop":
                return says(ev.AttemptStopped)
            case _ if how in RETURNS:
                name = how.removeprefix("return ").capitalize()
                return says(ev.StateReturned, state_name=name, message="by hand", error=ERROR)
            case _:
                return says(ev.AttemptRaised, error=ERROR, retriable=how == "raise")

    def lose(self, work: Work, cause: Cause, copies: int = 1, *, partition: bool = False) -> None:
        """Lose the worker of a dispatch, whether its body has started or not.

        In a partition it only seems so: its news comes later.
        """
        if not partition:
            del self.works[work.run_id, work.dispatch]
        self.send(
            ev.WorkerLost(
                at=self.now, task_run_id=work.run_id, dispatch=work.dispatch, cause=cause
            ),
            copies,
        )
