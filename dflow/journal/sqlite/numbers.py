"""The numbers of task runs: under which a record is in the table, by the id of its run."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from itertools import count

from dflow.journal.sqlite.queries import queries
from dflow.journal.sqlite.rows import check

_SQL = queries("run")


class Numbers:
    """The numbers of the task runs that have a record, read from the table when one is asked for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.last = 0

    def of(self, db: sqlite3.Connection, run_id: str) -> int | None:
        """Return the number of a task run; None if it has none."""
        if run_id not in self._numbers:
            self._read(db)
        return self._numbers.get(run_id)

    def _read(self, db: sqlite3.Connection) -> None:
        for number, run_id in db.execute(_SQL["ids"], (self.last,)):
            self._numbers[run_id] = self.last = number

    def check_absent(self, db: sqlite3.Connection) -> None:
        """Raise `Unsound` if a task run that was not found may be there under a damaged id."""
        check(db.execute(_SQL["other_ids"]).fetchone() is None, "an id in the list of task runs")

    def given(self, db: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, int]:
        """Return the numbers of these task runs; those that have none get the next ones."""
        if not run_ids:
            return {}
        self._read(db)
        following = count(self.last + 1)
        return {run_id: self._numbers.get(run_id) or next(following) for run_id in run_ids}

    def note(self, numbers: Mapping[str, int]) -> None:
        """Note that records were written under these numbers."""
        self._numbers.update(numbers)
        self.last = max(self.last, max(numbers.values(), default=0))
