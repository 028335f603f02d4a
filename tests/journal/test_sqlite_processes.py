"""What happens to processes: killed, forked, racing, out of disk. The record holds what was shown."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dflow.core.replay import replay
from dflow.engine import system
from dflow.errors import JournalUnavailable
from dflow.journal import SqliteJournal
from dflow.journal.sqlite.run_journal import SqliteRunJournal
from dflow.ports import Batch
from tests.journal.processes import program
from tests.journal.world import RUN, Driver, OpenAt, entry, flow_created, life, log

HEAD = """
import sys
from pathlib import Path
from dflow.errors import JournalUnavailable, RunHeld
from dflow.journal import SqliteJournal
from tests.journal.world import RUN, Driver, World, entry, flow_created, holder, life
kind = sys.argv[2] if len(sys.argv) > 2 else "ext4"
journal = SqliteJournal(Path(sys.argv[1]), is_alive=World(), file_system_of=lambda path: kind)
"""

WRITE = (
    HEAD
    + """
record, driver = journal.write(RUN, 1), Driver()
record.append(driver.batch([flow_created()]))
for number in range(1_000_000):
    print(record.append(driver.batch(life(f"t{number}", b"x" * 2000))), flush=True)
"""
)


@pytest.fixture
def journal(tmp_path: Path, sqlite_at: OpenAt) -> SqliteJournal:
    """Return an empty journal."""
    return sqlite_at(tmp_path / "home")


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
@pytest.mark.parametrize("shown", [1, 150])
def test_a_killed_driver_loses_nothing_that_it_showed(
    journal: SqliteJournal, kind: str, shown: int
) -> None:
    """After kill -9 all that was committed is read at once, and the run can be taken up."""
    with program(WRITE, journal.home, kind) as driver:
        assert driver.stdout is not None
        numbers = [int(driver.stdout.readline()) for _ in range(shown)]
        driver.send_signal(signal.SIGKILL)
        numbers += [int(line) for line in driver.stdout]
    reader = journal.read(RUN)
    events = [event for _, event in reader.events() if event is not None]
    assert len(events) >= numbers[-1]
    assert list(reader.task_runs()) == list(replay(events).task_runs.values())
    again = journal.write(RUN, 2)
    assert again.append(Batch()) == len(events)
    journal.close()


CUT_SHORT = (
    HEAD
    + """
import os, signal
record, driver = journal.write(RUN, 1), Driver()
record.append(driver.batch([flow_created(), *life("a")]))
record._connection.pragma("cache_size = 5")
with record._connection.writing() as db:
    db.executemany("UPDATE events SET at = ?", [(float(n),) for n in range(200)])
    rows = [(n, b"x" * 3000) for n in range(100, 400)]
    db.executemany("INSERT INTO events VALUES (?, 0, 'k', 1, NULL, ?, 0)", rows)
    os.kill(os.getpid(), signal.SIGKILL)
"""
)


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_a_transaction_cut_short_is_undone(journal: SqliteJournal, kind: str) -> None:
    """What a killed driver had half written is never seen, though a reader is the first to come."""
    with program(CUT_SHORT, journal.home, kind) as driver:
        assert driver.wait() == -signal.SIGKILL
    folder = journal.home / "runs" / RUN
    assert (folder / f"journal.sqlite-{'wal' if kind == 'ext4' else 'journal'}").exists()
    early = journal.read(RUN)
    assert len(list(early.events())) == 5
    assert early.value("a") == b"value"
    journal.close()


CLAIM = (
    HEAD
    + """
pid = int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
try:
    print("epoch", journal.catalog.claim(RUN, holder(pid), 1.0), pid)
except RunHeld as held:
    print("held by", held.pid)
"""
)


def test_of_many_processes_one_gets_the_run(journal: SqliteJournal) -> None:
    """However many processes claim a run at once, one gets it and the others hear which."""
    journal.catalog.create(entry())
    journal.close()
    running = [program(CLAIM, journal.home, "ext4", pid) for pid in range(1, 7)]
    processes = [context.__enter__() for context in running]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = sorted(process.stdout.read().strip() for process in processes if process.stdout)
    finally:
        for context in running:
            context.__exit__(None, None, None)
    (winner,) = [line for line in said if line.startswith("epoch 1 ")]
    assert said == sorted([winner] + [f"held by {winner.split()[-1]}"] * 5)


HOLD = """
import sys
from pathlib import Path
from dflow.engine import system
from dflow.journal import SqliteJournal
leases = SqliteJournal(Path(sys.argv[1]), is_alive=system.is_alive).leases
print(sorted(leases.acquire_each(["k1", "k2"], "other", 1e6, 0.0, holder=system.holder())), flush=True)
sys.stdin.readline()
"""


def test_the_shares_of_a_killed_process_are_free_at_once(tmp_path: Path) -> None:
    """While a process lives, its shares are its own; killed, it has none, long before they expire."""
    journal = SqliteJournal(tmp_path / "home", is_alive=system.is_alive)
    with program(HOLD, journal.home) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "['k1', 'k2']\n"
        assert not journal.leases.acquire("k1", "me", 10.0, 1.0, holder=system.holder())
        other.kill()
        other.wait()
        assert journal.leases.acquire("k1", "me", 10.0, 1.0, holder=system.holder())
    assert list(journal.leases.holders("k2", 1.0)) == []
    journal.close()


FORK = (
    HEAD
    + """
