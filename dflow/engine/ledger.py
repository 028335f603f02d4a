"""The ledger: what the tracker knows of one root flow run, and what follows from each event.

It applies events to the records, lets the graph decide who goes next, and counts who still needs which
value. It has no thread, no clock and no I/O: the tracker feeds it, takes what has changed, commits that,
and then acts.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.graph import Graph, Progress
from dflow.core.records import Cause, FlowStage, Held, Need, Stage, TaskRun, Upstream
from dflow.core.replay import Table
from dflow.engine.chains import Chains
from dflow.engine.claims import Changes, Claim, LookUp, Release
from dflow.engine.gates import Gates
from dflow.engine.lookups import Lookups
from dflow.engine.needs import Needs
from dflow.engine.notes import Notes
from dflow.engine.renewal import Renewal
from dflow.engine.tally import Tally


class Ledger:
    """The table of runs, the graph, and who needs what."""

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table()
        self.claims: dict[str, Claim] = {}
        self.with_runner: set[str] = set()
        self.closed_flows: set[str] = set()
        self.notes = Notes()
        self.lookups = Lookups()
        self.judged: set[str] = set()
        self.tally = Tally()
        self._graph = Graph()
        self._needs = Needs()
        self._gates = Gates()
        self._chains = Chains()
        self._changes = Changes([], {}, [])
        self.renewal = Renewal(self.table, self.apply)
        for run in self.table.task_runs.values():
            self._graph.add(run.id, ())
            self._graph.mark(run.id, self._progress(run))
            self.tally.count(None, run)

    def take(self) -> Changes:
        """Return what has changed since the last time."""
        changes, self._changes = self._changes, Changes([], {}, [])
        return changes

    def root_failure(self, task_run_id: str) -> str:
        """Return the task run at whose failure a chain of upstream failures began."""
        return self._chains.root(task_run_id)

    def obtainable(self, run: TaskRun) -> bool:
        """Tell whether the value of a completed task run can be given."""
        at_runner = run.id in self.with_runner and run.held is not Held.OUTDATED
        return run.held.kept or at_runner

    # Asking for task runs -------------------------------------------------------------------------

    def ask(self, event: ev.TaskCreated | ev.MapCreated, claim: Claim, handles: bool) -> None:
        """Claim the task runs of `event`: make those that are new, open those again that must run again.

        A completed one gives its value, unless that is outdated or gone; one that is under way is left.
        """
        flow_run = self.table.flow_runs.get(event.flow_run_id)
        if flow_run is not None and event.asked != flow_run.generation:
            event = replace(event, asked=flow_run.generation)
        items = list(machine.unfold(event)) if isinstance(event, ev.MapCreated) else [event]
        new = [item for item in items if item.task_run_id not in self.table.task_runs]
        for item in items:
            if handles:
                self._needs.take_handle(item.task_run_id)
            run = self.table.task_runs.get(item.task_run_id)
            if run is not None and run.stage is Stage.COMPLETED and self.obtainable(run):
                self.renewal.give(item, run)
        again = [item for item in items if self._runs_again(item.task_run_id)]
        wanted = [item.task_run_id for item in (*new, *again)]
        self.claims.update(dict.fromkeys(wanted, claim))
        self._gates.put(wanted, claim.max_in_flight)
        self.lookups.put(wanted, claim.cached, self.table.task_runs)
        if isinstance(event, ev.MapCreated) and new:
            made = {item.task_run_id for item in new}
            kept = tuple(item for item in event.items if item.task_run_id in made)
            self.apply(replace(event, items=kept))
        elif new:
            self.apply(event)
        for item in again:
            self._open_again(item)

    def _runs_again(self, task_run_id: str) -> bool:
        run = self.table.task_runs.get(task_run_id)
        if run is None or (run.stage is Stage.COMPLETED and self.obtainable(run)):
            return False
        return run.stage.final or run.id not in self.claims

    def _open_again(self, event: ev.TaskCreated) -> None:
        self._chains.forget(event.task_run_id)
        run = self.table.task_runs[event.task_run_id]
        self.renewal.opening(run, event.at)
        self.apply(
            ev.Reopened(
                at=event.at,
                task_run_id=event.task_run_id,
                generation=run.generation + 1,
                upstreams=event.upstreams,
                policy=event.policy,
                source=event.source,
                asked=event.asked,
            )
        )

    def drop_handles(self, task_run_ids: Iterable[str]) -> None:
        """Note that one future of each of these task runs is gone."""
        for task_run_id in task_run_ids:
            self._needs.drop_handle(task_run_id)
            self._release_if_unneeded(task_run_id)

    def _release_if_unneeded(self, task_run_id: str) -> None:
        run = self.table.task_runs.get(task_run_id)
        if (
            task_run_id in self.with_runner
            and not self._needs.needed(task_run_id)
            and run is not None
            and run.stage.final
        ):
            self.with_runner.discard(task_run_id)
            self._changes.orders.append(Release(task_run_id, run.dispatch))

    # Closing ----------------------------------------------------------------------------------------

    def cancel_all(self, flow_run_id: str, at: float) -> None:
        """Cancel all that is unfinished under a flow run, and whatever is asked for there from now on."""
        self.closed_flows |= self.table.family(flow_run_id)
        self._cancel_left_flows(flow_run_id, at)
        for run in self.unfinished_under(flow_run_id):
            self.apply(ev.CancelRequested(at=at, task_run_id=run.id))

    def abandon_all(self, flow_run_id: str, at: float) -> None:
        """Give up on the bodies under a flow run that were asked to stop and go on."""
        for run in self.unfinished_under(flow_run_id):
            self.apply(ev.StopExpired(at=at, task_run_id=run.id, dispatch=run.dispatch))

    def cancel_unclaimed(self, flow_run_id: str, at: float) -> list[str]:
        """Cancel what an earlier driver left unfinished and nobody has asked for again; return the names.

        Under one flow run, the subflows that were not called again included.
        """
        self._cancel_left_flows(flow_run_id, at)
        left = [run for run in self.unfinished_under(flow_run_id) if run.id not in self.claims]
        for run in left:
            self.apply(ev.CancelRequested(at=at, task_run_id=run.id))
        return [run.name for run in left]

    def give_up(self, task_run_ids: Iterable[str], at: float) -> None:
        """Cancel task runs whose caller, in whose thread they run, has gone away."""
        for task_run_id in task_run_ids:
            self.apply(ev.CancelRequested(at=at, task_run_id=task_run_id))
            self.apply(
                ev.DispatchVoided(
                    at=at,
                    task_run_id=task_run_id,
                    dispatch=self.table.task_runs[task_run_id].dispatch,
                    cause=Cause.WITHDRAWN,
                )
            )

    def _cancel_left_flows(self, flow_run_id: str, at: float) -> None:
        for member in self.table.family(flow_run_id) - {flow_run_id}:
            run = self.table.flow_runs[member]
            if not run.stage.final and run.stage is not FlowStage.INTERRUPTED:
                message = "What ran it ended before it did."
                self.apply(ev.FlowRunInterrupted(at=at, flow_run_id=member, message=message))
            if not run.stage.final:
                self.apply(ev.FlowCancelRequested(at=at, flow_run_id=member))

    def unfinished_under(self, flow_run_id: str) -> list[TaskRun]:
        """Return the task runs that are not final, of a flow run and of the subflows under it."""
        if not self.tally.unfinished.total():
            return []
        family = self.table.family(flow_run_id)
        return [
            run
            for run in self.table.task_runs.values()
            if not run.stage.final and run.flow_run_id in family
        ]

    # Failures that are judged first ---------------------------------------------------------------

    def hold(self, task_run_id: str) -> None:
        """Send nothing after a task run until it is decided what follows from its failed attempt."""
        self.judged.add(task_run_id)
        self._graph.mark(task_run_id, Progress.BLOCKED)

    # Events -------------------------------------------------------------------------------------------

    def apply(self, event: ev.Event) -> None:
        """Apply an event, and all that follows from it before anything outside has to happen."""
        ends: deque[ev.Event] = deque()  # before others: who hangs on them must not go any more
        queue = deque([event])
        while ends or queue:
            event = (ends or queue).popleft()
            before = None
            if isinstance(event, ev.TaskEvent):
                before = self.table.task_runs.get(event.task_run_id)
            if isinstance(event, ev.ResultLost):
                self._note_loss(before, event)
            changed = self.table.apply(event)
            if changed:
                self._changes.events.append(event)
            for run, orders in changed:
                self._changes.records[run.id] = run
                if isinstance(run, TaskRun):
                    for follower in self._follow(before, run, orders, event):
                        (queue if isinstance(follower, ev.UpstreamsMet) else ends).append(follower)
                else:
                    self._changes.orders.extend(orders)

    def _follow(
        self,
        before: TaskRun | None,
        run: TaskRun,
        orders: tuple[do.Command, ...],
        event: ev.Event,
    ) -> Iterator[ev.Event]:
        """Bring graph and counts up to date; yield the events that follow at once."""
        self.tally.count(before, run)
        self._note_value(run, event)
        self.renewal.follow(before, run)
        if before is None or isinstance(event, ev.Reopened):
            self._graph.add(run.id, self._edges(run))
        freed = self._graph.mark(run.id, self._progress(run))
        places = self._gates.settle(run.id, run.stage)
        for order in orders:
            if isinstance(order, do.Consider):
                yield from self._consider(run.id, event.at)
            else:
                self._changes.orders.append(order)
        for other in itertools.chain(freed, places):
            yield from self._consider(other, event.at)
        if run.stage.final and run.stage is not Stage.COMPLETED:
            yield from self._take_along(run, event.at)
        self._count_consumers(run)
        if self.notes.compare(before, run):
            self._needs.take_handle(run.id)  # a hook that is told of the end may ask for the value
        if run.stage.final:
            self.lookups.close(run.id)
            self._release_if_unneeded(run.id)

    def _consider(self, task_run_id: str, at: float) -> Iterator[ev.Event]:
        """Decide whether a waiting task run goes, fails or waits on."""
        run = self.table.task_runs[task_run_id]
        if run.stage is not Stage.WAITING or task_run_id not in self.claims:
            return
        if run.flow_run_id in self.closed_flows:
            yield ev.CancelRequested(at=at, task_run_id=task_run_id)
            return
        failed = self._graph.failed_upstream(task_run_id)
        if failed is not None:
            yield self._upstream_failed(run, self.table.task_runs[failed], at)
        elif self._graph.may_go(task_run_id):
            lost = self._lost_upstream(run)
            if lost is None:
                yield from self._let_go(task_run_id, at)
            else:
                yield ev.UpstreamLost(
                    at=at,
                    task_run_id=task_run_id,
                    cause_id=lost.id,
                    message=f"The value of '{lost.name}' was lost and is not kept. "
                    "Keep results small, or run the flow again.",
                )

    def _let_go(self, task_run_id: str, at: float) -> Iterator[ev.Event]:
        """Let a task run go that nothing stands in the way of, unless it has to be looked up or queue."""
        order = self.lookups.before_gate(task_run_id) if self._gates.bar(task_run_id) else None
        waits = order is not None or self.lookups.under_way(task_run_id)
        if not waits and self._gates.let_through(task_run_id):
            order = self.lookups.behind_gate(task_run_id)
            if order is None:
                yield ev.UpstreamsMet(at=at, task_run_id=task_run_id)
        if order is not None:
            self._changes.orders.append(order)

    def look_again(self, order: LookUp, at: float) -> None:
        """Go on with a task run that was not found in the cache."""
        if self.lookups.answered(order):
            if order.lead:
                self.lookups.close(order.run_id)
            for event in list(self._consider(order.run_id, at)):
                self.apply(event)

    def _take_along(self, run: TaskRun, at: float) -> Iterator[ev.Event]:
        for dependent_id in self._graph.dependents(run.id):
            dependent = self.table.task_runs[dependent_id]
            needs = any(
                u.task_run_id == run.id and u.need is not Need.ALLOW for u in dependent.upstreams
            )
            if needs and not dependent.stage.final:
                yield self._upstream_failed(dependent, run, at)

    def _upstream_failed(self, run: TaskRun, cause: TaskRun, at: float) -> ev.Event:
        if run.flow_run_id in self.closed_flows:
            return ev.CancelRequested(at=at, task_run_id=run.id)
        if run.attempts_now:
            return ev.UpstreamLost(
                at=at,
                task_run_id=run.id,
                cause_id=cause.id,
                message=f"'{cause.name}', whose value it needs, has ended as {cause.state_name}.",
            )
        chain = self._chains.add(run, cause)
        return ev.UpstreamFailed(at=at, task_run_id=run.id, cause_id=cause.id, chain=chain)

    def _lost_upstream(self, run: TaskRun) -> TaskRun | None:
        for upstream in run.upstreams:
            source = self.table.task_runs[upstream.task_run_id]
            if (
                upstream.need is Need.DATA
                and source.stage is Stage.COMPLETED
                and not self.obtainable(source)
            ):
                return source
        return None

    def _edges(self, run: TaskRun) -> tuple[Upstream, ...]:
        """Return the upstreams as the graph takes them: only the same runner passes values on by itself."""
        return tuple(
            replace(upstream, need=Need.WAIT)
            if upstream.need is Need.DATA and not self._passes_on(upstream.task_run_id, run.id)
            else upstream
            for upstream in run.upstreams
        )

    def _passes_on(self, upstream_id: str, run_id: str) -> bool:
        # One of a bounded map that waited at its runner would take the place of one that runs; of a cached
        # one the key is known when its upstreams have completed.
        claim, source = self.claims[run_id], self.claims.get(upstream_id)
        return (
            source is not None
            and claim.max_in_flight is None
            and run_id not in claim.cached
            and claim.follows
            and not (claim.here or source.here)
            and claim.runner == source.runner
        )

    def _progress(self, run: TaskRun) -> Progress:
        if run.stage is Stage.COMPLETED:
            return Progress.DONE
        if run.stage.final:
            return Progress.FAILED
        claim = self.claims.get(run.id)
        away = run.stage in (Stage.DISPATCHED, Stage.RUNNING) and run.id not in self.judged
        if away and claim is not None and claim.follows:
            return Progress.AWAY
        return Progress.BLOCKED

    # Counting -----------------------------------------------------------------------------------------

    def _note_value(self, run: TaskRun, event: ev.Event) -> None:
        claim = self.claims.get(run.id)
        if isinstance(event, ev.AttemptSucceeded) and claim is not None and not claim.here:
            if run.held.kept and not claim.shares_memory:
                self._changes.orders.append(Release(run.id, run.dispatch))
            else:
                self.with_runner.add(run.id)
        elif isinstance(event, ev.ResultLost | ev.Reopened):
            self.with_runner.discard(run.id)
        elif isinstance(event, ev.ResultRecomputed):
            self.with_runner.add(run.id)

    def _note_loss(self, run: TaskRun | None, event: ev.ResultLost) -> None:
        """Note that a value has gone from its runner, though it may be kept elsewhere."""
        if run is not None and run.dispatch == event.dispatch and not event.stored:
            self.with_runner.discard(run.id)

    def _count_consumers(self, run: TaskRun) -> None:
        """Keep count of the unfinished task runs that need each value."""
        wanted = not run.stage.final and run.id in self.claims
        for upstream_id in self._needs.set_upstreams(run.id, run.upstreams if wanted else ()):
            self._release_if_unneeded(upstream_id)
