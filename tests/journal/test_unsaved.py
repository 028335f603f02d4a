"""Records that are written later than their events: nobody who reads can tell."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dflow.core import events as ev
from dflow.core.replay import Table
from dflow.journal import SqliteJournal
from dflow.journal.sqlite import schema, unsaved
from dflow.journal.sqlite.rows import Head
from dflow.ports import RunReader
from tests.journal.histories import histories
from tests.journal.world import (
    RUN,
    Driver,
    OpenAt,
    entry,
    flow_created,
    life,
    log,
    mapped,
    task_created,
)

OUTCOMES = ev.AttemptSucceeded | ev.CacheHit

examples = count()


@pytest.fixture
def journal(tmp_path: Path, sqlite_at: OpenAt) -> SqliteJournal:
    """Return a journal."""
    journal = sqlite_at(tmp_path / "home")
    journal.catalog.create(entry())
    return journal


def check(reader: RunReader, table: Table, values: dict[str, bytes | None]) -> None:
    """Compare all that a reader tells of task runs with what it should be."""
    runs = list(table.task_runs.values())
    assert list(reader.task_runs()) == runs
    for limit in (1, 2, 3):
        paged = [run for n in range(0, len(runs), limit) for run in reader.task_runs(n, limit)]
        assert paged == runs
    assert [reader.task_run(run.id) for run in runs] == runs
    assert reader.task_run("nobody") is None
    counted = Counter((run.flow_run_id, run.state_name) for run in runs)
    told = Counter[tuple[str, str]]()
    for (flow_run_id, _), states in reader.counts().items():
        told.update({(flow_run_id, name): number for name, number in states.items()})
    assert told == counted
    assert {run.id: reader.value(run.id) for run in runs} == values


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=histories(),
    behind=st.sampled_from([0, 1, 3, 10, 4000]),
    at_once=st.sampled_from([1, 2, 500]),
    data=st.data(),
)
def test_readers_see_what_the_events_tell(
    journal: SqliteJournal,
    monkeypatch: pytest.MonkeyPatch,
    batches: list[list[ev.Event]],
    behind: int,
    at_once: int,
    data: st.DataObject,
) -> None:
    """However far records are behind: one who stays, one who comes later, and the next driver."""
    monkeypatch.setattr(unsaved, "BEHIND", behind)
    monkeypatch.setattr(unsaved, "AT_ONCE", at_once)
    run_id = f"random-{next(examples)}"
    record, driver = journal.write(run_id, 1), Driver()
    values: dict[str, bytes | None] = {}
    applies = Table().apply  # a driver writes nothing that is refused
    stays = journal.read(run_id)
    for events in batches:
        batch = driver.batch([event for event in events if applies(event)])
        record.append(batch)
        if data.draw(st.booleans()):
            record.catch_up()
        if known := list(driver.table.task_runs):
            some = data.draw(st.lists(st.sampled_from(known), unique=True))
            gone = record.let_go(some)
            assert gone == [run_id for run_id in some if run_id not in record._unsaved]
        values |= dict.fromkeys(driver.table.task_runs.keys() - values.keys())
        values |= {e.task_run_id: e.value for e in batch.events if isinstance(e, OUTCOMES)}
        assert {run: record.value(run) for run in driver.table.task_runs} == values
        check(stays, driver.table, values)
        later = journal.read(run_id)
        check(later, driver.table, values)
        later.close()
    following = journal.write(run_id, 2)
    check(journal.read(run_id), driver.table, values)
    check(following, driver.table, values)
    following.close()
    check(journal.read(run_id), driver.table, values)


def rows(journal: SqliteJournal) -> int:
    """Return how many records of task runs the file has."""
    with sqlite3.connect(journal.home / "runs" / RUN / "journal.sqlite") as db:
        (number,) = db.execute("SELECT count(*) FROM task_runs").fetchone()
    db.close()
    return int(number)


def test_records_follow_their_events(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are held back up to a bound, then the oldest are saved, and all of them at the end."""
    monkeypatch.setattr(unsaved, "BEHIND", 50)
    monkeypatch.setattr(unsaved, "AT_ONCE", 5)
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created(), mapped("x", "y", "z")]))
    for number in range(12):
        record.append(driver.batch(life(f"t{number}")))
        assert rows(journal) == 0
    for number in range(12, 100):
        record.append(driver.batch(life(f"t{number}")))
    assert 100 - 50 / 4 - 5 < rows(journal) < 103
    record.close()
    assert rows(journal) == 103
    assert list(journal.read(RUN).task_runs()) == list(driver.table.task_runs.values())


