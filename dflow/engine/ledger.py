"""The ledger: what the tracker knows of one root flow run, and what follows from each event.

It applies events to the records, lets the graph decide who goes next, and counts who still needs which
value. It has no thread, no clock and no I/O: the tracker feeds it, takes what has changed, commits that,
and then acts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.graph import Graph, Progress
from dflow.core.records import Need, Stage, TaskRun
from dflow.core.replay import Changed, Table
from dflow.core.retry import retry_due
from dflow.engine.adopted import Adopted
from dflow.engine.chains import Chains
from dflow.engine.claims import Changes, Claim, LookUp, Release
from dflow.engine.closing import Closing
from dflow.engine.gates import Gates
from dflow.engine.lookups import Lookups
from dflow.engine.notes import Notes
from dflow.engine.readiness import Readiness
from dflow.engine.renewal import Renewal
from dflow.engine.retirement import Retirement
from dflow.engine.tally import Tally
from dflow.engine.valued import Valued


class Ledger:
    """The table of runs, the graph, and who needs what."""

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table()
        self.claims: dict[str, Claim] = {}
        self.notes = Notes()
        self.lookups = Lookups()
        self.judged: set[str] = set()
        self.adopted = Adopted()
        self.tally = Tally()
        self.closing = Closing(self)
        self._graph = Graph()
        self._gates = Gates()
        self._chains = Chains()
        self._changes = Changes([], {}, [])
        self._firsts: set[int] = set()
        self._valued = Valued(self.table.task_runs, self.claims, self._release)
        self.with_runner = self._valued.with_runner
        self.obtainable = self._valued.obtainable
        self.take_handles = self._valued.take_handles
        self.renewal = Renewal(self.table, self.apply)
        self._readiness = Readiness(self.table.task_runs, self.claims, self.judged, self.obtainable)
        self.retirement = Retirement(
            self.table.task_runs, self.claims, self._graph, self._valued.needed
        )
        for run in self.table.task_runs.values():
            self._graph.add(run.id, (), self._readiness.progress(run))
            self.tally.count(None, run)

    def take(self) -> Changes:
        """Return what has changed since the last time."""
        changes, self._changes = self._changes, Changes([], {}, [])
        self._firsts.clear()
        return changes

    def take_firsts(self) -> list[do.Command]:
        """Return the first dispatches of what has come into being: they need not wait for its record.

        Those that take a value which is not durable yet do, and what is to follow a dispatch that does.
        """
        if not self._firsts:
            return []
        firsts, self._changes.orders = self._readiness.divided(self._changes, self._firsts)
        self._firsts.clear()
        return firsts

    @property
    def weight(self) -> int:
        """How many events have changed anything since `take`."""
        return len(self._changes.events)

    def root_failure(self, task_run_id: str) -> str:
        """Return the task run at whose failure a chain of upstream failures began."""
        return self._chains.root(task_run_id)

    # Asking for task runs -------------------------------------------------------------------------

    def ask(self, event: ev.TaskCreated | ev.MapCreated, claim: Claim, handles: bool) -> bool:
        """Claim the task runs of `event`: make those that are new, open those again that must run again.

        A completed one gives its value, unless that is outdated or gone; one that is under way is left.
        Return whether all are new, and all that is to be done is among the `take_firsts`.
        """
        flow_run = self.table.flow_runs.get(event.flow_run_id)
        if flow_run is not None and event.asked != flow_run.generation:
            event = replace(event, asked=flow_run.generation)
        ids = machine.ids_of(event)
        if handles:
            self.take_handles(ids)
        if any(map(self.table.task_runs.__contains__, ids)):
            self._ask_again(event, claim)
            return False
        self._claim(ids, claim)
        return self._make(event, claim)

    def _claim(self, task_run_ids: Sequence[str], claim: Claim) -> None:
        for task_run_id in task_run_ids:
            self.claims[task_run_id] = claim
        self._gates.put(task_run_ids, claim.max_in_flight)
        self.lookups.put(task_run_ids, claim.cached, self.table.task_runs)

    def _make(self, event: ev.TaskCreated | ev.MapCreated, claim: Claim) -> bool:
        """Make task runs that are new; if nothing stands in the way of any, they are dispatched with it.

        Return whether they can go at once, before it is durable.
        """
        open_flow = event.flow_run_id not in self.closing.flows
        if not (open_flow and self._readiness.all_ready(event, claim)):
            self.apply(event)
            return False
        before = len(self._changes.orders)
        self.apply(replace(event, ready=True))
        self._firsts.update(map(id, self._changes.orders[before:]))
        return True

    def _ask_again(self, event: ev.TaskCreated | ev.MapCreated, claim: Claim) -> None:
        """Claim task runs some of which are there already."""
        items = list(machine.unfold(event)) if isinstance(event, ev.MapCreated) else [event]
        new = [item for item in items if item.task_run_id not in self.table.task_runs]
        for item in items:
            run = self.table.task_runs.get(item.task_run_id)
            if run is not None and run.stage is Stage.COMPLETED and self.obtainable(run):
                self.renewal.give(item, run)
        self._claim(self.adopted.give(self, items, claim), claim)
        again = [item for item in items if self._runs_again(item.task_run_id)]
        self._claim([item.task_run_id for item in (*new, *again)], claim)
        if isinstance(event, ev.MapCreated) and new:
            made = {item.task_run_id for item in new}
            kept = tuple(item for item in event.items if item.task_run_id in made)
            self._make(replace(event, items=kept), claim)
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
        dropped = list(task_run_ids)
        self._valued.drop_handles(dropped)
        self.retirement.consider(dropped)

    def _release(self, run: TaskRun) -> None:
        self._changes.orders.append(Release(run.id, run.dispatch))

    # Leaving ----------------------------------------------------------------------------------------

    def retire(self, task_run_ids: Sequence[str]) -> None:
        """Let task runs leave that were chosen to: the journal has their records."""
        runs = [self.table.task_runs[task_run_id] for task_run_id in task_run_ids]
        self.retirement.note(run.id for run in runs)
        for run in runs:
            del self.table.task_runs[run.id], self.claims[run.id]
            self._graph.remove(run.id)
        self._gates.put(task_run_ids, None)
        self.notes.forget(task_run_ids)
        for run in runs:
            self.retirement.consider(upstream.task_run_id for upstream in run.upstreams)

    def take_back(self, task_runs: Iterable[TaskRun]) -> dict[str, TaskRun]:
        """Take task runs back that have left; return them by their ids."""
        back = {run.id: run for run in task_runs if run.id not in self.table.task_runs}
        self.table.task_runs.update(back)
        for run in back.values():
            self._graph.add(run.id, (), self._readiness.progress(run))
        return back

    # Failures that are judged first ---------------------------------------------------------------

    def hold(self, task_run_id: str) -> None:
        """Send nothing after a task run until it is decided what follows from its failed attempt."""
        self.judged.add(task_run_id)
        self._graph.mark(task_run_id, Progress.BLOCKED)

    # Events -------------------------------------------------------------------------------------------

    def apply(self, event: ev.Event) -> None:
        """Apply an event, and all that follows from it before anything outside has to happen."""
        followers = self._apply_one(event)
        if not followers:
            return
        ends: deque[ev.Event] = deque()  # before others: who hangs on them must not go any more
        queue: deque[ev.Event] = deque()
        while followers or ends or queue:
            for follower in followers:
                (queue if isinstance(follower, ev.UpstreamsMet) else ends).append(follower)
            followers = self._apply_one((ends or queue).popleft()) if ends or queue else ()

    def _apply_one(self, event: ev.Event) -> Sequence[ev.Event]:
        """Apply an event, and bring graph and counts up to date; return the events that follow at once."""
        before = None
        if isinstance(event, ev.TaskEvent):
            before = self.table.task_runs.get(event.task_run_id)
            if isinstance(event, ev.ResultLost):
                self._valued.note_loss(before, event)
        changed = self.table.apply(event)
        if not changed:
            return ()
        self._changes.events.append(event)
        if before is None and isinstance(event, ev.TaskCreated | ev.MapCreated):
            return self._begin(changed, event.at)
        [(run, orders)] = changed
        self._changes.records[run.id] = run
        if before is not None and isinstance(run, TaskRun):
            return self._follow(before, run, orders, event)
        if isinstance(event, ev.FlowRunCreated):
            self.retirement.note_caller(event.parent_id)
        self._changes.orders.extend(orders)
        return ()

    def _begin(self, made: Sequence[Changed], at: float) -> list[ev.Event]:
        """Take task runs up that have come into being together."""
        runs = [run for run, _ in made if isinstance(run, TaskRun)]
        followers: list[ev.Event] = []
        self.tally.made(runs)
        ready = runs[0].stage is Stage.DISPATCHED
        if ready:
            self._changes.orders += [order for _, orders in made for order in orders]
        for run in runs:
            self._changes.records[run.id] = run
            if self.renewal.follows:
                self.renewal.follow(None, run)
            self._graph.add(run.id, self._readiness.edges(run), self._readiness.progress(run))
            if run.upstreams:
                self._valued.count_consumers(run)
        if runs[0].parent_id != runs[0].flow_run_id:
            self.retirement.note_caller(runs[0].parent_id)
        if not ready:
            for run in runs:
                followers += self._consider(run.id, at)
        return followers

    def _follow(
        self, before: TaskRun, run: TaskRun, orders: tuple[do.Command, ...], event: ev.Event
    ) -> list[ev.Event]:
        """Bring graph and counts up to date; return the events that follow at once."""
        followers: list[ev.Event] = []
        final = run.stage.final
        if self.adopted:
            followers += self.adopted.follow(self, run, event.at)
        self.tally.count(before, run)
        self._valued.note(run, event)
        if self.renewal.follows:
            self.renewal.follow(before, run)
        if isinstance(event, ev.Reopened):
            self._graph.add(run.id, self._readiness.edges(run))
        freed = self._graph.mark(run.id, self._readiness.progress(run))
        places = self._gates.settle(run.id, run.stage)
        for order in orders:
            if isinstance(order, do.Consider):
                followers += self._consider(run.id, event.at)
            elif isinstance(order, do.SetTimer) and order.due <= event.at:
                followers.append(retry_due(order))
            elif not isinstance(order, do.Settle):  # what is final is shown in any case
                self._changes.orders.append(order)
        for other in (*freed, *places):
            followers += self._consider(other, event.at)
        if final and run.stage is not Stage.COMPLETED:
            followers += self._take_along(run, event.at)
        if run.upstreams or before.upstreams:
            self._valued.count_consumers(run)
        if self.notes.compare(before, run):
            self.take_handles([run.id])  # a hook that is told of the end may ask for the value
        if final:
            self.lookups.close(run.id)
            self._valued.release_if_unneeded(run.id)
            self.retirement.consider((run.id,))
        return followers

    def connect(self, run: TaskRun, orders: Iterable[do.Command]) -> None:
        """Take a task run up that is under way, with what is to be done for it."""
        self._graph.add(run.id, self._readiness.edges(run), self._readiness.progress(run))
        self._valued.count_consumers(run)
        self._changes.orders.extend(orders)

    def _consider(self, task_run_id: str, at: float) -> Iterator[ev.Event]:
        """Decide whether a waiting task run goes, fails or waits on."""
        run = self.table.task_runs[task_run_id]
        if run.stage is not Stage.WAITING or task_run_id not in self.claims:
            return
        if run.flow_run_id in self.closing.flows:
            yield ev.CancelRequested(at=at, task_run_id=task_run_id)
            return
        failed = self._graph.failed_upstream(task_run_id)
        if failed is not None:
            yield self._upstream_failed(run, self.table.task_runs[failed], at)
        elif self._graph.may_go(task_run_id):
            lost = self._readiness.lost_upstream(run)
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
        if run.flow_run_id in self.closing.flows:
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
