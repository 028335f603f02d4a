"""From SQLite's errors to ours, told apart by their codes and never by their texts."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dflow.errors import JournalDamaged, JournalError, JournalUnavailable, NotAJournal

_ADVICE = {
    sqlite3.SQLITE_FULL: "Free some space on its disk, or set DFLOW_HOME to a folder with more.",
    sqlite3.SQLITE_IOERR: "Look after its disk, or set DFLOW_HOME to a folder on another one.",
    sqlite3.SQLITE_CANTOPEN: "Make the folder readable and writable, or set DFLOW_HOME to another one.",
    sqlite3.SQLITE_READONLY: "Make the file writable, or set DFLOW_HOME to another folder.",
    sqlite3.SQLITE_PERM: "Make the file writable, or set DFLOW_HOME to another folder.",
    sqlite3.SQLITE_BUSY: "Another process keeps it locked: try again, or stop that process.",
    sqlite3.SQLITE_LOCKED: "Another process keeps it locked: try again, or stop that process.",
    sqlite3.SQLITE_PROTOCOL: "Another process keeps it locked: try again, or stop that process.",
    sqlite3.SQLITE_NOMEM: "There is too little memory.",
    sqlite3.SQLITE_INTERRUPT: "It was interrupted: try again.",
}
"""What to do, by primary code, about that which is no fault of the file."""


def code_of(error: BaseException | None) -> int:
    """Return the extended code of an error of SQLite, or 0."""
    return getattr(error, "sqlite_errorcode", 0)


def failure(error: sqlite3.Error, path: Path) -> JournalError:
    """Return what an error of SQLite means for the journal at `path`."""
    primary = code_of(error) & 0xFF
    if primary == sqlite3.SQLITE_NOTADB:
        return not_ours(path)
    if primary in _ADVICE:
        return JournalUnavailable(
            f"The journal '{path}' cannot be used: {error}. {_ADVICE[primary]}"
        )
    return damaged(path, str(error))


def not_ours(path: Path) -> NotAJournal:
    """Return the error for a file that is something else."""
    return NotAJournal(
        f"The file '{path}' is not a journal of dflow. "
        "Move it away, or set DFLOW_HOME to another folder."
    )


def damaged(path: Path, what: str) -> JournalDamaged:
    """Return the error for a file that does not hold what was written."""
    if path.parent.parent.name == "runs":
        advice = "Other runs are not harmed. Bring it back from a copy, or delete its folder."
    else:
        advice = "Move it away: dflow makes a new one."
    return JournalDamaged(f"The journal '{path}' is damaged: {what}. {advice}")


def folder_failure(error: OSError, path: Path) -> JournalUnavailable:
    """Return the error for a file or folder that the system refuses."""
    return JournalUnavailable(
        f"'{path}' cannot be used: {error.strerror or error}. "
        "Make it readable and writable, or set DFLOW_HOME to another folder."
    )
