"""The catalog: all runs of a home, and who drives each. Several processes use it at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from dflow.journal.holding import Probe, ambiguous, held, lives, not_found, taken_over
from dflow.journal.sqlite.queries import queries
from dflow.journal.sqlite.rows import entry_of, entry_row, holder_text, storable
from dflow.journal.sqlite.shared_file import SharedFile
from dflow.ports import Holder, RunEntry

SQL = queries("catalog")

Entries = list[RunEntry]
"""Runs, the newest first; a class with a method `list` cannot say it otherwise."""


class SqliteCatalog:
    """The catalog in a file.

    `rebuild` brings back a lost one, and tells whether there was anything to list.
    """

    def __init__(self, file: SharedFile, probe: Probe, rebuild: Callable[[], bool]) -> None:
        self._file, self._probe, self._rebuild = file, probe, rebuild

    def _there(self) -> bool:
        return self._file.present() or self._rebuild()

    def create(self, entry: RunEntry) -> None:
        """Add a run. Raises ValueError if its id is there already."""
        with self._file.writing() as db:
            if _select(db, "by_id", entry.id):
                raise ValueError(f"There is a run with the id '{entry.id}' already.")
            db.execute(SQL["insert"], entry_row(entry))

    def claim(self, run_id: str, holder: Holder, at: float) -> int:
        """Make `holder` the driver of a run and return the new epoch."""
        if not self._there():
            raise not_found(run_id)
        with self._file.writing() as db:
            for entry in _select(db, "by_id", run_id):
                if lives(entry, self._probe, at):
                    raise held(entry)
                epoch = entry.epoch + 1
                db.execute(SQL["claim"], (epoch, holder_text(holder), at, run_id))
                return epoch
        raise not_found(run_id)

    def heartbeat(self, run_id: str, epoch: int, at: float) -> None:
        """Give a sign of life. Raises `RunTakenOver` if the epoch is not the present one."""
        self._change("heartbeat", (at,), run_id, epoch)

    def update(self, run_id: str, epoch: int, state_name: str, message: str, at: float) -> None:
        """Set the state that lists show. Raises `RunTakenOver` if the epoch is not the present one."""
        self._change("update", (state_name, storable(message), at), run_id, epoch)

    def end(self, run_id: str, epoch: int, state_name: str, message: str, at: float) -> None:
        """Set the last state of a run, and let go of it: in one transaction. Raises as `update` does."""
        values = state_name, storable(message), at
        self._change("update", values, run_id, epoch, then="release")

    def release(self, run_id: str, epoch: int) -> None:
        """Let go of a run; nothing happens if the epoch is not the present one."""
        if self._there():
            with self._file.writing() as db:
                db.execute(SQL["release"], (run_id, epoch))

    def find(self, text: str) -> RunEntry:
        """Return the run with this id, this unique start of an id, this name, or the ``latest``."""
        if text == "latest":
            for entry in self.list(1):
                return entry
        for query in ("by_id", "by_name", "by_start"):
            fits = self._look(query, storable(text))
            if len(fits) > 1:
                raise ambiguous(text, [entry.id for entry in fits])
            if fits:
                return fits[0]
        raise not_found(text)

    def list(self, limit: int | None = None) -> list[RunEntry]:
        """Return runs, the newest first."""
        return self._look("newest", -1 if limit is None else limit)

    def is_alive(self, entry: RunEntry, at: float) -> bool:
        """Tell whether a run has a driver that lives."""
        return lives(entry, self._probe, at)

    def entry(self, run_id: str) -> RunEntry | None:
        """Return the run with this id, if it is in the catalog."""
        return next(iter(self._look("by_id", run_id)), None)

    def drop(self, run_id: str, epoch: int) -> None:
        """Take a run off the list, for its driver. Raises `RunTakenOver` as `heartbeat` does."""
        self._change("delete", (), run_id, epoch)

    def _look(self, query: str, parameter: Any) -> Entries:
        if not self._there():
            return []
        with self._file.reading() as db:
            return _select(db, query, parameter)

    def _change(
        self,
        query: str,
        values: tuple[Any, ...],
        run_id: str,
        epoch: int,
        *,
        then: str | None = None,
    ) -> None:
        if not self._there():
            raise taken_over(run_id, epoch)
        with self._file.writing() as db:
            if db.execute(SQL[query], (*values, run_id, epoch)).rowcount != 1:
                raise taken_over(run_id, epoch)
            if then is not None:
                db.execute(SQL[then], (run_id, epoch))


def _select(db: sqlite3.Connection, query: str, parameter: Any) -> list[RunEntry]:
    named = {"start": parameter} if query == "by_start" else (parameter,)
    return [entry_of(row) for row in db.execute(SQL[query], named)]
