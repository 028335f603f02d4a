"""Gates: at most so many task runs of one map are out at once (``max_in_flight``).

A task run takes a place when it is let through, and gives it back when it is with nobody any more: it has
ended, it awaits a retry, its dispatch came back. Those that find no place queue, in the order in which
they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dflow.core.records import Stage

OUT = frozenset({Stage.DISPATCHED, Stage.RUNNING, Stage.CANCELLING})
"""Where a task run is in somebody's hands."""


class Gate:
    """The places of one map."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: set[str] = set()
        self._queue: dict[str, None] = {}

    def let_through(self, task_run_id: str) -> bool:
        """Give a task run a place, or a turn in the queue; return whether it may go."""
        if len(self._inside) >= self._limit:
            self._queue[task_run_id] = None
            return False
        self._queue.pop(task_run_id, None)
        self._inside.add(task_run_id)
        return True

    def leave(self, task_run_id: str) -> bool:
        """Give a place back, if it has one; return whether it had."""
        if task_run_id not in self._inside:
            return False
        self._inside.discard(task_run_id)
        return True

    def next_ones(self) -> Iterator[str]:
        """Yield who queues, each taken out, while there is a place: whoever goes takes it."""
        while self._queue and len(self._inside) < self._limit:
            first = next(iter(self._queue))
            del self._queue[first]
            yield first


class Gates:
    """Which task runs have to pass which gate."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._on_their_way: set[str] = set()

    def put(self, task_run_ids: Iterable[str], limit: int | None) -> None:
        """Let task runs of which nothing is out share a new gate, or pass freely if there is no limit."""
        if limit is not None:
            self._gates.update(dict.fromkeys(task_run_ids, Gate(limit)))
        elif self._gates:
            for task_run_id in task_run_ids:
                self._gates.pop(task_run_id, None)

    def let_through(self, task_run_id: str) -> bool:
        """Tell whether a task run that waits may go now. One that may is on its way until it is `settled`."""
        gate = self._gates.get(task_run_id)
        if gate is None:
            return True
        if task_run_id in self._on_their_way or not gate.let_through(task_run_id):
            return False
        self._on_their_way.add(task_run_id)
        return True

    def settled(self, task_run_id: str, stage: Stage) -> Iterator[str]:
        """Bring the place of a task run up to date; yield who may take it if it is free."""
        gate = self._gates.get(task_run_id)
        if gate is None or (stage is Stage.WAITING and task_run_id in self._on_their_way):
            return iter(())
        self._on_their_way.discard(task_run_id)
        return gate.next_ones() if stage not in OUT and gate.leave(task_run_id) else iter(())
