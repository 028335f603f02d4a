"""Lineage: who takes what of whom, and who was called by whom, as far as it is recorded.

It tells what follows when a task run is to give another value than before: all that depends on it directly
or through others, and where it is wanted, what it had called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dflow.core.records import FlowRun, Need, TaskRun
from dflow.core.replay import Table

ANY = frozenset(Need)
"""To depend in any way."""
ALLOWED = frozenset({Need.ALLOW})
"""To depend on a task run that may fail."""


class Lineage:
    """The dependents and the children of each run."""

    def __init__(self, table: Table) -> None:
        self._dependents: dict[str, dict[str, Need]] = {}
        self._children: dict[str, dict[str, None]] = {}
        self._passed: set[str] = set()
        for flow_run in table.flow_runs.values():
            self.add(flow_run)
        for task_run in table.task_runs.values():
            self.add(task_run)

    def add(self, run: TaskRun | FlowRun) -> None:
        """Note on whom a run depends, and who has called it."""
        for upstream in run.upstreams:
            self._dependents.setdefault(upstream.task_run_id, {})[run.id] = upstream.need
        if run.parent_id is not None:
            self._children.setdefault(run.parent_id, {})[run.id] = None

    def ended(self, run_id: str) -> None:
        """Note that a run has come to an end since: what depends on it may have taken its value."""
        self._passed.discard(run_id)

    def heirs(
        self, run_ids: Iterable[str], needs: Collection[Need] = ANY, *, children: bool = False
    ) -> Iterator[str]:
        """Yield what depends on some runs in one of these ways, and all that depends on that, each once.

        With `children` what each of them has called comes too. What was yielded before, and has not ended
        since, is passed over with all behind it.
        """
        starts = set(run_ids)
        queue = list(starts)
        while queue:
            run_id = queue.pop()
            wanted = needs if run_id in starts else ANY
            found = [k for k, need in self._dependents.get(run_id, {}).items() if need in wanted]
            if children:
                found += self._children.get(run_id, ())
            for heir in found:
                if heir not in self._passed:
                    self._passed.add(heir)
                    queue.append(heir)
                    yield heir