def test_who_stays_counts_as_who_comes_later(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a part is saved of what fell behind together, and had been saved before."""
    monkeypatch.setattr(unsaved, "BEHIND", 20)
    monkeypatch.setattr(unsaved, "AT_ONCE", 5)
    record, driver = journal.write(RUN, 1), Driver()
    runs = [f"t{number}" for number in range(30)]
    sent = [ev.UpstreamsMet(at=3.0, task_run_id=run) for run in runs]
    record.append(driver.batch([flow_created(), *map(task_created, runs), *sent]))
    list(record.task_runs())  # saves all
    starts = [ev.AttemptStarted(at=4.0, task_run_id=r, dispatch=1, worker="w") for r in runs]
    record.append(driver.batch(starts))
    stays = journal.read(RUN)
    for number in range(40):
        assert stays.counts() == {(RUN, "prepare"): {"Running": 30}}
        name = ev.TaskRunNamed(at=5.0, task_run_id=runs[-1], name=f"name {number}")
        record.append(driver.batch([name]))
        later = journal.read(RUN)
        assert stays.counts() == later.counts()
        later.close()


def test_a_look_that_fails_when_a_file_was_migrated(journal: SqliteJournal) -> None:
    """A reader that was there before reads on, though its first look after that is interrupted."""
    path = journal.home / "runs" / RUN / "journal.sqlite"
    path.parent.mkdir(parents=True)
    older = replace(schema.RUN, scripts=schema.RUN.scripts[:2])
    mark = Head(RUN, 1, recorded=None).mark

    def fill(db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO meta (run_id, epoch, events, task_runs, flow_runs, mark, logs) "
            "VALUES (?, 1, 0, 0, 0, ?, 0)",
            (RUN, mark),
        )

    older.make(path, fill, synchronous="OFF")
    stays = journal.read(RUN)
    assert list(stays.events()) == []
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created(), *life("a")]))

    def interrupted(_: sqlite3.Connection) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stays.look(interrupted)
    assert len(list(stays.events())) == 5
    assert list(stays.task_runs()) == list(driver.table.task_runs.values())


def test_several_threads_use_a_record_that_is_written(journal: SqliteJournal) -> None:
    """Who reads by it saves what is behind; nothing that is appended meanwhile is lost."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created()]))
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            record.damaged_values()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(150):
            record.append(driver.batch(life(f"t{number}")))
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert list(record.task_runs()) == list(driver.table.task_runs.values())
    assert list(journal.read(RUN).task_runs()) == list(driver.table.task_runs.values())


def test_each_call_sees_one_state(journal: SqliteJournal) -> None:
    """What is read on while the driver writes, and the reader looks again, stays as it was at the call."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created(), task_created("a"), task_created("b")]))
    expected = list(driver.table.task_runs.values())
    stays = journal.read(RUN)
    found = stays.task_runs()
    assert next(found) == expected[0]
    record.append(driver.batch([ev.UpstreamsMet(at=3.0, task_run_id="b"), task_created("c")]))
    assert stays.counts() == {(RUN, "prepare"): {"Pending": 3}}
    assert list(found) == expected[1:]


def test_log_lines_save_nothing_that_can_wait(journal: SqliteJournal) -> None:
    """A transaction with nothing but log lines does not have to save all records that are behind."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created(), *life("a")]))
    record.append(driver.batch([], [log("hello")]))
    assert rows(journal) == 0
    while record.catch_up():
        pass
    assert rows(journal) == 1
