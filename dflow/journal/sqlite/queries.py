"""SQL from its files: named queries, and scripts that bring a file to a newer schema, or show it as such."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

_HERE = files("dflow.journal.sqlite")
_VALUES = re.compile(r"VALUES (\([?, ]+\))")
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def queries(name: str) -> Mapping[str, str]:
    """Return the queries of ``sql/<name>.sql`` by their names."""
    text = (_HERE / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {key: body.strip() for key, body in zip(parts[::2], parts[1::2], strict=True)}


@cache
def migrations(name: str) -> tuple[str, ...]:
    """Return the scripts of ``migrations/<name>/``, the first of which makes the tables."""
    scripts = (_HERE / "migrations" / name).iterdir()
    in_order = sorted((s for s in scripts if s.name.endswith(".sql")), key=lambda s: s.name)
    return tuple(script.read_text(encoding="utf-8") for script in in_order)


@cache
def views(name: str, version: int) -> str:
    """Return the script that shows a file of an earlier version as one of the newest."""
    return (_HERE / "views" / name / f"{version:04}.sql").read_text(encoding="utf-8")


@cache
def for_rows(query: str, count: int) -> str:
    """Return a query whose one row of values, ``VALUES (?, …)``, is `count` rows."""
    return _VALUES.sub(lambda found: "VALUES " + ", ".join([found[1]] * count), query)


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one, so that they fit into one transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
