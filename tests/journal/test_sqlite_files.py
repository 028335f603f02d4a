"""The files of `SqliteJournal`: where they are, whose they are, and which ones are refused."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from dflow.errors import (
    JournalDamaged,
    JournalError,
    JournalTooNew,
    JournalUnavailable,
    NotAJournal,
    RunNotFound,
)
from dflow.journal import SqliteJournal
from dflow.journal.sqlite.connection import Connection
from dflow.journal.sqlite.queries import migrations, queries, statements
from dflow.journal.sqlite.schema import CATALOG, LEASES, RUN, Schema
from dflow.ports import Batch
from tests.journal.processes import in_child
from tests.journal.world import RUN as RUN_ID
from tests.journal.world import Driver, OpenAt, World, entry, flow_created, holder, life, log


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the folder of a journal, not made yet."""
    return tmp_path / "a" / "home"


@pytest.fixture
def journal(home: Path, sqlite_at: OpenAt) -> SqliteJournal:
    """Return a journal in that folder."""
    return sqlite_at(home)


def fill(journal: SqliteJournal) -> Path:
    """Record a short run; return its file."""
    journal.catalog.create(entry())
    epoch = journal.catalog.claim(RUN_ID, holder(), 1.0)
    record = journal.write(RUN_ID, epoch)
    record.append(Driver().batch([flow_created(), *life("a")], [log("hello", "a")]))
    journal.leases.acquire("gpu", "a", 10.0, at=0.0)
    journal.inbox.send(RUN_ID, {"do": "cancel"})
    return journal.home / "runs" / RUN_ID / "journal.sqlite"


def test_looking_makes_nothing(journal: SqliteJournal, home: Path) -> None:
    """A journal that is only asked leaves no trace on the disk."""
    journal.catalog.list()
    journal.inbox.receive(RUN_ID)
    journal.leases.holders("gpu", 0.0)
    journal.leases.release_each(["gpu"], "a")
    journal.describe()
    with pytest.raises(RunNotFound):
        journal.read(RUN_ID)
    journal.close()
    assert not home.parent.exists()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_all_is_for_the_owner_alone(journal: SqliteJournal, home: Path, umask: int) -> None:
    """Folders are 0700 and files 0600, whatever the umask says."""
    before = os.umask(umask)
    try:
        fill(journal)
        found = {
            path: stat.S_IMODE(path.stat().st_mode)
            for path in (home.parent, home, *home.rglob("*"))
        }
    finally:
        os.umask(before)
    names = {path.name for path in found if path.is_file()}
    assert {"catalog.sqlite", "leases.sqlite", "journal.sqlite", "journal.sqlite-wal"} <= names
    wrong = {
        path: oct(mode)
        for path, mode in found.items()
        if mode != (0o600 if path.is_file() else 0o700)
    }
    assert wrong == {}


def test_nothing_stays_open(journal: SqliteJournal, home: Path) -> None:
    """After `close` no file is open, and the record of a run is one file beside its watermark."""

    def open_files() -> list[str]:
        return [file.path for file in psutil.Process().open_files() if str(home) in file.path]

    path = fill(journal)
    reader = journal.read(RUN_ID)
    list(reader.events())
    assert open_files()
    journal.close()
    assert open_files() == []
    left = {file.name for file in path.parent.iterdir() if file.is_file()}
    assert left == {"journal.sqlite", "watermark"}


def test_a_finished_run_can_be_read_where_nothing_can_be_written(
    journal: SqliteJournal, sqlite_at: OpenAt
) -> None:
    """A copy of one file in a folder of its own is a whole run; reading leaves nothing behind."""
    path = fill(journal)
    journal.close()
    other = sqlite_at(path.parents[2].with_name("copy"))
    copy = other.home / "runs" / RUN_ID / "journal.sqlite"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    reader = other.read(RUN_ID)
    assert len(list(reader.events())) == 5
    reader.close()
    assert list(copy.parent.iterdir()) == [copy]


