"""Files that were cut or altered: an error, or what was written; never something else."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dflow.core import events as ev
from dflow.core.replay import replay
from dflow.errors import JournalDamaged, JournalError, RunTakenOver
from dflow.journal import SqliteJournal
from tests.journal.world import RUN, Driver, OpenAt, entry, flow_created, life, log, mapped

SEED = 20240229


def path_of(journal: SqliteJournal) -> Path:
    """Return the file of the run."""
    return journal.home / "runs" / RUN / "journal.sqlite"


def told(journal: SqliteJournal) -> list[Any]:
    """Return all that the record of the run says of its state."""
    reader = journal.read(RUN)
    try:
        runs = list(reader.task_runs())
        return [
            list(reader.events()),
            runs,
            list(reader.flow_runs()),
            reader.counts(),
            [reader.task_run(run.id) for run in runs],
            [reader.value(run.id) for run in runs],
        ]
    finally:
        reader.close()


@pytest.fixture
def journal(tmp_path: Path, sqlite_at: OpenAt) -> SqliteJournal:
    """Return a journal with one run."""
    journal = sqlite_at(tmp_path / "home")
    journal.catalog.create(entry())
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created(), mapped("x", "y")], [log("hello", "x")]))
    for number in range(40):
        record.append(driver.batch(life(f"t{number}", b"v" * number * 40)))
    record.append(driver.batch([ev.CancelRequested(at=9.0, task_run_id="x")]))
    record.close()
    return journal


def outcomes(
    journal: SqliteJournal, whole: bytes, damage: Callable[[bytearray], None], times: int
) -> tuple[int, int]:
    """Damage the file in many ways; return how often that was detected, and how often harmless."""
    expected, path, detected = told(journal), path_of(journal), 0
    for _ in range(times):
        content = bytearray(whole)
        damage(content)
        path.write_bytes(content)
        try:
            found = told(journal)
        except JournalError:
            detected += 1
        else:
            assert found[:-1] == expected[:-1], "the damage went unnoticed"
            # A value may be missing, which whoever asks for it notices; it is never another one.
            assert all(a in (b, None) for a, b in zip(found[-1], expected[-1], strict=True))
        path.write_bytes(whole)
    return detected, times - detected


def test_flipped_bits_are_noticed(journal: SqliteJournal) -> None:
    """A flipped bit is detected, or changes nothing that is told."""
    luck = random.Random(SEED)

    def flip(content: bytearray) -> None:
        content[luck.randrange(len(content))] ^= 1 << luck.randrange(8)

    detected, harmless = outcomes(journal, path_of(journal).read_bytes(), flip, 600)
    print(f"seed {SEED}: {detected} of 600 flips detected, {harmless} harmless")
    assert detected > 300


def test_a_cut_file_is_noticed(journal: SqliteJournal) -> None:
    """A file that ends too early is never read as a shorter history."""
    luck = random.Random(SEED)

    def cut(content: bytearray) -> None:
        del content[luck.randrange(len(content)) :]

    detected, harmless = outcomes(journal, path_of(journal).read_bytes(), cut, 100)
    assert (detected, harmless) == (100, 0)


def test_a_cut_log_leaves_an_earlier_state(
    journal: SqliteJournal, tmp_path: Path, sqlite_at: OpenAt
) -> None:
    """A write-ahead log that ends too early, as after a power cut, leaves a state that was committed."""
    record, driver = journal.write(RUN, 2), Driver()
    for _, event in record.events():
        assert event is not None
        driver.table.apply(event)
    for number in range(20):
        record.append(driver.batch(life(f"late{number}")))
    path = path_of(journal)
    wal = path.with_name(path.name + "-wal").read_bytes()
    other = sqlite_at(tmp_path / "copy")
    copy = path_of(other)
    luck, lengths = random.Random(SEED), set()
    for _ in range(40):
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir(parents=True)
        shutil.copy(path, copy)
        copy.with_name(copy.name + "-wal").write_bytes(wal[: luck.randrange(len(wal))])
        events, runs, *_ = told(other)
        lengths.add(len(events))
        assert len(events) % 4 == 163 % 4
        assert runs == list(replay(event for _, event in events).task_runs.values())
    assert len(lengths) > 5
    record.close()


def test_a_damaged_record_is_not_written_to(journal: SqliteJournal) -> None:
    """Who takes a run up looks through its file first, and is told which one is damaged."""
    path = path_of(journal)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match=str(path)):
        journal.write(RUN, 2)
    assert path.read_bytes() == bytes(content)


def test_a_damaged_index_is_found(journal: SqliteJournal) -> None:
    """Looking through the file finds what reading the tables does not touch."""
    path = path_of(journal)
    db = sqlite3.connect(path)
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_flow_runs_1'"
    (page,), (size,) = db.execute(query).fetchone(), db.execute("PRAGMA page_size").fetchone()
    db.close()
    content = bytearray(path.read_bytes())
    assert content[page * size - 5 : page * size] == RUN.encode()
    content[page * size - 1] += 1
    reader = journal.read(RUN)
    assert reader.examine() == []
    path.write_bytes(content)
    assert "index" in "".join(journal.read(RUN).examine())
    assert len(list(reader.flow_runs())) == 1


def test_damage_harms_one_run(journal: SqliteJournal) -> None:
    """Other runs of the home are written and read as before."""
    path_of(journal).write_bytes(b"garbage" * 1000)
    record = journal.write("run-2", 1)
    record.append(Driver().batch([flow_created("run-2")]))
    assert len(list(journal.read("run-2").events())) == 1
    assert [run.id for run in journal.catalog.list()] == [RUN]
    journal.close()


def test_a_record_in_the_wrong_place_is_noticed(journal: SqliteJournal) -> None:
    """The file of a run does not do for another one, nor an early epoch for a late one."""
    other = path_of(journal).parents[1] / "run-2"
    other.mkdir()
    shutil.copy(path_of(journal), other)
    with pytest.raises(JournalDamaged, match=RUN):
        journal.write("run-2", 2)
    with pytest.raises(RunTakenOver):
        journal.write(RUN, 0)


def altered(journal: SqliteJournal, statement: str) -> None:
    """Alter the file of the run."""
    with sqlite3.connect(path_of(journal)) as db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize("number", [4, 5])
def test_a_value_of_another_one_is_damage(journal: SqliteJournal, number: int) -> None:
    """Where two task runs name one value it is found whose it is not, whichever comes first."""
    other = 9 - number
    altered(
        journal,
        f"UPDATE task_runs SET valued = (SELECT valued FROM task_runs WHERE number = {other}) "
        f"WHERE number = {number}",
    )
    record = journal.write(RUN, 2)
    wrong, right = (list(record.task_runs())[n - 1].id for n in (number, other))
    assert record.damaged_values() == [wrong]
    assert list(record.values([right])) == [right]
    for asked in ([wrong], [right, wrong], [wrong, right]):
        with pytest.raises(JournalDamaged, match=wrong):
            record.values(asked)


def test_values_of_records_that_are_gone_are_damage(journal: SqliteJournal) -> None:
    """Who knows the number of a task run notices that its record is not there any more, or another's."""
    record = journal.write(RUN, 2)
    asked = [run.id for run in record.task_runs()][4:6]
    assert len(record.values(asked)) == 2
    altered(journal, "UPDATE task_runs SET id = 'other' WHERE number = 5")
    with pytest.raises(JournalDamaged):
        record.values(asked)
    altered(journal, "DELETE FROM task_runs WHERE number = 5")
    with pytest.raises(JournalDamaged):
        record.values(asked)


def test_a_value_without_a_name_is_damage(journal: SqliteJournal) -> None:
    """Also where what should be a text is none."""
    record = journal.write(RUN, 2)
    altered(journal, "INSERT INTO results VALUES (CAST('flow' AS BLOB), 'value', 1)")
    assert len(record.damaged_values()) == 1


@pytest.mark.parametrize("count", ["'many'", "x'01'"])
def test_a_page_without_a_count_is_damage(journal: SqliteJournal, count: str) -> None:
    """Whoever reads the events is told of the journal's own error, not of Python's."""
    reader = journal.read(RUN)
    altered(journal, f"UPDATE pages SET count = {count}")
    with pytest.raises(JournalDamaged, match="the first page of events"):
        list(reader.events())
