"""The watermark beside a record: what was acknowledged and is gone is noticed, and nothing else is."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dflow.core import events as ev
from dflow.errors import JournalDamaged, RunTakenOver
from dflow.journal import SqliteJournal
from dflow.journal.holding import in_words
from dflow.journal.sqlite.rows import task_run_row
from dflow.journal.sqlite.run_journal import SqliteRunJournal
from dflow.ports import Batch, Missing
from tests.journal.processes import in_child
from tests.journal.world import (
    RUN,
    Driver,
    OpenAt,
    World,
    entry,
    flow_created,
    holder,
    life,
    log,
    task_created,
)

FRAME = 24 + 4096
"""The size of a frame in a write-ahead log, whose header has 32 bytes."""


@pytest.fixture
def journal(tmp_path: Path, sqlite_at: OpenAt) -> SqliteJournal:
    """Return a journal with a run that was claimed once and has no record yet."""
    journal = sqlite_at(tmp_path / "home")
    journal.catalog.create(entry())
    journal.catalog.claim(RUN, holder(), 1.0)
    return journal


def folder(journal: SqliteJournal) -> Path:
    """Return the folder of the run."""
    return journal.home / "runs" / RUN


def write_some(journal: SqliteJournal, epoch: int = 1) -> SqliteRunJournal:
    """Record a flow run and four task runs, with a log line for each; return the open record."""
    record, driver = journal.write(RUN, epoch), Driver()
    record.append(driver.batch([flow_created()]))
    for number in range(4):
        record.append(driver.batch(life(f"t{number}"), [log("line", f"t{number}")]))
    return record


def as_killed(journal: SqliteJournal, home: Path, sqlite_at: OpenAt) -> SqliteJournal:
    """Return a copy of the journal as it is now on the disk, with a driver that was killed."""
    shutil.copytree(journal.home, home)
    return sqlite_at(home)


def log_of(journal: SqliteJournal) -> Path:
    """Return the write-ahead log of the run."""
    return folder(journal) / "journal.sqlite-wal"


def test_a_lost_log_is_noticed(journal: SqliteJournal, tmp_path: Path, sqlite_at: OpenAt) -> None:
    """Without its write-ahead log a record lacks what was in it; who goes on writes from there."""
    record = write_some(journal)
    assert record.missing() == journal.read(RUN).missing() == Missing()
    copy = as_killed(journal, tmp_path / "copy", sqlite_at)
    log_of(copy).unlink()
    reader = copy.read(RUN)
    assert list(reader.events()) == []
    assert reader.missing() == Missing(events=17, logs=4)
    again = copy.write(RUN, 2)
    assert again.missing() == Missing(events=17, logs=4)
    again.append(Driver().batch([flow_created()]))
    assert again.missing() == Missing(events=17, logs=4)
    assert copy.read(RUN).missing() == Missing()
    assert copy.write(RUN, 3).missing() == Missing()


def test_each_cut_of_the_log_is_noticed(
    journal: SqliteJournal, tmp_path: Path, sqlite_at: OpenAt
) -> None:
    """Wherever the log ends too early, what is read and what is told to be missing make the whole."""
    write_some(journal)
    size = log_of(journal).stat().st_size
    for end in range(0, size, FRAME // 2):
        copy = as_killed(journal, tmp_path / "copy", sqlite_at)
        os.truncate(log_of(copy), end)
        reader = copy.read(RUN)
        missing = reader.missing()
        assert len(list(reader.events())) + missing.events == 17
        assert len(list(reader.logs())) + missing.logs == 4
        assert missing
        copy.close()
        shutil.rmtree(copy.home)


def test_a_log_that_is_half_in_the_record_is_noticed(
    journal: SqliteJournal, tmp_path: Path, sqlite_at: OpenAt
) -> None:
    """A log that was lost while it was moved into the record may leave parts: nobody goes on from those."""
    record, driver = write_some(journal), Driver()
    for _, event in record.events():
        driver.table.apply(event)  # type: ignore[arg-type]  # all kinds are known
    record.append(driver.batch([task_created("late")]))
    record.close()
    record = journal.write(RUN, 1)
    record.append(driver.batch([ev.CancelRequested(at=9.0, task_run_id="late")]))
    row = task_run_row(5, driver.table.task_runs["late"], event=18)
    copy = as_killed(journal, tmp_path / "copy", sqlite_at)
    log_of(copy).unlink()
    with sqlite3.connect(folder(copy) / "journal.sqlite") as db:
        db.execute("UPDATE task_runs SET record = ?, mark = ? WHERE id = 'late'", row[6:8])
    db.close()
    with pytest.raises(JournalDamaged, match="its records are not what its events tell"):
        copy.write(RUN, 2)
    assert copy.read(RUN).missing() == Missing(events=1)


def test_lost_log_lines_alone_are_noticed(
    journal: SqliteJournal, tmp_path: Path, sqlite_at: OpenAt
) -> None:
    """A transaction that held nothing but log lines is missed, too."""
    record = write_some(journal)
    before = log_of(journal).stat().st_size
    record.append(Batch(logs=[log("a last word")]))
    copy = as_killed(journal, tmp_path / "copy", sqlite_at)
    os.truncate(log_of(copy), before)
    assert copy.read(RUN).missing() == Missing(logs=1)


def test_a_record_put_back_from_a_copy_is_noticed(journal: SqliteJournal) -> None:
    """An older file in the place of the record is not taken for all that there was."""
    write_some(journal).close()
    path = folder(journal) / "journal.sqlite"
    older = path.read_bytes()
    record = journal.write(RUN, 2)
    record.append(Batch([flow_created("another")]))
    record.close()
    path.write_bytes(older)
    assert journal.read(RUN).missing() == Missing(events=1)


def test_a_record_that_is_gone_is_noticed(journal: SqliteJournal) -> None:
    """Where a watermark has no record any more, reading fails, and a new record says what is missing."""
    write_some(journal).close()
    (folder(journal) / "journal.sqlite").unlink()
    with pytest.raises(JournalDamaged, match="it is gone, and 17 events"):
        journal.read(RUN)
    assert journal.write(RUN, 2).missing() == Missing(events=17, logs=4)


def test_a_kill_between_commit_and_watermark_is_normal(
    journal: SqliteJournal, tmp_path: Path, sqlite_at: OpenAt
) -> None:
    """A watermark below the end of the record says that nothing is missing."""
    record = write_some(journal)
    lower = (folder(journal) / "watermark").read_bytes()
    record.append(Batch([flow_created("another")], logs=[log("more")]))
    copy = as_killed(journal, tmp_path / "copy", sqlite_at)
    (folder(copy) / "watermark").write_bytes(lower)
    assert copy.read(RUN).missing() == Missing()
    assert copy.write(RUN, 2).missing() == Missing()
    assert (folder(copy) / "watermark").read_bytes() != lower


def altered(content: bytes) -> dict[str, bytes]:
    """Return what a watermark may have become, by name."""
    return {
        "empty": b"",
        "cut": content[:-1],
        "longer": content + b"x",
        "zeros": bytes(len(content)),
        "no text": b"\xff" * len(content),
        "other digits": content.replace(b"event 0", b"event 1"),
        "odd digits": content.replace(b"0", "\u0660".encode(), 1),
        "of a later version": content.replace(b"watermark 1", b"watermark 2"),
    }


@pytest.mark.parametrize("kind", altered(b""))
def test_a_damaged_watermark_is_harmless(journal: SqliteJournal, kind: str) -> None:
    """A watermark that does not fit says nothing, and the next writer sets it right."""
    write_some(journal).close()
    path = folder(journal) / "watermark"
    whole = path.read_bytes()
    path.write_bytes(altered(whole)[kind])
    assert journal.read(RUN).missing() == Missing()
    journal.write(RUN, 1).close()
    assert path.read_bytes() == whole


def test_the_watermark_of_another_run_says_nothing(journal: SqliteJournal) -> None:
    """A watermark that was copied from another run is not believed."""
    write_some(journal).close()
    record = journal.write("run-2", 7)
    record.append(Batch([flow_created("run-2")] * 50))
    record.close()
    shutil.copy(folder(journal).with_name("run-2") / "watermark", folder(journal))
    assert journal.read(RUN).missing() == Missing()
    journal.write(RUN, 2)


def as_folder(path: Path) -> None:
    """Put a folder there."""
    path.mkdir()


def as_pipe(path: Path) -> None:
    """Put a pipe there, at which who opens it may wait."""
    os.mkfifo(path)


def as_link(path: Path) -> None:
    """Put a link there, that leads to a file outside."""
    outside = path.parents[2] / "outside"
    outside.write_text("precious")
    path.symlink_to(outside)


@pytest.mark.parametrize("put", [as_folder, as_pipe, as_link])
def test_a_watermark_that_cannot_be_written_is_given_up(
    journal: SqliteJournal, put: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on with one warning, and follows no link."""
    folder(journal).mkdir(parents=True)
    put(folder(journal) / "watermark")
    with caplog.at_level(logging.WARNING):
        write_some(journal)
    assert [record.message for record in caplog.records if "watermark" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1
    assert len(list(journal.read(RUN).events())) == 17
    assert journal.read(RUN).missing() == Missing()
    outside = journal.home / "outside"
    assert not outside.exists() or outside.read_text() == "precious"


def test_an_epoch_that_was_lost_does_not_begin_again(
    journal: SqliteJournal, tmp_path: Path, sqlite_at: OpenAt, world: World
) -> None:
    """The record may forget that an epoch has begun; nobody gets the same once more."""
    write_some(journal).close()
    world.dead.add(1)
    assert journal.catalog.claim(RUN, holder(), 2.0) == 2
    assert journal.catalog.claim(RUN, holder(), 2.0) == 3
    journal.write(RUN, 3)
    copy = as_killed(journal, tmp_path / "copy", sqlite_at)
    log_of(copy).unlink()
    (copy.home / "catalog.sqlite").unlink()
    with sqlite3.connect(folder(copy) / "journal.sqlite") as db:
        assert db.execute("SELECT epoch FROM meta").fetchone() == (1,)
    db.close()
    with pytest.raises(RunTakenOver):
        copy.write(RUN, 2)
    assert copy.catalog.find(RUN).epoch == 3
    assert copy.catalog.claim(RUN, holder(), 3.0) == 4
    copy.write(RUN, 4)


def test_who_reads_while_it_is_written_misses_nothing(
    journal: SqliteJournal, sqlite_at: OpenAt
) -> None:
    """A reader never takes for missing what is being written at that moment."""
    record, other = write_some(journal), sqlite_at(journal.home)
    done = threading.Event()
    found: list[Missing] = []

    def look() -> None:
        reader = other.read(RUN)
        while not done.is_set():
            found.append(reader.missing())
        reader.close()

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(300):
        record.append(Batch([flow_created(f"run-{number}")], logs=[log("line")]))
    done.set()
    looking.join()
    assert len(found) > 10
    assert set(found) == {Missing()}


def test_a_forked_process_leaves_the_watermark_alone(journal: SqliteJournal) -> None:
    """What a child closes stays open in its parent."""
    record = write_some(journal)

    def close() -> str:
        record.close()
        journal.close()
        return "closed"

    assert in_child(close) == "closed"
    before = (folder(journal) / "watermark").read_bytes()
    record.append(Batch([flow_created("another")]))
    assert (folder(journal) / "watermark").read_bytes() != before


@pytest.mark.parametrize(("durability", "syncs"), [("normal", 0), ("full", 1)])
def test_the_watermark_is_synced_as_the_record_is(
    tmp_path: Path,
    sqlite_at: OpenAt,
    monkeypatch: pytest.MonkeyPatch,
    durability: str,
    syncs: int,
) -> None:
    """With full durability each level is synced to the disk, otherwise none is."""
    journal = sqlite_at(tmp_path / "home", durability=durability)
    record = journal.write(RUN, 1)
    synced: list[int] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(handle)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    record.append(Batch([flow_created()]))
    assert len(synced) == syncs


def test_what_is_missing_is_said_in_words() -> None:
    """It reads as a part of a sentence."""
    assert in_words(Missing(events=12, logs=1)) == "its last 12 events and its last log line"
    assert in_words(Missing(events=1)) == "its last event"
    assert in_words(Missing(logs=3)) == "its last 3 log lines"
    assert not Missing()
