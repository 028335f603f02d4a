"""Retirement: task runs that have ended, and that nobody needs any more, leave the driver's memory.

The journal has them. A task run may go when it has completed and was asked for by the body of a flow, has no
future, no value at its runner, and nothing in memory that depends on it or that it called: so whatever is in
memory finds there all that it stands on. The last ones to become free stay.

A body that begins again asks for its task runs again. Before that all are recalled, and from then on they
stay, as they do in a run that is resumed: its end is compared with what was there before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from dflow.core.graph import Graph
from dflow.core.id_set import IdSet
from dflow.core.records import Stage, TaskRun
from dflow.engine.claims import Claim

KEPT = 2_000
"""How many task runs stay that might go: they take about 1 kB each."""
AT_ONCE = 1_000
"""How many go at once, when nothing else is to be done."""


class Retirement:
    """Which task runs of one ledger may leave its memory, and which have left. `needed` tells of values."""

    def __init__(
        self,
        task_runs: Mapping[str, TaskRun],
        claims: Mapping[str, Claim],
        graph: Graph,
        needed: Callable[[str], bool],
    ) -> None:
        self._task_runs = task_runs
        self._claims = claims
        self._graph = graph
        self._needed = needed
        self._goes_on = not task_runs
        self._gone = IdSet()
        self._callers: set[str] = set()
        self._free: deque[str] = deque()

    def __contains__(self, task_run_id: str) -> bool:
        """Tell whether a task run has left; any thread may ask."""
        return task_run_id in self._gone

    def __bool__(self) -> bool:
        return len(self._gone) > 0

    def called(self, parent_id: str | None) -> None:
        """Note that a run has called another one."""
        if parent_id is not None:
            self._callers.add(parent_id)

    def consider(self, task_run_ids: Iterable[str]) -> None:
        """Note what may go from now on, if nothing else stands in the way."""
        if self._goes_on:
            self._free.extend(filter(self._may_go, task_run_ids))

    def _may_go(self, task_run_id: str) -> bool:
        run = self._task_runs.get(task_run_id)
        if run is None or run.stage is not Stage.COMPLETED or self._needed(task_run_id):
            return False
        claim = self._claims.get(task_run_id)
        return (
            claim is not None
            and not claim.cached  # who looks for values notes more of it
            and run.parent_id == run.flow_run_id
            and task_run_id not in self._callers
            and not self._graph.has_dependents(task_run_id)
        )

    @property
    def due(self) -> bool:
        """Whether there are too many that might go."""
        return len(self._free) > KEPT

    def choose(self, changed: int = 0) -> list[str]:
        """Return some that go now: those that have been free for longest.

        More go than have `changed` since the last time, so that those that go keep up with those that come.
        """
        most = AT_ONCE + 2 * changed
        chosen: dict[str, None] = {}
        while len(self._free) > KEPT and len(chosen) < most:
            task_run_id = self._free.popleft()
            if self._may_go(task_run_id):
                chosen[task_run_id] = None
        return list(chosen)

    def put_back(self, task_run_ids: Iterable[str]) -> None:
        """Let some that were chosen stay for now."""
        self._free.extendleft(task_run_ids)

    def note(self, runs: Iterable[TaskRun]) -> None:
        """Note that task runs have left; what they have taken values of may go now, too."""
        for run in runs:
            self._gone.add(run.id)
            self.consider(upstream.task_run_id for upstream in run.upstreams)

    def end(self) -> bool:
        """Let nothing go any more; return whether anything has gone."""
        any_gone = bool(self)
        self._goes_on = False
        self._gone = IdSet()
        self._free.clear()
        return any_gone
