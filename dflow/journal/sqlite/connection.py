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
from collections.abc import Callable
from contextlib import suppress
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

    def usable(self) -> Use:
        """Give the connection, outside of a transaction, to one thread."""
        return Use(self, "")

    def reading(self) -> Use:
        """Give the connection for a look at one state of the file."""
        return Use(self, "BEGIN")

    def writing(self) -> Use:
        """Give the connection for a transaction: all of it is written, or nothing."""
        return Use(self, "BEGIN IMMEDIATE")

    def take(self) -> sqlite3.Connection:
        """Take the connection, which no other thread has until it is given back."""
        check_process(self._pid, self.path)
        self._lock.acquire()
        if self._raw is None:
            self._lock.release()
            raise JournalUnavailable(f"The journal '{self.path}' has been closed. Open it again.")
        return self._raw

    def give_back(self) -> None:
        """Let other threads take the connection."""
        self._lock.release()

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


class Use:
    """A connection in the hands of one thread, in a transaction that `begin` begins, if it says so.

    A class of its own: every transaction of the tracker goes through here.
    """

    __slots__ = ("_begin", "_connection", "_raw")

    def __init__(self, connection: Connection, begin: str) -> None:
        self._connection = connection
        self._begin = begin

    def __enter__(self) -> sqlite3.Connection:
        """Begin."""
        self._raw = self._connection.take()
        if self._begin:
            try:
                self._raw.execute(self._begin)
            except BaseException as error:
                self._connection.give_back()
                self._explain(error)
                raise
        return self._raw

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """Commit, or roll back what an error has cut short."""
        try:
            if self._begin and kind is None:
                self._raw.execute("COMMIT")
        except BaseException as failed:
            self._explain(failed)
            raise
        finally:
            try:
                # After some errors, a full disk among them, SQLite has rolled back by itself.
                if self._begin and self._raw.in_transaction:
                    with suppress(sqlite3.Error):
                        self._raw.execute("ROLLBACK")
            finally:
                self._connection.give_back()
        if error is not None:
            self._explain(error)

    def _explain(self, error: BaseException) -> None:
        """Raise the error of ours that stands for one of SQLite."""
        path = self._connection.path
        if isinstance(error, sqlite3.Error):
            raise failure(error, path) from error
        if isinstance(error, UnicodeDecodeError):
            raise damaged(path, "it has text that is none") from error


def image_of(build: Callable[[sqlite3.Connection], None]) -> bytes:
    """Return the bytes of the file that `build` makes of an empty one."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    try:
        build(raw)
        return raw.serialize()
    finally:
        raw.close()


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