import gc, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
journal.catalog.create(entry())
record, driver = journal.write(RUN, 1), Driver()
record.append(driver.batch([flow_created()]))
reader = journal.read(RUN)
child = os.fork()
if child == 0:
    for use in (
        lambda: record.append(driver.batch(life("child"))),
        lambda: list(reader.events()),
        lambda: journal.catalog.list(),
        lambda: journal.leases.acquire("gpu", "a", 1.0, 0.0),
        lambda: journal.write(RUN, 2),
        lambda: journal.read(RUN),
    ):
        try:
            use()
            print("done", flush=True)
        except JournalUnavailable as error:
            print("refused" if "forked" in str(error) else error, flush=True)
    record.close(), reader.close(), journal.close()
    del record, reader, journal
    gc.collect()
    sys.exit(0)
os.waitpid(child, 0)
print(record.append(driver.batch(life("parent"))), flush=True)
sys.stdin.readline()
"""
)


def test_a_forked_process_has_no_part_in_it(journal: SqliteJournal) -> None:
    """In a child every call is refused; its end takes neither locks nor files from its parent."""
    with program(FORK, journal.home) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(7)] == ["refused\n"] * 6 + ["5\n"]
        assert (journal.home / "runs" / RUN / "journal.sqlite-wal").exists()
        assert [run.id for run in journal.read(RUN).task_runs()] == ["parent"]
        process.communicate("\n")
    assert [run.id for run in journal.read(RUN).task_runs()] == ["parent"]
    journal.close()


LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    db.execute("BEGIN IMMEDIATE")
    print("locked")
except sqlite3.OperationalError as error:
    print(error.sqlite_errorname)
"""


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_a_reader_takes_no_lock_away(tmp_path: Path, sqlite_at: OpenAt, kind: str) -> None:
    """A reader that comes and goes in the driver's process leaves the driver's lock alone."""
    journal = sqlite_at(tmp_path / "home", file_system_of=lambda path: kind)
    record = journal.write(RUN, 1)
    with record._connection.writing():
        journal.read(RUN).close()
        with program(LOCK, journal.home / "runs" / RUN / "journal.sqlite") as other:
            assert other.communicate()[0] == "SQLITE_BUSY\n"
    journal.close()


def write_until_full(record: SqliteRunJournal, driver: Driver) -> tuple[Batch, int, int]:
    """Return the batch that did not fit, its number, and the number of the last event written."""
    written = record.append(driver.batch([flow_created()]))
    for number in range(5000):
        batch = driver.batch(life(f"t{number}", bytes(8000)), [log("line")])
        try:
            written = record.append(batch)
        except JournalUnavailable:
            with pytest.raises(JournalUnavailable, match=r"full.*DFLOW_HOME"):
                record.append(batch)
            return batch, number, written
    pytest.fail("there was room for everything")


def fail_then_go_on(
    journal: SqliteJournal, record: SqliteRunJournal, free: Callable[[], object]
) -> None:
    """Write until there is no room, make some, and write what was refused."""
    batch, number, written = write_until_full(record, Driver())
    reader = journal.read(RUN)
    assert [n for n, _ in reader.events()] == list(range(1, written + 1))
    assert reader.task_run(f"t{number}") is None
    free()
    assert record.append(batch) == written + 4
    assert [n for n, _ in reader.events()] == list(range(1, written + 5))
    assert [run.id for run in reader.task_runs()] == [f"t{n}" for n in range(number + 1)]
    assert reader.value(f"t{number}") == bytes(8000)
    journal.close()


def test_a_full_file_refuses_and_goes_on(journal: SqliteJournal) -> None:
    """What does not fit is refused whole; once there is room the same batch is written."""
    record = journal.write(RUN, 1)
    record._connection.pragma("max_page_count = 200")
    fail_then_go_on(journal, record, lambda: record._connection.pragma("max_page_count = 99999"))


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_a_full_disk_refuses_and_goes_on(small_disk: Path, sqlite_at: OpenAt, kind: str) -> None:
    """On a disk that is full nothing is half written, and it goes on when there is room again."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    journal = sqlite_at(small_disk / "home", file_system_of=lambda path: kind)
    fail_then_go_on(journal, journal.write(RUN, 1), ballast.unlink)


def test_a_locked_file_is_told(journal: SqliteJournal) -> None:
    """A file that another process keeps locked is an error that says so, and nothing is lost."""
    record, driver = journal.write(RUN, 1), Driver()
    record._connection.pragma("busy_timeout = 10")
    other = sqlite3.connect(journal.home / "runs" / RUN / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    batch = driver.batch([flow_created()])
    with pytest.raises(JournalUnavailable, match="locked"):
        record.append(batch)
    other.execute("ROLLBACK")
    other.close()
    assert record.append(batch) == 1
    journal.close()


def test_closing_with_readers_about_does_not_wait(
    journal: SqliteJournal, sqlite_at: OpenAt
) -> None:
    """A driver that ends does not wait for those who look, and they go on reading."""
    record = journal.write(RUN, 1)
    record.append(Driver().batch([flow_created(), *life("a")]))
    other = sqlite_at(journal.home)
    reader = other.read(RUN)
    with reader._connection.reading() as db:
        db.execute("SELECT count(*) FROM events").fetchone()
        record.close()
    assert len(list(reader.events())) == 5
    assert len(list(other.read(RUN).events())) == 5
    assert os.path.exists(journal.home / "runs" / RUN / "journal.sqlite")
    other.close()
