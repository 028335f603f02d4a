"""Shares of limited things, held for a time by owners in several processes."""

from __future__ import annotations

from collections.abc import Sequence

from dflow.journal.sqlite.queries import queries
from dflow.journal.sqlite.shared_file import SharedFile

SQL = queries("leases")


class SqliteLeases:
    """The leases in a file."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file

    def acquire(self, key: str, owner: str, seconds: float, at: float, limit: int = 1) -> bool:
        """Take or renew a share until ``at + seconds``, or return False if `limit` others hold theirs."""
        with self._file.writing() as db:
            db.execute(SQL["drop_expired"], (key, at))
            others = db.execute(SQL["others"], (key, owner)).fetchone()[0]
            if others >= limit:
                return False
            db.execute(SQL["take"], (key, owner, at + seconds))
            return True

    def release(self, key: str, owner: str) -> None:
        """Give a share back; nothing happens without one."""
        if self._file.present():
            with self._file.writing() as db:
                db.execute(SQL["release"], (key, owner))

    def holders(self, key: str, at: float) -> Sequence[str]:
        """Return the owners whose shares have not expired."""
        if not self._file.present():
            return []
        with self._file.reading() as db:
            return [row[0] for row in db.execute(SQL["holders"], (key, at))]
