"""How the upstreams of task runs stand: whether these may go at once, and how the graph sees them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.graph import Progress
from dflow.core.records import Need, Stage, TaskRun, Upstream
from dflow.engine.claims import Changes, Claim


class Readiness:
    """Looks at the upstreams of task runs.

    `obtainable` tells whether the value of a completed task run can be given; `judged` are those whose
    failure is still being judged.
    """

    def __init__(
        self,
        task_runs: Mapping[str, TaskRun],
        claims: Mapping[str, Claim],
        judged: set[str],
        obtainable: Callable[[TaskRun], bool],
    ) -> None:
        self._task_runs = task_runs
        self._claims = claims
        self._judged = judged
        self._obtainable = obtainable

    def all_ready(self, event: ev.TaskCreated | ev.MapCreated, claim: Claim) -> bool:
        """Tell whether nothing stands in the way of any of these new task runs.

        What has to pass a gate, or may be in the cache, is looked at one by one later.
        """
        if claim.max_in_flight is not None or claim.cached:
            return False
        for upstream in _upstreams(event):  # noqa: SIM110  (a generator takes as long again)
            if not self._clear(upstream, claim):
                return False
        return True

    def divided(
        self, changes: Changes, firsts: Container[int]
    ) -> tuple[list[do.Command], list[do.Command]]:
        """Return those first dispatches that can go before `changes` are durable, and all other commands.

        First dispatches wait that take a value which is among the changes, or follow what waits itself. They
        are told by the `id` of the command. The others stay in order: no dispatch before what it follows,
        unless that goes for a second time.
        """
        at_once: list[do.Command] = []
        others: list[do.Command] = []
        late = {
            order.run_id
            for order in changes.orders
            if isinstance(order, do.Dispatch) and id(order) not in firsts
        }
        for order in changes.orders:
            goes = id(order) in firsts
            if goes and (upstreams := self._task_runs[order.run_id].upstreams):
                goes = not self._waits(upstreams, changes.records, late)
                if not goes:
                    late.add(order.run_id)
            (at_once if goes else others).append(order)
        return at_once, others

    def _waits(
        self, upstreams: Sequence[Upstream], unsaved: Container[str], late: Container[str]
    ) -> bool:
        for upstream in upstreams:
            source = upstream.task_run_id
            ended = source in unsaved and self._task_runs[source].stage is Stage.COMPLETED
            if ended or source in late:
                return True
        return False

    def _clear(self, upstream: Upstream, claim: Claim) -> bool:
        run = self._task_runs[upstream.task_run_id]
        if upstream.need is Need.ALLOW:
            return run.stage.final
        if run.stage is Stage.COMPLETED:
            return upstream.need is Need.WAIT or self._obtainable(run)
        away = run.stage is Stage.DISPATCHED or run.stage is Stage.RUNNING
        if not away or upstream.need is Need.WAIT or run.id in self._judged:
            return False
        source = self._claims.get(run.id)
        return source is not None and passes_on(source, claim)

    # As the graph sees it ---------------------------------------------------------------------------

    def edges(self, run: TaskRun) -> tuple[Upstream, ...]:
        """Return the upstreams as the graph takes them: only the same runner passes values on by itself."""
        if not run.upstreams:
            return ()
        edges = [
            Upstream(upstream.task_run_id, Need.WAIT)
            if upstream.need is Need.DATA and not self._passes_on(upstream.task_run_id, run.id)
            else upstream
            for upstream in run.upstreams
        ]
        return tuple(edges)

    def _passes_on(self, upstream_id: str, run_id: str) -> bool:
        claim, source = self._claims[run_id], self._claims.get(upstream_id)
        return source is not None and run_id not in claim.cached and passes_on(source, claim)

    def progress(self, run: TaskRun) -> Progress:
        """Return how far a task run is, as its dependents see it."""
        if run.stage is Stage.COMPLETED:
            return Progress.DONE
        if run.stage.final:
            return Progress.FAILED
        away = run.stage is Stage.DISPATCHED or run.stage is Stage.RUNNING
        claim = self._claims.get(run.id) if away and run.id not in self._judged else None
        return Progress.AWAY if claim is not None and claim.follows else Progress.BLOCKED

    def lost_upstream(self, run: TaskRun) -> TaskRun | None:
        """Return an upstream that has completed, and whose value cannot be had any more."""
        for upstream in run.upstreams:
            source = self._task_runs[upstream.task_run_id]
            if (
                upstream.need is Need.DATA
                and source.stage is Stage.COMPLETED
                and not self._obtainable(source)
            ):
                return source
        return None


def _upstreams(event: ev.TaskCreated | ev.MapCreated) -> Iterator[Upstream]:
    """Yield what the task runs of an event depend on."""
    yield from event.upstreams
    if isinstance(event, ev.MapCreated):
        for item in event.items:
            yield from item.upstreams


def passes_on(source: Claim, claim: Claim) -> bool:
    """Tell whether the runner passes a value on by itself: only from and to its own task runs.

    One of a bounded map that waited at its runner would take the place of one that runs; of a cached one the
    key is known when its upstreams have completed. The caller of this looks at what is cached.
    """
    return (
        claim.max_in_flight is None
        and claim.follows
        and not (claim.here or source.here)
        and claim.runner == source.runner
    )
