"""What the last events tell of task runs whose records have not taken them in yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from dflow.core import events as ev
from dflow.core.creation import ids_of
from dflow.core.records import TaskRun
from dflow.core.replay import Table
from dflow.journal.sqlite.numbers import Numbers
from dflow.journal.sqlite.queries import queries
from dflow.journal.sqlite.rows import record_of

_TASK_RUN, _STATE = (queries("run")[name] for name in ("task_run", "state"))


class Tail:
    """The task runs of which the events after `recorded` tell, as those leave them.

    `made` are the ones that have no record in the table, in the order of their creation, `valued` the events
    that brought their values.
    """

    def __init__(self, recorded: int, saved_runs: int, numbers: Numbers) -> None:
        self.key = recorded, saved_runs
        self._numbers = numbers
        self.upto = recorded
        self.made: list[str] = []
        self.valued: dict[str, int] = {}
        self._table = Table()
        self._taken_in: dict[str, int] = {}

    @property
    def runs(self) -> dict[str, TaskRun]:
        """The task runs by their ids."""
        return self._table.task_runs

    def take(self, db: sqlite3.Connection, events: Iterable[tuple[int, ev.Event | None]]) -> None:
        """Take in the events that follow."""
        for number, event in events:
            self.upto = number
            if isinstance(event, ev.TaskCreated | ev.MapCreated):
                ids = ids_of(event)
                self._look_up(db, ids)
                self.made += [i for i in dict.fromkeys(ids) if i not in self.runs]
                self._table.apply(event)
            elif isinstance(event, ev.TaskEvent):
                self._look_up(db, [event.task_run_id])
                if number > self._taken_in[event.task_run_id]:
                    self._table.apply(event)
                    if hasattr(event, "value"):
                        self.valued[event.task_run_id] = number

    def saved_state(self, db: sqlite3.Connection, run_id: str) -> str | None:
        """Return the name of the state in which a task run is in the table; None if it is not there."""
        number = self._numbers.of(db, run_id)
        row = None if number is None else db.execute(_STATE, (number,)).fetchone()
        return None if row is None else str(row[0])

    def _look_up(self, db: sqlite3.Connection, run_ids: Iterable[str]) -> None:
        """Fetch the records that are in the table."""
        for run_id in run_ids:
            if run_id in self._taken_in:
                continue
            self._taken_in[run_id] = 0
            number = self._numbers.of(db, run_id)
            if number is not None:
                *row, event, _ = db.execute(_TASK_RUN, (number,)).fetchone()
                self._taken_in[run_id] = event
                self.runs[run_id] = record_of(TaskRun, tuple(row), number)
