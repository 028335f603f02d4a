"""A file that several processes write: in rollback mode, opened when needed, made at the first write."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dflow.journal.sqlite.connection import Connection, check_process
from dflow.journal.sqlite.failures import damaged
from dflow.journal.sqlite.files import check_owner, exists, make_folder
from dflow.journal.sqlite.rows import Unsound
from dflow.journal.sqlite.schema import Schema


def _leave_empty(db: sqlite3.Connection) -> None:
    pass


class SharedFile:
    """The file at `path`, of one schema.

    `fill` writes its first rows, `synchronous` says how far it is synced.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        *,
        synchronous: Callable[[], str],
        uid: int,
        fill: Callable[[sqlite3.Connection], None] = _leave_empty,
    ) -> None:
        self.path = path
        self._schema, self._synchronous, self._uid, self._fill = schema, synchronous, uid, fill
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def present(self) -> bool:
        """Tell whether the file has been made."""
        check_process(self._pid, self.path)
        return self._connection is not None or exists(self.path)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give one state of the file; it is made if need be."""
        check_process(self._pid, self.path)
        with self._refusing(), self._opened().reading() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the file for a transaction; it is made if need be."""
        check_process(self._pid, self.path)
        with self._refusing(), self._opened().writing() as db:
            yield db

    def make(self) -> None:
        """Make the file, if it is not there."""
        if not exists(self.path):
            make_folder(self.path.parent)
            self._schema.make(self.path, self._fill, synchronous=self._synchronous())

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        if self._pid == os.getpid():
            with self._lock:
                connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _opened(self) -> Connection:
        with self._lock:
            if self._connection is None:
                self.make()
                check_owner(self.path.parent, self._uid)
                check_owner(self.path, self._uid)
                connection = Connection(self.path, "rw")
                try:
                    self._schema.migrate(connection)
                    connection.pragma(f"synchronous = {self._synchronous()}")
                except BaseException:
                    connection.close()
                    raise
                self._connection = connection
            return self._connection

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn a row that is not sound into the error that names the file."""
        try:
            yield
        except Unsound as error:
            raise damaged(self.path, str(error)) from error
