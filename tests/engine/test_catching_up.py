"""What the journal has put off is done when nothing else happens, and not before."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dflow import flow, task
from dflow.engine import tracker
from dflow.journal.sqlite.run_journal import SqliteRunJournal
from task_runners import ThreadPoolTaskRunner

DEADLINE = 20.0
"""Seconds after which what a test waits for will not come any more."""


@task
def work(x: int) -> int:
    """Do next to nothing."""
    return x


def until(reached: Callable[[], bool]) -> None:
    """Wait for something; fail when it does not come."""
    deadline = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < deadline, "it has not come"
        threading.Event().wait(0.01)


def saved(home: Path) -> int:
    """Return how many records of task runs the only run has."""
    (path,) = home.glob("runs/*/journal.sqlite")
    with sqlite3.connect(path) as db:
        (number,) = db.execute("SELECT count(*) FROM task_runs").fetchone()
    db.close()
    return int(number)


def test_records_are_saved_while_a_body_does_something_else(dflow_home: Path) -> None:
    """Those of a map that has ended, though the flow goes on and asks for nothing more."""

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def body() -> None:
        work.map(range(1200)).result()
        until(lambda: saved(dflow_home) == 1200)

    body()


def test_not_while_something_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls again and again does not wait for it; a tracker that only looks is not at rest."""
    now = [100.0]
    done = threading.Event()
    catch_up = SqliteRunJournal.catch_up

    def noted(journal: SqliteRunJournal) -> bool:
        done.set()
        return catch_up(journal)

    monkeypatch.setattr(tracker, "monotonic", lambda: now[0])
    monkeypatch.setattr(SqliteRunJournal, "catch_up", noted)

    @flow
    def body() -> None:
        for number in range(5):
            work(number)
            assert not done.wait(4 * tracker.CALM)  # it looks every few milliseconds
        now[0] += 2 * tracker.CALM
        until(done.is_set)

    body()
