"""The journals that the contract is held against, and a world of processes that live or do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow.journal import MemoryJournal, SqliteJournal
from dflow.ports import Journal
from tests.journal.world import OpenAt, World


@pytest.fixture
def world() -> World:
    """Return the processes that holders of runs are, as the journals see them."""
    return World()


@pytest.fixture
def sqlite_at(world: World) -> Iterator[OpenAt]:
    """Return a function that opens the journal in a folder; it is closed after the test."""
    opened: list[SqliteJournal] = []

    def connect(home: Path, **options: Any) -> SqliteJournal:
        opened.append(SqliteJournal(home, is_alive=world, **options))
        return opened[-1]

    yield connect
    for journal in opened:
        journal.close()


@pytest.fixture(params=["memory", "sqlite", "sqlite-network"])
def open_journal(
    request: pytest.FixtureRequest, tmp_path: Path, world: World, sqlite_at: OpenAt
) -> Callable[[], Journal]:
    """Return a function that opens one and the same journal, as another process would."""
    in_memory = MemoryJournal(is_alive=world)
    kind = "nfs4" if request.param == "sqlite-network" else "ext4"

    def connect() -> Journal:
        if request.param == "memory":
            return in_memory
        return sqlite_at(tmp_path / "home", file_system_of=lambda path: kind)

    return connect


@pytest.fixture
def journal(open_journal: Callable[[], Journal]) -> Journal:
    """Return an empty journal."""
    return open_journal()
