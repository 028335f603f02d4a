"""`SqliteJournal`: the home folder, what is where in it, and how carefully it is written."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from dflow.journal.holding import Probe, no_record, not_found, taken_over
from dflow.journal.sqlite import catalog as catalogs
from dflow.journal.sqlite.connection import check_process
from dflow.journal.sqlite.failures import damaged, folder_failure
from dflow.journal.sqlite.file_systems import file_system, is_network
from dflow.journal.sqlite.files import check_owner, exists, folder_size, make_folder, sync_folder
from dflow.journal.sqlite.inbox import FileInbox
from dflow.journal.sqlite.leases import SqliteLeases
from dflow.journal.sqlite.rebuild import RECORDS, recorded
from dflow.journal.sqlite.rows import entry_row
from dflow.journal.sqlite.run_journal import Care, SqliteRunJournal, open_to_write
from dflow.journal.sqlite.run_reader import SqliteRunReader, open_to_read
from dflow.journal.sqlite.schema import CATALOG, LEASES
from dflow.journal.sqlite.shared_file import SharedFile
from dflow.journal.sqlite.watermark import level_of

Durability = Literal["normal", "full"]

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class SqliteJournal:
    """The journal below the folder `home`, which is made with what is in it at the first write.

    With `durability` "normal" a killed process loses nothing that was committed, with "full" neither
    does a power cut. `is_alive` tells whether the process that holds a run lives, or None where it
    cannot tell. `file_system_of` tells the type of the file system of a folder; `uid` is the user whose
    files these must be, by default the one that runs this process.
    """

    def __init__(
        self,
        home: Path,
        *,
        is_alive: Probe,
        durability: Durability = "normal",
        file_system_of: Callable[[Path], str] = file_system,
        uid: int | None = None,
    ) -> None:
        self.home = home.expanduser().absolute()
        self._durability = durability
        self._file_system_of = file_system_of
        self._uid = os.getuid() if uid is None else uid
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._opened: set[SqliteRunReader] = set()
        self._catalog_file = SharedFile(
            self.home / "catalog.sqlite",
            CATALOG,
            synchronous=self._synchronous,
            uid=self._uid,
            fill=self._list_what_is_recorded,
        )
        self._leases_file = SharedFile(
            self.home / "leases.sqlite", LEASES, synchronous=self._synchronous, uid=self._uid
        )
        self.catalog = catalogs.SqliteCatalog(self._catalog_file, is_alive, self.rebuild)
        self.leases = SqliteLeases(self._leases_file, is_alive)
        self.inbox = FileInbox(lambda run_id: self._folder(run_id) / "inbox")

    def write(self, run_id: str, epoch: int) -> SqliteRunJournal:
        """Open the record of a run for its driver, made if need be. Raises errors of `JournalError`."""
        path = self._record(run_id)
        entry = self.catalog.entry(run_id)
        with self._lock:
            is_new = not exists(path)
            if is_new:
                make_folder(path.parent)
            else:
                check_owner(path, self._uid)
            journal = open_to_write(path, run_id, epoch, entry, self._care)
            if is_new and self._durability == "full":
                for folder in (path.parent, path.parent.parent, self.home):
                    sync_folder(folder)
        self._keep(journal)
        return journal

    def read(self, run_id: str) -> SqliteRunReader:
        """Open the record of a run to look at. Raises `RunNotFound` and errors of `JournalError`."""
        path = self._record(run_id)
        if not exists(path):
            if events := level_of(path).events:
                raise damaged(path, f"it is gone, and {events} events had been written to it")
            raise no_record(run_id)
        check_owner(path, self._uid)
        reader = open_to_read(path)
        self._keep(reader)
        return reader

    def size(self, run_id: str) -> int:
        """Return how many bytes the files of a run take."""
        return folder_size(self._folder(run_id))

    def delete(self, run_id: str, epoch: int) -> None:
        """Delete a run and its record, as its driver. Raises `RunTakenOver` and `RunNotFound`.

        One that was not deleted to its end stays on the list, and can be deleted again.
        """
        folder = self._folder(run_id)
        entry = self.catalog.entry(run_id)
        if entry is None and not exists(folder):
            raise not_found(run_id)
        if entry is not None and entry.epoch != epoch:
            raise taken_over(run_id, epoch)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise folder_failure(error, folder) from error
        if entry is not None:
            self.catalog.drop(run_id, epoch)

    def rebuild(self) -> bool:
        """Make a lost catalog anew from the records of the runs; tell whether there are any.

        It happens by itself when a catalog that is not there is asked for something.
        """
        if not any((self.home / "runs").glob(RECORDS)):
            return False
        self._catalog_file.make()
        return True

    def describe(self) -> Mapping[str, str]:
        """Return what ``dflow doctor`` shows of it."""
        return {
            "home": str(self.home),
            "file system": self._file_system,
            "network file system": "yes" if is_network(self._file_system) else "no",
            "journal mode": self._care.journal_mode.lower(),
            "durability": self._durability,
            "synchronous": self._care.synchronous.lower(),
            "sqlite": sqlite3.sqlite_version,
        }

    def close(self) -> None:
        """Let go of every file, the records that were opened here included."""
        # Those who only look go first: the last one out leaves the file tidy.
        for record in sorted(self._opened, key=lambda r: isinstance(r, SqliteRunJournal)):
            record.close()
        self._catalog_file.close()
        self._leases_file.close()

    def _keep(self, record: SqliteRunReader) -> None:
        """Remember an open record until it is closed: by whoever has it, or by `close`."""
        self._opened.add(record)
        record.on_close = lambda: self._opened.discard(record)

    @cached_property
    def _file_system(self) -> str:
        return self._file_system_of(self.home)

    @cached_property
    def _care(self) -> Care:
        full = self._durability == "full"
        if is_network(self._file_system):
            return Care("DELETE", "FULL", full)
        return Care("WAL", "FULL" if full else "NORMAL", full)

    def _synchronous(self) -> str:
        return self._care.synchronous

    def _folder(self, run_id: str) -> Path:
        check_process(self._pid, self.home)
        if not _RUN_ID.fullmatch(run_id):
            raise not_found(run_id)
        return self.home / "runs" / run_id

    def _record(self, run_id: str) -> Path:
        return self._folder(run_id) / "journal.sqlite"

    def _list_what_is_recorded(self, db: sqlite3.Connection) -> None:
        db.executemany(catalogs.SQL["insert"], map(entry_row, recorded(self.home / "runs")))
