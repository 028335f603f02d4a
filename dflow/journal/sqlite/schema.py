"""What kind of file this is and of which version: refusing those of others, making and migrating ours.

The kind is in ``PRAGMA application_id``, the version, which counts the migrations that were applied,
in ``PRAGMA user_version``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dflow.errors import JournalTooNew
from dflow.journal.sqlite.connection import Connection, image_of
from dflow.journal.sqlite.failures import damaged, folder_failure, not_ours
from dflow.journal.sqlite.files import draft_of, publish
from dflow.journal.sqlite.queries import migrations, statements


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of file: its name, the number that marks it, and its migrations, oldest first."""

    name: str
    application_id: int
    scripts: tuple[str, ...]

    @property
    def newest(self) -> int:
        """The version that new files have."""
        return len(self.scripts)

    def version(self, db: sqlite3.Connection, path: Path) -> int:
        """Return the version of a file. Raises NotAJournal, JournalTooNew or JournalDamaged."""
        kind, version, tables = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "schema_version")
        )
        # Files get their names when they are complete, so an empty one has lost something.
        if kind == 0 and tables == 0:
            raise damaged(path, "it is empty")
        if kind != self.application_id:
            raise not_ours(path)
        if version > self.newest:
            raise JournalTooNew(
                f"The journal '{path}' was written by a newer dflow: it has version {version}, this dflow "
                f"knows versions up to {self.newest}. "
                "Upgrade dflow, or set DFLOW_HOME to another folder."
            )
        if version < 1:
            raise damaged(path, "its version is missing")
        return int(version)

    def migrate(self, connection: Connection) -> None:
        """Bring a file of ours to the newest version, in one transaction."""
        with connection.reading() as db:
            if self.version(db, connection.path) == self.newest:
                return
        with connection.writing() as db:
            self._apply(db, self.version(db, connection.path))

    def make(
        self, path: Path, fill: Callable[[sqlite3.Connection], None], *, synchronous: str
    ) -> None:
        """Make a file, with `fill` to write its first rows; it appears under its name complete.

        If another process makes it at the same time, one of the two stays.
        """
        try:
            draft = draft_of(path)
            draft.touch(mode=0o600)
            draft.chmod(0o600)
            draft.write_bytes(_empty(self))
            connection = Connection(draft, "rw")
            try:
                connection.pragma("journal_mode = OFF")  # a draft that fails is thrown away
                connection.pragma(f"synchronous = {synchronous}")
                with connection.writing() as db:
                    fill(db)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            finally:
                connection.close()
            publish(draft, path)
        except OSError as error:
            raise folder_failure(error, path) from error

    def _apply(self, db: sqlite3.Connection, version: int) -> None:
        for script in self.scripts[version:]:
            for statement in statements(script):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {self.application_id}")
        db.execute(f"PRAGMA user_version = {self.newest}")


@cache
def _empty(schema: Schema) -> bytes:
    """Return an empty file of the newest version: to copy it is quicker than to run all its scripts."""
    return image_of(lambda db: schema._apply(db, 0))


RUN = Schema("run", int.from_bytes(b"dfRn", "big"), migrations("run"))
CATALOG = Schema("catalog", int.from_bytes(b"dfCa", "big"), migrations("catalog"))
LEASES = Schema("leases", int.from_bytes(b"dfLe", "big"), migrations("leases"))
