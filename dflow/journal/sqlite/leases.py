"""Shares of limited things, held for a time by owners in several processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from dflow.journal.holding import Probe, known_dead
from dflow.journal.sqlite.queries import queries
from dflow.journal.sqlite.rows import holder_of, holder_text, storable
from dflow.journal.sqlite.shared_file import SharedFile
from dflow.ports import Holder

SQL = queries("leases")


class SqliteLeases:
    """The leases in a file. `probe` tells whether the process that holds a share lives."""

    def __init__(self, file: SharedFile, probe: Probe) -> None:
        self._file, self._probe = file, probe

    def acquire(
        self,
        key: str,
        owner: str,
        seconds: float,
        at: float,
        limit: int = 1,
        holder: Holder | None = None,
    ) -> bool:
        """Take or renew a share until ``at + seconds``, or return False if `limit` others hold theirs."""
        return key in self.acquire_each([key], owner, seconds, at, limit, holder)

    def acquire_each(
        self,
        keys: Sequence[str],
        owner: str,
        seconds: float,
        at: float,
        limit: int = 1,
        holder: Holder | None = None,
    ) -> frozenset[str]:
        """Take a share of each key that can be had, in one transaction; return those keys."""
        held_by = holder_text(holder)
        taken: set[str] = set()
        with self._file.writing() as db:
            for key in keys:
                db.execute(SQL["drop_expired"], (storable(key), at))
                if self._room(db, key, owner, limit):
                    db.execute(SQL["take"], (storable(key), storable(owner), at + seconds, held_by))
                    taken.add(key)
        return frozenset(taken)

    def renew(self, owner: str, seconds: float, at: float) -> None:
        """Hold all shares of an owner that have not expired until ``at + seconds``."""
        self._change("renew", at + seconds, storable(owner), at)

    def release_each(self, keys: Sequence[str], owner: str) -> None:
        """Give back the shares of these keys, in one transaction."""
        if self._file.present():
            with self._file.writing() as db:
                pairs = [(storable(key), storable(owner)) for key in keys]
                db.executemany(SQL["release"], pairs)

    def release_all(self, owner: str) -> None:
        """Give back all shares of an owner."""
        self._change("release_all", storable(owner))

    def holders(self, key: str, at: float) -> Sequence[str]:
        """Return the owners whose shares count."""
        if not self._file.present():
            return []
        with self._file.reading() as db:
            rows = db.execute(SQL["holders"], (storable(key), at)).fetchall()
            return [owner for owner, text in rows if not self._dead(text)]

    def _room(self, db: sqlite3.Connection, key: str, owner: str, limit: int) -> bool:
        """Tell whether there is a share for this owner; those of the dead are taken from them."""
        others = db.execute(SQL["others"], (storable(key), storable(owner))).fetchall()
        if len(others) < limit:
            return True
        dead = [other for other, text in others if self._dead(text)]
        db.executemany(SQL["release"], [(storable(key), other) for other in dead])
        return len(others) - len(dead) < limit

    def _dead(self, holder: str | None) -> bool:
        return known_dead(holder_of(holder), self._probe)

    def _change(self, query: str, *values: object) -> None:
        if self._file.present():
            with self._file.writing() as db:
                db.execute(SQL[query], values)