@pytest.mark.parametrize(
    "name", ["catalog.sqlite", "leases.sqlite", f"runs/{RUN_ID}/journal.sqlite"]
)
class TestRefusal:
    """What is refused, for each of the files."""

    def use(self, journal: SqliteJournal, name: str) -> None:
        """Open the file, in every way in which it is."""
        if name.startswith("catalog"):
            journal.catalog.list()
        elif name.startswith("leases"):
            journal.leases.holders("gpu", 0.0)
        else:
            with pytest.raises(JournalError) as refused:
                journal.read(RUN_ID)
            with pytest.raises(refused.type):
                journal.write(RUN_ID, 5)
            raise refused.value

    def damage(self, journal: SqliteJournal, name: str, sql: str) -> Path:
        """Fill a journal, close it and change one of its files."""
        fill(journal)
        journal.close()
        path = journal.home / name
        changed = sqlite3.connect(path, isolation_level=None)
        changed.execute(sql)
        changed.close()
        return path

    def test_newer(self, journal: SqliteJournal, name: str) -> None:
        """A file of a newer version is refused in words, and not changed."""
        path = self.damage(journal, name, "PRAGMA user_version = 99")
        content = path.read_bytes()
        with pytest.raises(JournalTooNew, match="99"):
            self.use(journal, name)
        assert path.read_bytes() == content

    def test_foreign(self, journal: SqliteJournal, name: str) -> None:
        """A database of somebody else's is refused, and not changed."""
        path = self.damage(journal, name, "PRAGMA application_id = 1")
        content = path.read_bytes()
        with pytest.raises(NotAJournal, match=path.name):
            self.use(journal, name)
        assert path.read_bytes() == content

    def test_garbage(self, journal: SqliteJournal, name: str) -> None:
        """A file that is no database is refused, and not changed."""
        path = self.damage(journal, name, "PRAGMA user_version")
        path.write_bytes(b"these are my notes, and nothing else\n" * 500)
        with pytest.raises(NotAJournal, match=path.name):
            self.use(journal, name)
        assert path.read_bytes().startswith(b"these are my notes")

    def test_empty(self, journal: SqliteJournal, name: str) -> None:
        """A file that has lost everything is damaged, and not a new journal."""
        path = self.damage(journal, name, "PRAGMA user_version")
        path.write_bytes(b"")
        with pytest.raises(JournalDamaged, match="empty"):
            self.use(journal, name)

    def test_owned_by_somebody_else(
        self, journal: SqliteJournal, name: str, sqlite_at: OpenAt
    ) -> None:
        """A file of another user is refused, and the user is named."""
        path = self.damage(journal, name, "PRAGMA user_version")
        stranger = sqlite_at(journal.home, uid=os.getuid() + 1)
        with pytest.raises(JournalUnavailable) as refused:
            self.use(stranger, name)
        owner = path.owner()
        assert f"'{owner}'" in str(refused.value)
        assert "DFLOW_HOME" in str(refused.value)


def test_a_home_that_cannot_be_made(tmp_path: Path, sqlite_at: OpenAt) -> None:
    """Where the home cannot be, every write says which path fails and what to do."""
    (tmp_path / "file").write_text("")
    journal = sqlite_at(tmp_path / "file" / "home")
    for write in (
        lambda: journal.catalog.create(entry()),
        lambda: journal.leases.acquire("gpu", "a", 1.0, 0.0),
        lambda: journal.inbox.send(RUN_ID, {}),
        lambda: journal.write(RUN_ID, 1),
    ):
        with pytest.raises(JournalUnavailable, match=r"file.*DFLOW_HOME"):
            write()


