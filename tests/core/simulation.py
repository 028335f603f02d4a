"""A driver without threads, clocks or I/O: it applies events, obeys commands, and keeps the history.

Every operation takes plain numbers, so that hypothesis or a seeded generator can play it. `drain` brings
all to an end: a task run that does not get there hangs, and that is a flaw of the core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.graph import Graph, Progress
from dflow.core.invariants import check
from dflow.core.records import (
    FlowRun,
    FlowStage,
    Held,
    Need,
    Policy,
    Stage,
    TaskRun,
    Upstream,
)
from dflow.core.replay import Table
from tests.core.simulated_runner import CAUSES, ENDS, ERROR, SimulatedRunner, Work

ROOT = "f"
T = TypeVar("T")

AWAY = (Stage.DISPATCHED, Stage.RUNNING, Stage.CANCELLING)


def progress_of(run: TaskRun) -> Progress:
    """Return how far a task run is, as its dependents see it."""
    if run.stage is Stage.COMPLETED:
        return Progress.DONE
    if run.stage.final:
        return Progress.FAILED
    return Progress.AWAY if run.stage in AWAY else Progress.BLOCKED


class Hangs(AssertionError):
    """A task run does not come to its end."""


class Simulation:
    """A flow run, its task runs, and a runner that has them."""

    def __init__(self, rules: machine.Table = machine.TABLE, retries: int = 1) -> None:
        self.rules = rules
        self.table = Table(rules)
        self.graph = Graph()
        self.history: list[ev.Event] = []
        self.todo: deque[do.Command] = deque()
        self.timers: list[ev.TaskEvent] = []
        self.runner = SimulatedRunner(self.table.task_runs)
        self.limbo: set[str] = set()
        self.given_up: set[str] = set()
        self.cached: set[str] = set()
        self.closing: ev.FlowEvent | None = None
        policy = Policy(retries=retries)
        self.post(
            ev.FlowRunCreated(
                at=0.0,
                flow_run_id=ROOT,
                root_id=ROOT,
                parent_id=None,
                flow_name="f",
                name="f",
                policy=policy,
            )
        )
        self.post(ev.FlowRunStarted(at=self.tick(), flow_run_id=ROOT, generation=1))

    # What a driver does --------------------------------------------------------------------------

    @property
    def flow(self) -> FlowRun:
        """The root flow run."""
        return self.table.flow_runs[ROOT]

    @property
    def runs(self) -> list[TaskRun]:
        """The task runs, in the order in which they were created."""
        return list(self.table.task_runs.values())

    @property
    def unfinished(self) -> list[TaskRun]:
        """The task runs that have not ended."""
        return [run for run in self.runs if not run.stage.final]

    @property
    def open(self) -> bool:
        """Whether the body of the flow is at work, and may ask for task runs."""
        return self.flow.stage is FlowStage.RUNNING and self.closing is None

    def tick(self) -> float:
        """Let a second pass; return the time."""
        self.runner.now += 1.0
        return self.runner.now

    def post(self, event: ev.Event) -> None:
        """Apply an event, bring the graph up to date, and do what is to be done."""
        self._apply(event)
        self._act()

    def _act(self) -> None:
        while self.todo:
            self._obey(self.todo.popleft())

    def _apply(self, event: ev.Event) -> bool:
        made = self.table.apply(event)
        if made:
            self.history.append(event)
        for run, orders in made:
            self.todo.extend(orders)
            if isinstance(run, TaskRun):
                self._follow(run, event)
        return bool(made)

    def _follow(self, run: TaskRun, event: ev.Event) -> None:
        if run.id not in self.graph or isinstance(event, ev.Reopened):
            self.graph.add(run.id, run.upstreams)
        freed = self.graph.mark(run.id, progress_of(run))
        self.todo.extend(do.Consider(dependent) for dependent in freed)
        if not isinstance(event, ev.UpstreamFailed):
            self._take_along(run.id)

    def _take_along(self, run_id: str) -> None:
        """Fail what hangs on a task run, if that has failed."""
        if self.graph.progress(run_id) is Progress.FAILED:
            for dependent, cause in self.graph.doomed(run_id):
                self._fail_with(dependent, cause)

    def _fail_with(self, run_id: str, cause: str) -> None:
        chain = f"{run_id} ← {cause}"
        self._apply(
            ev.UpstreamFailed(at=self.tick(), task_run_id=run_id, cause_id=cause, chain=chain)
        )

    def _obey(self, order: do.Command) -> None:
        match order:
            case do.Consider(run_id):
                self._consider(self.table.task_runs[run_id])
            case do.Dispatch():
                self.runner.take(order)
            case do.Withdraw():
                self.runner.withdraw(order)
            case do.Stop(run_id, dispatch) if run_id != ROOT:
                self.timers.append(
                    ev.StopExpired(at=self.tick() + 10.0, task_run_id=run_id, dispatch=dispatch)
                )
            case do.SetDeadline(run_id, dispatch, seconds):
                self.timers.append(self._timed_out(run_id, dispatch, seconds))
            case do.SetTimer(run_id, due, generation, attempt) if run_id != ROOT:
                self.timers.append(
                    ev.RetryDue(at=due, task_run_id=run_id, generation=generation, attempt=attempt)
                )

    def _timed_out(self, run_id: str, dispatch: int, seconds: float) -> ev.AttemptTimedOut:
        """Return what is to be said when nothing more is heard of a body."""
        at = self.tick()
        return ev.AttemptTimedOut(
            at=at + seconds,
            task_run_id=run_id,
            dispatch=dispatch,
            started_at=at,
            seconds=seconds,
            error=ERROR,
        )

    def _consider(self, run: TaskRun) -> None:
        if run.stage is not Stage.WAITING or self.flow.stage is not FlowStage.RUNNING:
            return
        failed = self.graph.failed_upstream(run.id)
        if failed is not None:
            self._fail_with(run.id, failed)
            self._take_along(run.id)
        elif self.graph.may_go(run.id):
            self._let_go(run)

    def _let_go(self, run: TaskRun) -> None:
        lost = [u.task_run_id for u in run.upstreams if u.need is Need.DATA and self._is_lost(u)]
        if any(upstream in self.given_up for upstream in lost):
            self._lose_upstream(run, lost[0])
        elif lost:
            self.limbo.add(run.id)
        elif run.id not in self.cached or not self._hit(run):
            self._apply(ev.UpstreamsMet(at=self.tick(), task_run_id=run.id))

    def _hit(self, run: TaskRun) -> bool:
        return self._apply(ev.CacheHit(at=self.tick(), task_run_id=run.id, value=b"v"))

    def _is_lost(self, upstream: Upstream) -> bool:
        return self.table.task_runs[upstream.task_run_id].held is Held.LOST

    def _lose_upstream(self, run: TaskRun, cause: str) -> None:
        self._apply(
            ev.UpstreamLost(at=self.tick(), task_run_id=run.id, cause_id=cause, message="gone")
        )

    # What the flow's body and its users do ---------------------------------------------------------

    def upstreams(self, picks: Sequence[tuple[int, Need]], before: int) -> tuple[Upstream, ...]:
        """Return upstreams among the first `before` task runs."""
        runs = self.runs[:before]
        return tuple(Upstream(runs[i % before].id, need) for i, need in picks) if before else ()

    def create(
        self, picks: Sequence[tuple[int, Need]], policy: Policy, *, cached: bool = False
    ) -> None:
        """Submit a task."""
        run_id = f"t{len(self.runs)}"
        if cached:
            self.cached.add(run_id)
        self.post(
            ev.TaskCreated(
                at=self.tick(),
                task_run_id=run_id,
                flow_run_id=ROOT,
                parent_id=ROOT,
                task_name="t",
                name=run_id,
                upstreams=self.upstreams(picks, len(self.runs)),
                policy=policy,
                generation=self.flow.generation,
            )
        )

    def create_map(self, picks: Sequence[tuple[int, Need]], count: int, policy: Policy) -> None:
        """Map a task; the picks go round the items as upstreams of their own, the first is of all."""
        made = len(self.runs)
        own = self.upstreams(picks, made)
        items = [ev.MapItem(f"t{made + k}", f"t[{k}]", own[1 + k : 2 + k]) for k in range(count)]
        self.post(
            ev.MapCreated(
                at=self.tick(),
                flow_run_id=ROOT,
                parent_id=ROOT,
                task_name="m",
                items=tuple(items),
                upstreams=own[:1],
                policy=policy,
                generation=self.flow.generation,
            )
        )

    def cancel(self, run: TaskRun) -> None:
        """Ask for a task run to end."""
        self.post(ev.CancelRequested(at=self.tick(), task_run_id=run.id))

    def pause(self, run: TaskRun) -> None:
        """Ask for a task run to wait."""
        self.post(ev.PauseRequested(at=self.tick(), task_run_id=run.id))

    def unpause(self, run: TaskRun) -> None:
        """Let a paused task run go on."""
        self.post(ev.Unpaused(at=self.tick(), task_run_id=run.id))

    def raise_flow(self, retriable: bool, state_name: str = "Failed") -> None:
        """Let the body of the flow raise: its task runs are cancelled, and then it ends."""
        self._close(
            ev.FlowRunRaised(
                at=self.tick(),
                flow_run_id=ROOT,
                error=ERROR,
                retriable=retriable,
                state_name=state_name,
            )
        )

    def cancel_flow(self) -> None:
        """Cancel the flow run, and its task runs with it."""
        self.post(ev.FlowCancelRequested(at=self.tick(), flow_run_id=ROOT))
        if self.flow.stage is FlowStage.CANCELLING:
            self._close(ev.FlowRunStopped(at=self.tick(), flow_run_id=ROOT))

    def _close(self, closing: ev.FlowEvent) -> None:
        self.closing = closing
        for run in self.unfinished:
            self.cancel(run)
        self.close()

    def close(self) -> None:
        """Let the flow run end if its end is near and its task runs have all ended."""
        if self.closing is not None and not self.unfinished:
            closing, self.closing = self.closing, None
            self.post(closing)

    def interrupt(self, runner_too: bool) -> None:
        """Kill the driver, and maybe all that its runner has; otherwise late news may come."""
        self.todo.clear()
        self.timers.clear()
        self.limbo.clear()
        self.closing = None
        if runner_too:
            self.runner.works.clear()
            self.runner.mail.clear()
            self.runner.values.clear()
        self.post(
            ev.FlowRunInterrupted(at=self.tick(), flow_run_id=ROOT, message="its driver died")
        )

    def begin_again(self, forgotten: int, fewer: bool) -> None:
        """Run the body again, for a retry or to resume: from the history, every task run is asked for again.

        One is forgotten (by its number): it is cancelled. With `fewer`, upstreams are left out.
        """
        self.table.task_runs.clear()
        self.table.flow_runs.clear()
        self.graph = Graph()
        for event in self.history:
            self.table.apply(event)
        for run in self.runs:
            self.graph.add(run.id, run.upstreams)
        for run in self.runs:
            self.graph.mark(run.id, progress_of(run))
        generation = self.flow.generation + 1
        newest = max((run.generation for run in self.runs), default=0) + 1
        self.post(ev.FlowRunStarted(at=self.tick(), flow_run_id=ROOT, generation=generation))
        for number, run in enumerate(self.runs):
            if number == forgotten:
                self._forget(run)
            elif self.flow.stage is FlowStage.RUNNING:
                self.post(ev.Reused(at=self.tick(), task_run_id=run.id, generation=generation))
                self._ask_again(run, newest, run.upstreams[fewer:])

    def _forget(self, run: TaskRun) -> None:
        self.cancel(run)
        self.post(ev.StopExpired(at=self.tick(), task_run_id=run.id, dispatch=run.dispatch))

    def _ask_again(self, run: TaskRun, generation: int, upstreams: tuple[Upstream, ...]) -> None:
        self.post(
            ev.Reopened(
                at=self.tick(),
                task_run_id=run.id,
                generation=generation,
                upstreams=upstreams,
                policy=run.policy,
                asked=self.flow.generation,
            )
        )

    # What the runner and time do -------------------------------------------------------------------

    def deliver(self, pick: int) -> None:
        """Let one piece of news arrive, whichever."""
        if self.runner.mail:
            self.post(self.runner.mail.pop(pick % len(self.runner.mail)))

    def fire(self, pick: int) -> None:
        """Let one timer ring, whichever."""
        if self.timers:
            self.post(self.timers.pop(pick % len(self.timers)))

    def start(self, pick: int, copies: int = 1) -> None:
        """Let a body start."""
        if works := [w for w in self.runner.works.values() if not w.started]:
            self.runner.start(choose(works, pick), copies)

    def rename(self, pick: int, name: str) -> None:
        """Let a body that has started have its name made."""
        if works := [w for w in self.runner.works.values() if w.started]:
            self.runner.rename(choose(works, pick), name)

    def end(self, pick: int, how: int, copies: int = 1) -> None:
        """Let a body end."""
        if works := [w for w in self.runner.works.values() if self.runner.may_end(w)]:
            self.runner.end(choose(works, pick), choose(ENDS, how), copies)

    def lose(self, pick: int, cause: int, copies: int = 1, *, partition: bool = False) -> None:
        """Let a worker die, or seem to."""
        if works := list(self.runner.works.values()):
            work = choose(works, pick)
            self.runner.lose(work, choose(CAUSES, cause), copies, partition=partition)

    def lose_value(self, pick: int, then: str) -> None:
        """Let the value of a completed task run vanish; `then` it is "recomputed", "reopened" or "gone"."""
        there = (Held.RUNNER, Held.STORED)
        runs = [r for r in self.runs if r.stage is Stage.COMPLETED and r.held in there]
        if runs:
            run, at = choose(runs, pick), self.tick()
            stored = run.held is Held.STORED
            self.post(
                ev.ResultLost(at=at, task_run_id=run.id, dispatch=run.dispatch, stored=stored)
            )
            if then == "gone":
                self.given_up.add(run.id)
            elif then == "recomputed":
                self.runner.send(
                    ev.ResultRecomputed(at=at, task_run_id=run.id, dispatch=run.dispatch)
                )
            elif self.open:
                self._ask_again(run, run.generation + 1, run.upstreams)

    def rerun(self, pick: int) -> None:
        """Ask for a completed task run again, whatever is kept of it."""
        runs = [r for r in self.runs if r.stage is Stage.COMPLETED]
        if runs and self.open:
            run = choose(runs, pick)
            self.post(ev.Outdated(at=self.tick(), task_run_id=run.id))
            self._ask_again(run, run.generation + 1, run.upstreams)

    # To the end ------------------------------------------------------------------------------------

    def drain(self, rounds: int = 1000) -> None:
        """Bring everything to its end; AssertionError if something does not get there."""
        if self.flow.stage in (FlowStage.INTERRUPTED, FlowStage.AWAITING_RETRY):
            self.begin_again(forgotten=-1, fewer=False)
        while self.unfinished and rounds:
            rounds -= 1
            self._advance()
        if self.unfinished:
            raise Hangs(f"These do not come to their end: {self.unfinished[:3]}")
        self.close()
        if self.flow.stage is FlowStage.RUNNING:
            self.post(ev.FlowRunReturned(at=self.tick(), flow_run_id=ROOT, state_name="Completed"))

    def _advance(self) -> None:
        """Deliver what is on its way, ring what is set, run what is out."""
        while self.runner.mail:
            self.deliver(0)
        while self.timers:
            self.fire(0)
        for run in self.unfinished:
            self.unpause(run)
        self._free_limbo()
        for work in list(self.runner.works.values()):
            self._finish(work)

    def _finish(self, work: Work) -> None:
        if self.runner.may_end(work):
            self.runner.end(work, "succeed")
        else:
            self.runner.start(work)

    def _free_limbo(self) -> None:
        """Give up the values that have not come back by now."""
        waiting, self.limbo = self.limbo, set()
        self.given_up.update(r.id for r in self.runs if r.held is Held.LOST)
        self.todo.extend(do.Consider(run_id) for run_id in sorted(waiting))
        self._act()

    def broken(self) -> list[str]:
        """Return the invariants that are broken."""
        return check(self.history, self.table, self.rules)


def choose(items: Sequence[T], pick: int) -> T:
    """Return one of the items."""
    return items[pick % len(items)]
