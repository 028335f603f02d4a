"""Whether task runs that are asked for may go at once: then they come into being dispatched."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dflow.core import events as ev
from dflow.core.records import Need, Stage, TaskRun, Upstream
from dflow.engine.claims import Claim


class Readiness:
    """Looks at the upstreams of what is asked for.

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
        if not all(self._clear(upstream, claim) for upstream in event.upstreams):
            return False
        if isinstance(event, ev.TaskCreated):
            return True
        return all(
            self._clear(upstream, claim) for item in event.items for upstream in item.upstreams
        )

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
