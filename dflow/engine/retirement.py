"""Retirement: task runs that have ended, and that nobody needs any more, leave the driver's memory.

The journal has them. A task run may go when it has completed at its first dispatch, so that no other body of
it goes on anywhere; was asked for by the body of a flow, not of a task, which may be tried again at any time;
is not looked up in the cache; has no future, and no value at its runner; has never called anything; and when
nothing in memory depends on it. Those stay that became free last.

The body of a flow that begins again asks for its task runs again. Before that all are recalled, and from
then on they stay, as they do in a run that is resumed: its end is compared with what was there before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from dflow.core.graph import Graph
from dflow.core.id_set import IdSet
from dflow.core.records import Stage, TaskRun
from dflow.engine.claims import Claim
from dflow.errors import JournalError, JournalUnavailable

if TYPE_CHECKING:
    from dflow.engine.ledger import Ledger
    from dflow.engine.session import Session

KEPT = 2_000
"""How many task runs stay that might go: they take about 1 kB each."""
AT_ONCE = 1_000
"""How many go at once, beside twice as many as have changed meanwhile."""
LOOK = 0.5
"""Seconds between two tries to read a journal that cannot be used at the moment."""


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
        self._more = 0

    def __contains__(self, task_run_id: str) -> bool:
        """Tell whether a task run has left, and was not recalled; any thread may ask."""
        return task_run_id in self._gone

    def note_caller(self, parent_id: str | None) -> None:
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
            and not claim.cached
            and run.dispatch == 1
            and run.parent_id == run.flow_run_id
            and task_run_id not in self._callers
            and not self._graph.has_dependents(task_run_id)
        )

    @property
    def due(self) -> bool:
        """Whether there are too many that might go, and some of them may be saved by now."""
        return len(self._free) > KEPT + self._more

    def choose(self, changed: int = 0) -> list[str]:
        """Return some that go now: those that have been free for longest.

        More go than have `changed` since the last time, so that those that go keep up with those that come.
        """
        self._more = 0
        most = AT_ONCE + 2 * changed
        chosen: dict[str, None] = {}
        while len(self._free) > KEPT and len(chosen) < most:
            task_run_id = self._free.popleft()
            if self._may_go(task_run_id):
                chosen[task_run_id] = None
        return list(chosen)

    def put_back(self, task_run_ids: Iterable[str]) -> None:
        """Let some stay that were chosen, and are not saved: until there are more, or `look_again`."""
        self._free.extendleft(reversed(list(task_run_ids)))
        self._more = len(self._free) + AT_ONCE - KEPT

    def look_again(self) -> None:
        """Note that some more are saved."""
        self._more = 0

    def note(self, task_run_ids: Iterable[str]) -> None:
        """Note that task runs leave."""
        for task_run_id in task_run_ids:
            self._gone.add(task_run_id)

    def end(self) -> bool:
        """Let nothing go any more; return whether anything has gone."""
        self._goes_on = False
        self._free.clear()
        return len(self._gone) > 0

    def forget(self) -> None:
        """Note that all who had gone are back."""
        self._gone = IdSet()


def recall(session: Session) -> None:
    """Take all back that have left, from the journal; from now on nothing leaves.

    It waits while the journal cannot be used. When that cannot be read the flow run ends: `JournalError`.
    """
    if not session.in_tracker(lambda ledger: ledger.retirement.end()):
        return
    runs = _recorded(session)

    def take_back(ledger: Ledger) -> None:
        session.tracker.shown.update(ledger.take_back(runs))
        ledger.retirement.forget()

    session.in_tracker(take_back)


def _recorded(session: Session) -> list[TaskRun]:
    while True:
        try:
            return list(session.journal.task_runs())
        except JournalUnavailable:
            session.tracker.check()
            threading.Event().wait(LOOK)
        except JournalError as error:
            session.tracker.fail(error)
            raise
