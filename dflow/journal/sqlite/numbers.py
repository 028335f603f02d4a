"""The numbers of task runs: under which a record is in the table, by the id of its run."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from itertools import count

from dflow.core.id_set import IdSet
from dflow.journal.sqlite.queries import queries
from dflow.journal.sqlite.rows import check

_SQL = queries("run")


class Numbers:
    """The numbers of the task runs that have a record, read from the table when one is asked for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._forgotten = IdSet()
        self.last = 0

    def of(self, db: sqlite3.Connection, run_id: str) -> int | None:
        """Return the number of a task run; None if it has none."""
        if run_id not in self._numbers:
            self._read(db)
        self._remember(db, (run_id,))
        return self._numbers.get(run_id)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Keep the numbers of task runs out of memory until one of them is asked for."""
        for run_id in run_ids:
            if self._numbers.pop(run_id, None) is not None:
                self._forgotten.add(run_id)

    def _remember(self, db: sqlite3.Connection, run_ids: Iterable[str]) -> None:
        """Read all numbers anew if one of these was forgotten."""
        if self._forgotten and any(
            run_id in self._forgotten and run_id not in self._numbers for run_id in run_ids
        ):
            self._forgotten = IdSet()
            self._read(db, after=0)

    def _read(self, db: sqlite3.Connection, after: int | None = None) -> None:
        for number, run_id in db.execute(_SQL["ids"], (self.last if after is None else after,)):
            self._numbers[run_id] = number
            self.last = max(self.last, number)

    def check_absent(self, db: sqlite3.Connection) -> None:
        """Raise `Unsound` if a task run that was not found may be there under a damaged id."""
        check(db.execute(_SQL["other_ids"]).fetchone() is None, "an id in the list of task runs")

    def given(self, db: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, int]:
        """Return the numbers of these task runs; those that have none get the next ones."""
        if not run_ids:
            return {}
        self._read(db)
        self._remember(db, run_ids)
        following = count(self.last + 1)
        return {run_id: self._numbers.get(run_id) or next(following) for run_id in run_ids}

    def note(self, numbers: Mapping[str, int]) -> None:
        """Note that records were written under these numbers."""
        self._numbers.update(numbers)
        self.last = max(self.last, max(numbers.values(), default=0))