@pytest.fixture
def public(sqlite_at: OpenAt) -> Iterator[Path]:
    """Return the home of a run that everybody may read and nobody write."""
    with TemporaryDirectory() as folder:
        journal = sqlite_at(Path(folder) / "home")
        fill(journal)
        journal.close()
        paths = [Path(folder), *Path(folder).rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield journal.home
        for path in paths:
            path.chmod(0o700)


def test_a_home_that_is_a_file_is_not_taken_for_an_empty_one(
    tmp_path: Path, sqlite_at: OpenAt
) -> None:
    """Looking at runs in a home that is a file says so, instead of showing no runs."""
    home = tmp_path / "home"
    home.write_text("not a folder", encoding="utf-8")
    with pytest.raises(JournalUnavailable, match="DFLOW_HOME"):
        sqlite_at(home).catalog.list()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_home_without_permission_to_write(public: Path, world: World) -> None:
    """It can be read, and every write is an error that says what to do."""
    owner = public.stat().st_uid

    def said(use: Callable[[SqliteJournal], object]) -> str:
        journal = SqliteJournal(public, is_alive=world, uid=owner)
        try:
            use(journal)
        except JournalUnavailable as error:
            return "refused" if "DFLOW_HOME" in str(error) else str(error)
        return "done"

    def work() -> str:
        if os.getuid() == 0:  # whom no permission stops
            os.setuid(65534)
        return " ".join(
            [
                said(lambda j: j.catalog.find(RUN_ID)),
                said(lambda j: list(j.read(RUN_ID).events())),
                said(lambda j: j.leases.holders("gpu", 0.0)),
                said(lambda j: j.catalog.create(entry("run-2"))),
                said(lambda j: j.leases.acquire("gpu", "b", 1.0, 20.0)),
                said(lambda j: j.write(RUN_ID, 5)),
                said(lambda j: j.write("run-3", 1)),
                said(lambda j: j.inbox.send("run-3", {})),
                said(lambda j: j.inbox.receive(RUN_ID)),
                said(lambda j: j.delete(RUN_ID, 1)),
            ]
        )

    world.dead.add(1)
    assert in_child(work).split() == ["done"] * 3 + ["refused"] * 7


def test_a_network_file_system_is_treated_with_care(home: Path, sqlite_at: OpenAt) -> None:
    """There nothing needs shared memory, and every commit is synced."""
    journal = sqlite_at(home, file_system_of=lambda path: "nfs4")
    path = fill(journal)
    assert not list(home.rglob("*-wal")) + list(home.rglob("*-shm"))
    told = journal.describe()
    assert (told["network file system"], told["journal mode"]) == ("yes", "delete")
    journal.close()
    assert path.exists()


def test_a_journal_says_what_it_is(home: Path, sqlite_at: OpenAt) -> None:
    """What ``dflow doctor`` shows is true."""
    journal = sqlite_at(home, durability="full", file_system_of=lambda path: "ext4")
    assert journal.describe() == {
        "home": str(home),
        "file system": "ext4",
        "network file system": "no",
        "journal mode": "wal",
        "durability": "full",
        "synchronous": "full",
        "sqlite": sqlite3.sqlite_version,
    }
    record = journal.write(RUN_ID, 1)
    assert record._connection.pragma("journal_mode") == "wal"
    assert record._connection.pragma("synchronous") == 2
    assert record.append(Batch()) == 0
    journal.close()


def test_a_lost_catalog_is_made_anew(
    journal: SqliteJournal, home: Path, world: World, sqlite_at: OpenAt
) -> None:
    """From the records of the runs: with epochs, states, details, and drivers that are at work."""
    fill(journal)
    journal.catalog.create(entry("run-2", tags=["x"]))
    done = journal.write("run-2", journal.catalog.claim("run-2", holder(2), 7.0))
    done.append(Driver().batch([flow_created("run-2")]))
    driver, events = Driver(), [flow_created("run-3")]
    journal.write("run-3", 1).append(driver.batch(events))
    (home / "runs" / "run-4").mkdir()
    (home / "runs" / "run-4" / "journal.sqlite").write_text("garbage")
    before = journal.catalog.find(RUN_ID)
    journal.close()
    (home / "catalog.sqlite").unlink()

    again = sqlite_at(home)
    assert sorted(run.id for run in again.catalog.list()) == [RUN_ID, "run-2", "run-3"]
    kept = again.catalog.find(RUN_ID)
    assert (kept.epoch, kept.holder, kept.details) == (1, before.holder, before.details)
    assert kept.heartbeat == 5.0  # the last event is a sign of life too
    assert again.catalog.find("run-2").details == {"tags": ["x"]}
    assert again.catalog.find("run-3").flow_name == "train"
    world.dead.add(1)
    assert again.catalog.claim(RUN_ID, holder(3), 9.0) == 2
    again.close()


def test_a_lost_catalog_comes_back_with_a_new_run_too(journal: SqliteJournal, home: Path) -> None:
    """The first who adds a run after the loss finds the earlier ones."""
    fill(journal)
    journal.close()
    (home / "catalog.sqlite").unlink()
    journal.catalog.create(entry("run-2"))
    assert {run.id for run in journal.catalog.list()} == {RUN_ID, "run-2"}
    journal.close()


def test_a_damaged_command_is_moved_aside(
    journal: SqliteJournal, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no command is told in the log, and the others are received."""
    journal.inbox.send(RUN_ID, {"number": 1})
    folder = home / "runs" / RUN_ID / "inbox"
    (folder / "00000000000000000001-x.json").write_text('{"half": ')
    (folder / "00000000000000000002-x.json").write_text(json.dumps([1]))
    (folder / ".00000000000000000003-x").write_text("being written")
    with caplog.at_level(logging.WARNING, logger="dflow.journal"):
        assert journal.inbox.receive(RUN_ID) == [{"number": 1}]
    assert len(caplog.records) == 2
    assert journal.inbox.receive(RUN_ID) == []
    assert len(list(folder.glob("*.damaged"))) == 2


@pytest.mark.parametrize("schema", [RUN, CATALOG, LEASES], ids=lambda schema: schema.name)
def test_every_query_fits_the_tables(schema: Schema) -> None:
    """Each named query can be prepared against the newest version."""
    db = sqlite3.connect(":memory:")
    for script in migrations(schema.name):
        for statement in statements(script):
            db.execute(statement)
    found = queries(schema.name)
    assert len(found) >= 5
    for query in found.values():
        parameters: object = {"start": ""} if ":start" in query else [None] * query.count("?")
        db.execute(f"EXPLAIN {query}", parameters)  # type: ignore[arg-type]
    db.close()


def test_migrations_are_numbered(tmp_path: Path) -> None:
    """An older file is brought to the newest version; one that is there already is left alone."""
    old = Schema("run", RUN.application_id, RUN.scripts)
    path = tmp_path / "runs" / "x" / "journal.sqlite"
    path.parent.mkdir(parents=True)
    old.make(path, lambda db: None, synchronous="OFF")
    new = Schema(
        "run", RUN.application_id, (*RUN.scripts, "CREATE TABLE a (x);\nCREATE TABLE b (y);")
    )
    connection = Connection(path, "rw")
    new.migrate(connection)
    new.migrate(connection)
    assert connection.pragma("user_version") == RUN.newest + 1
    with connection.reading() as db:
        assert db.execute("SELECT count(*) FROM a, b").fetchone() == (0,)
    with pytest.raises(JournalTooNew), connection.reading() as db:
        old.version(db, path)
    connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """All of a migration is done, or nothing."""
    path = tmp_path / "journal.sqlite"
    RUN.make(path, lambda db: None, synchronous="OFF")
    new = Schema("run", RUN.application_id, (*RUN.scripts, "CREATE TABLE a (x);\nNONSENSE;"))
    connection = Connection(path, "rw")
    with pytest.raises(JournalError):
        new.migrate(connection)
    assert connection.pragma("user_version") == len(RUN.scripts)
    RUN.migrate(connection)
    connection.close()
