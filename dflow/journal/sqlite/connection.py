"""One open SQLite file: used by one thread at a time, dead after a fork, closed once.

Nothing else in dflow touches SQLite's connections, and no error of SQLite leaves this module. The
files must never be opened in another way while a connection has them: closing a file drops every
lock that its process holds on it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from dflow.errors import JournalUnavailable
from dflow.journal.sqlite.failures import damaged, failure

Mode = Literal["ro", "rw", "rwc"]


class Connection:
    """A connection to the file at `path`, opened at once. `mode` is SQLite's: ro, rw or rwc."""

    def __init__(self, path: Path, mode: Mode, *, busy_seconds: float = 30.0) -> None:
        self.path = path
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._raw: sqlite3.Connection | None = None
        try:
            self._raw = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=busy_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
            _open.add(self)
            # A file may come from anywhere: no code in its schema is run, and its cells are checked.
            self._raw.execute("PRAGMA trusted_schema = OFF")
            self._raw.execute("PRAGMA cell_size_check = ON")
        except sqlite3.Error as error:
            self.close()
            raise failure(error, path) from error

    @contextmanager
    def usable(self) -> Iterator[sqlite3.Connection]:
        """Give the connection, outside of a transaction, to one thread."""
        check_process(self._pid, self.path)
        with self._lock:
            if self._raw is None:
                raise JournalUnavailable(
                    f"The journal '{self.path}' has been closed. Open it again."
                )
            try:
                yield self._raw
            except sqlite3.Error as error:
                raise failure(error, self.path) from error
            except UnicodeDecodeError as error:
                raise damaged(self.path, "it has text that is none") from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for a look at one state of the file."""
        with self.usable() as raw, _transaction(raw, "BEGIN"):
            yield raw

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for a transaction: all of it is written, or nothing."""
        with self.usable() as raw, _transaction(raw, "BEGIN IMMEDIATE"):
            yield raw

    def pragma(self, text: str) -> Any:
        """Run ``PRAGMA text`` and return the value that it gives, if any."""
        with self.usable() as raw:
            row = raw.execute(f"PRAGMA {text}").fetchone()
            return None if row is None else row[0]

    def close(self) -> None:
        """Close the file. A connection that was inherited by a fork is left alone."""
        if self._pid != os.getpid():
            return
        with self._lock:
            raw, self._raw = self._raw, None
            if raw is not None:
                raw.close()

    def leave_to_parent(self) -> None:
        """Keep this connection from ever being closed in the process that inherited it."""
        import ctypes  # lazy: only a forked process needs it

        if self._raw is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._raw))


@contextmanager
def _transaction(raw: sqlite3.Connection, begin: str) -> Iterator[None]:
    raw.execute(begin)
    try:
        yield
        raw.execute("COMMIT")
    finally:
        # After some errors, a full disk among them, SQLite has rolled back by itself.
        if raw.in_transaction:
            with suppress(sqlite3.Error):
                raw.execute("ROLLBACK")


def check_process(pid: int, path: Path) -> None:
    """Raise JournalUnavailable unless this is the process `pid`, which opened the journal."""
    if pid != os.getpid():
        raise JournalUnavailable(
            f"The journal '{path}' was opened by process {pid}, from which this one was forked. "
            "Open it again here: an open journal cannot be shared with a forked process."
        )


_open: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_open):
        connection.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
