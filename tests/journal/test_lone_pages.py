"""A few events that nothing else comes with: one row, one statement, a transaction of its own."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dflow.core import events as ev
from dflow.errors import JournalDamaged, RunTakenOver
from dflow.journal import SqliteJournal
from dflow.ports import RunJournal
from tests.journal.world import (
    RUN,
    Driver,
    OpenAt,
    entry,
    flow_created,
    life,
    log,
    task_created,
    without_value,
)

EVENTS = len(life("t"))


@pytest.fixture
def journal(tmp_path: Path, sqlite_at: OpenAt) -> SqliteJournal:
    """Return a journal."""
    journal = sqlite_at(tmp_path / "home")
    journal.catalog.create(entry())
    return journal


def asked(journal: SqliteJournal, query: str) -> list[Any]:
    """Return what a query, or a change, finds in the file of the run."""
    with sqlite3.connect(journal.home / "runs" / RUN / "journal.sqlite") as db:
        found = db.execute(query).fetchall()
    db.close()
    return found


def begun(journal: SqliteJournal) -> tuple[RunJournal, Driver]:
    """Return a record with the beginning of a flow run."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created()]))
    return record, driver


def test_it_is_all_that_is_written(journal: SqliteJournal) -> None:
    """The value is in the page of its event, and the head stays behind: nothing else changes."""
    record, driver = begun(journal)
    before = asked(journal, "SELECT * FROM meta")
    assert record.append(driver.batch(life("a", b"one"))) == 1 + EVENTS
    assert asked(journal, "SELECT * FROM meta") == before
    last = "SELECT number, count, value FROM pages ORDER BY number DESC LIMIT 1"
    assert asked(journal, last) == [(1 + EVENTS, EVENTS, b"one")]
    assert asked(journal, "SELECT count(*) FROM task_values") == [(0,)]


@pytest.mark.parametrize(
    ("events", "logs"),
    [
        ([*life("a", b"one"), *life("b", b"two")], []),
        ([*life("a", b"one"), task_created("b")], []),
        (life("a", b"one"), [log("said")]),
        ([event for n in range(100) for event in life(f"t{n}", None)], []),
    ],
    ids=["two values", "a value before the end", "log lines", "more than a page"],
)
def test_with_more_the_head_goes_along(
    journal: SqliteJournal, events: list[Any], logs: list[Any]
) -> None:
    """What needs several rows is a transaction of several statements, as ever."""
    record, driver = begun(journal)
    record.append(driver.batch(events, logs))
    assert asked(journal, "SELECT events FROM meta") == [(1 + len(events),)]
    brought = {e.task_run_id: e.value for e in events if isinstance(e, ev.AttemptSucceeded)}
    kept = {run_id: value for run_id, value in brought.items() if value is not None}
    assert record.values(brought) == kept


def test_readers_and_the_next_driver_see_it(journal: SqliteJournal) -> None:
    """Events, records, counts and values, while the head is behind; a driver that takes over catches up."""
    record, driver = begun(journal)
    stays = journal.read(RUN)
    told: list[ev.Event] = [flow_created()]
    for number in range(5):
        told += (events := life(f"t{number}", b"%d" % number))
        record.append(driver.batch(events, [log("in between")] if number == 2 else []))
        for reader in (stays, journal.read(RUN)):
            assert list(reader.events()) == list(enumerate(map(without_value, told), 1))
            assert list(reader.task_runs()) == list(driver.table.task_runs.values())
            assert reader.counts() == {(RUN, "prepare"): {"Completed": number + 1}}
            assert reader.value(f"t{number}") == b"%d" % number
            assert not reader.missing()
    following = journal.write(RUN, 2)
    assert asked(journal, "SELECT events FROM meta") == [(len(told),)]
    assert following.append(driver.batch(life("late", b"late"))) == len(told) + EVENTS
    names = [*(f"t{number}" for number in range(5)), "late"]
    assert list(following.values(names).values()) == [b"0", b"1", b"2", b"3", b"4", b"late"]


def test_a_driver_whose_epoch_is_over_writes_none(journal: SqliteJournal) -> None:
    """It is told that another one has taken over, and nothing of it is in the record."""
    record, driver = begun(journal)
    record.append(driver.batch(life("a")))
    following = journal.write(RUN, 2)
    with pytest.raises(RunTakenOver):
        record.append(driver.batch(life("b")))
    assert [run.id for run in following.task_runs()] == ["a"]


@pytest.mark.parametrize("number", [1 + EVENTS, 2 * EVENTS, 3 * EVENTS])
def test_events_of_somebody_else_are_noticed(journal: SqliteJournal, number: int) -> None:
    """Behind a page that it has not written a driver writes none: before, at or behind the next number."""
    record, driver = begun(journal)
    record.append(driver.batch(life("a")))
    asked(
        journal,
        f"INSERT OR REPLACE INTO pages SELECT number + {number}, count, events, mark, value, value_mark "
        "FROM pages WHERE number = 1",
    )
    for events, logs in ((life("b"), []), (life("b"), [log("said")])):
        with pytest.raises(JournalDamaged, match="somebody else has written to it"):
            record.append(driver.batch(events, logs))


def test_a_damaged_value_harms_nothing_else(journal: SqliteJournal) -> None:
    """The events beside it are read, and it is told whose it is."""
    record, driver = begun(journal)
    for name in ("a", "b"):
        record.append(driver.batch(life(name, b"value")))
    record.close()
    asked(journal, f"UPDATE pages SET value = x'00' WHERE number = {1 + EVENTS}")
    following = journal.write(RUN, 2)
    assert following.damaged_values() == ["a"]
    assert following.value("b") == b"value"
    assert len(list(following.events())) == 1 + 2 * EVENTS
    with pytest.raises(JournalDamaged, match="the value of 'a'"):
        following.value("a")
