"""The graph of task runs: who may go now, and what a failure takes with it.

A task run may go when each upstream whose value it takes is *done* or *away* (handed to the same
runner, which passes the value on by itself), and each gate (``wait_for``, ``allow_failure``) is over.
Nothing here recurses: chains of 10,000 and fan-ins of 50,000 are walked with counters and queues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import IntEnum

from dflow.core.records import Need, Upstream


class Progress(IntEnum):
    """How far a task run is, as its dependents see it."""

    BLOCKED = 0
    """Not with a runner: not yet, or not any more."""
    AWAY = 1
    """With the runner that also serves its dependents: they may follow it."""
    DONE = 2
    """Completed, and its value can be had."""
    FAILED = 3
    """Ended without a value."""


class Graph:
    """The dependencies between task runs, and for each how many upstreams still hold it back."""

    def __init__(self) -> None:
        self._progress: dict[str, Progress] = {}
        self._upstreams: dict[str, tuple[Upstream, ...]] = {}
        self._dependents: dict[str, dict[tuple[str, Need], None]] = {}
        self._holding: dict[str, int] = {}

    def __contains__(self, task_run_id: str) -> bool:
        return task_run_id in self._progress

    def add(
        self,
        task_run_id: str,
        upstreams: tuple[Upstream, ...],
        progress: Progress = Progress.BLOCKED,
    ) -> None:
        """Add a task run, or add it again with other upstreams; each upstream must be there already.

        A new one may be further already than blocked.
        """
        if task_run_id in self._progress:
            self._forget_edges(task_run_id)
            self.mark(task_run_id, Progress.BLOCKED)
        else:
            self._progress[task_run_id] = progress
        if upstreams:
            several = len(upstreams) > 1
            self._add_edges(task_run_id, tuple(dict.fromkeys(upstreams)) if several else upstreams)

    def _add_edges(self, task_run_id: str, upstreams: tuple[Upstream, ...]) -> None:
        holding = 0
        self._upstreams[task_run_id] = upstreams
        for upstream in upstreams:
            edges = self._dependents.setdefault(upstream.task_run_id, {})
            edges[task_run_id, upstream.need] = None
            holding += _holds(upstream.need, self._progress[upstream.task_run_id])
        if holding:
            self._holding[task_run_id] = holding

    def remove(self, task_run_id: str) -> None:
        """Take a task run out on which nothing depends."""
        self._forget_edges(task_run_id)
        self._dependents.pop(task_run_id, None)
        del self._progress[task_run_id]

    def has_dependents(self, task_run_id: str) -> bool:
        """Tell whether anything that is there depends on a task run."""
        return bool(self._dependents.get(task_run_id))

    def _forget_edges(self, task_run_id: str) -> None:
        self._holding.pop(task_run_id, None)
        for upstream in self._upstreams.pop(task_run_id, ()):
            del self._dependents[upstream.task_run_id][task_run_id, upstream.need]

    def progress(self, task_run_id: str) -> Progress:
        """Return how far a task run is."""
        return self._progress[task_run_id]

    def may_go(self, task_run_id: str) -> bool:
        """Tell whether nothing stands in the way of a task run."""
        return self._progress[task_run_id] is Progress.BLOCKED and not self._holding.get(
            task_run_id
        )

    def failed_upstream(self, task_run_id: str) -> str | None:
        """Return the first upstream whose failure takes this task run with it, or None."""
        for upstream in self._upstreams.get(task_run_id, ()):
            if (
                upstream.need is not Need.ALLOW
                and self._progress[upstream.task_run_id] is Progress.FAILED
            ):
                return upstream.task_run_id
        return None

    def mark(self, task_run_id: str, progress: Progress) -> list[str]:
        """Set how far a task run is; return the dependents that may go now because of it."""
        before, self._progress[task_run_id] = self._progress[task_run_id], progress
        dependents = self._dependents.get(task_run_id)
        if not dependents:
            return []
        touched: dict[str, None] = {}
        in_reach = progress in _IN_REACH and before in _IN_REACH
        for dependent, need in dependents:
            if in_reach and need is Need.DATA:
                continue  # it may go, as before
            change = _holds(need, progress) - _holds(need, before)
            if change:
                self._holding[dependent] = self._holding.get(dependent, 0) + change
                touched[dependent] = None
        return [dependent for dependent in touched if self.may_go(dependent)]

    def doomed(self, task_run_id: str) -> Iterator[tuple[str, str]]:
        """Yield (dependent, its failed upstream) for all that the failure of a task run takes with it.

        Nearest first, each once; those that have failed already are passed over. The caller marks each
        one that fails as FAILED before it takes the next, or leaves it as it is: what hangs on one that
        stands is not taken along.
        """
        queue = deque([task_run_id])
        seen = {task_run_id}
        while queue:
            cause = queue.popleft()
            for dependent, need in tuple(self._dependents.get(cause, ())):
                has_failed = self._progress[dependent] is Progress.FAILED
                if need is Need.ALLOW or dependent in seen or has_failed:
                    continue
                seen.add(dependent)
                yield dependent, cause
                if self._progress[dependent] is Progress.FAILED:
                    queue.append(dependent)

    def dependents(self, task_run_id: str) -> Iterator[str]:
        """Yield the task runs that depend directly on this one."""
        for dependent, _ in self._dependents.get(task_run_id, ()):
            yield dependent

    def upstreams(self, task_run_id: str) -> tuple[Upstream, ...]:
        """Return what a task run depends on."""
        return self._upstreams.get(task_run_id, ())


_IN_REACH = (Progress.AWAY, Progress.DONE)
"""How far an upstream is that does not hold back those that take its value."""


def _holds(need: Need, progress: Progress) -> int:
    """Return 1 if an upstream that is so far holds back a dependent with this need, else 0."""
    if progress is Progress.DONE:
        return 0
    if progress is Progress.FAILED:
        return 0 if need is Need.ALLOW else 1
    return 0 if need is Need.DATA and progress is Progress.AWAY else 1
