"""Queries for many rows: with as few statements as can be.

SQLite lets other threads run during each statement: one for every row would give up the interpreter, and
wait for its turn again, thousands of times in a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from dflow.journal.sqlite.queries import for_rows
from dflow.journal.sqlite.rows import Row

TOGETHER = (256, 64, 16, 4, 1)
"""How many rows a statement may have: few sizes, so that SQLite knows the statements already."""


def put(db: sqlite3.Connection, query: str, rows: Iterable[Row]) -> None:
    """Run a query for many rows, which are its ``VALUES``."""
    for statement, values in _statements(query, list(rows)):
        db.execute(statement, values)


def find(db: sqlite3.Connection, query: str, keys: Iterable[object]) -> list[Row]:
    """Return what a query finds for many keys, which are its ``VALUES``."""
    found: list[Row] = []
    for statement, values in _statements(query, [(key,) for key in keys]):
        found += db.execute(statement, values)
    return found


def _statements(query: str, rows: Sequence[Row]) -> Iterator[tuple[str, list[object]]]:
    done = 0
    for size in TOGETHER:
        while len(rows) - done >= size:
            together = rows[done : done + size]
            yield for_rows(query, size), list(chain.from_iterable(together))
            done += size
