"""Gates: at most so many task runs of one map are out at once (``max_in_flight``).

A task run takes a place when it is let through, and gives it back when it is with nobody any more: it has
ended, it awaits a retry, its dispatch came back. Those that find no place queue, in the order in which
they came.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from dflow.core.records import Stage

OUT = frozenset({Stage.DISPATCHED, Stage.RUNNING, Stage.CANCELLING})
"""Where a task run is in somebody's hands."""


class Gate:
    """The places of one map."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: set[str] = set()
        self._queue: OrderedDict[str, None] = OrderedDict()

    def let_through(self, task_run_id: str) -> bool:
        """Give a task run a place, or a turn in the queue; return whether it may go."""
        if task_run_id not in self._inside and len(self._inside) >= self._limit:
            self._queue[task_run_id] = None
            return False
        self._inside.add(task_run_id)
        return True

    def leave(self, task_run_id: str) -> None:
        """Take a place back, if it was given."""
        self._inside.discard(task_run_id)

    def turns(self) -> Iterator[str]:
        """Yield who queues, the first to come first, while there is a place: who goes takes it."""
        while self._queue and len(self._inside) < self._limit:
            yield self._queue.popitem(last=False)[0]


class Gates:
    """Which task runs have to pass which gate."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def put(self, task_run_ids: Iterable[str], limit: int | None) -> None:
        """Let task runs of which nothing is out share a new gate, or pass freely if there is no limit."""
        if limit is not None:
            self._gates.update(dict.fromkeys(task_run_ids, Gate(limit)))
        elif self._gates:
            for task_run_id in task_run_ids:
                self._gates.pop(task_run_id, None)

    def bar(self, task_run_id: str) -> bool:
        """Tell whether a task run has to pass a gate."""
        return task_run_id in self._gates

    def let_through(self, task_run_id: str) -> bool:
        """Tell whether a task run that waits may go now; if so it has its place from now on."""
        gate = self._gates.get(task_run_id)
        return gate is None or gate.let_through(task_run_id)

    def settle(self, task_run_id: str, stage: Stage) -> Iterator[str]:
        """Take the place of a task run back if it is not out any more; yield who may try to take it."""
        gate = self._gates.get(task_run_id) if self._gates else None
        if gate is None or stage in OUT:
            return iter(())
        gate.leave(task_run_id)
        return gate.turns()
