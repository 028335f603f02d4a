"""The record of one run, to be written by the driver of one epoch."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import NoReturn
from zlib import crc32

from msgspec.structs import replace

from dflow.core.events import Event, FlowEvent
from dflow.core.replay import replay
from dflow.errors import JournalError
from dflow.journal.holding import taken_over
from dflow.journal.sqlite.connection import Connection
from dflow.journal.sqlite.failures import damaged
from dflow.journal.sqlite.files import exists
from dflow.journal.sqlite.many import put
from dflow.journal.sqlite.rows import (
    KEEP,
    Head,
    Row,
    bare,
    entry_row,
    flow_run_row,
    log_row,
    page_row,
    task_run_row,
    value_row,
)
from dflow.journal.sqlite.run_reader import SQL, SqliteRunReader, T, head, last_log
from dflow.journal.sqlite.schema import RUN
from dflow.journal.sqlite.unsaved import Runs, Unsaved
from dflow.journal.sqlite.watermark import Level, Watermark, level_of
from dflow.ports import Batch, Missing, RunEntry

BUSY_SECONDS = 10.0
"""How long a writer waits for readers, where it must."""


AT_A_LOOK = 512
"""How many values are read in one go: the tracker waits for that."""
IN_A_PAGE = 256
"""How many events a page has at most."""


@dataclass(frozen=True, slots=True)
class Care:
    """How a record is written: the journal mode of SQLite, and how far it syncs."""

    journal_mode: str
    synchronous: str
    sync_watermark: bool = False

    @property
    def draft(self) -> str:
        """How far a file is synced before there is anything in it to lose."""
        return "FULL" if self.synchronous == "FULL" else "OFF"


class SqliteRunJournal(SqliteRunReader):
    """The record in a file that is open for its one writer."""

    def __init__(self, connection: Connection, epoch: int, watermark: Watermark) -> None:
        super().__init__(connection)
        self._epoch = epoch
        self._watermark = watermark
        self._missing = Missing()
        self._head = Head("", epoch)
        self._unsaved = Unsaved()
        self._turn = threading.RLock()  # what is known here changes with the file

    def begin(self, run_id: str, entry: RunEntry | None, level: Level) -> None:
        """End every earlier epoch, and see what is missing below `level`.

        Raises RunTakenOver if a later epoch has begun.
        """
        with self._refusing, self._connection.writing() as db:
            before = head(db)
            if before.run_id != run_id:
                raise damaged(self._connection.path, f"it is the record of '{before.run_id}'")
            if before.epoch > self._epoch:
                raise taken_over(run_id, self._epoch)
            logs = last_log(db) if before.logs is None else before.logs
            now = replace(before, epoch=self._epoch, logs=logs, recorded=before.events)
            if now != before:
                now = replace(now, task_runs=self._save_tail(db, before))
                numbers = now.epoch, now.events, now.task_runs, now.logs, now.recorded
                db.execute(SQL["begin_epoch"], (*numbers, now.mark, *_kept(entry)))
        self._head = now
        self._missing = level.above(Level(now.epoch, now.events, logs))
        self._watermark.set(Level(now.epoch, now.events, logs))

    def missing(self) -> Missing:
        """Return what was missing when the record was opened."""
        return self._missing

    def append(self, batch: Batch) -> int:
        """Write a batch in one transaction; return the number of the last event."""
        with self._turn:
            new = {run.id: run for run in batch.task_runs}
            told = _Told(batch.events, self._head.events + 1)
            # Records of which no event tells cannot be behind their events.
            due = self._unsaved.due(told.first, told.last, new) if batch.events else list(new)
            if due or batch.logs or batch.flow_runs or not told.is_one_row():
                self._write(batch, told, new, due)
            else:
                self._write_alone(told, new)
            return told.last

    def _write_alone(self, told: _Told, new: Runs) -> None:
        """Write events that are all of a transaction, with one statement: calls of tasks ask for one each."""
        now = self._head
        row = (*told.row(), now.epoch, now.events)
        with self._refusing, self._connection.usable() as db:
            if db.execute(SQL["insert_lone_page"], row).rowcount != 1:
                self._refuse(db)
        self._head = replace(now, events=told.last)
        self._unsaved.change((), told.first, new, told.valued)
        self._watermark.set(Level(now.epoch, told.last, now.logs or 0))

    def _write(self, batch: Batch, told: _Told, new: Runs, due: Sequence[str]) -> None:
        """Write a batch, which tells this and has brought these `new` records, and what is due."""
        now, waits = self._head, self._unsaved
        with self._refusing, self._connection.writing() as db:
            numbers = self._numbers.given(db, due)
            after = replace(
                now,
                events=told.last,
                task_runs=max(now.task_runs, max(numbers.values(), default=0)),
                logs=(now.logs or 0) + len(batch.logs),
                recorded=waits.recorded(due, told.first, told.last, new),
            )
            if not _set_head(db, now, after):
                self._refuse(db)
            told.write(db)
            put(db, SQL["save_task_run"], waits.rows(numbers, told.last, new, told.valued))
            if batch.flow_runs:
                put(db, SQL["save_flow_run"], map(flow_run_row, batch.flow_runs))
                after = replace(after, flow_runs=_number(db, "last_flow_run"))
                _set_head(db, after, after)
            put(db, SQL["insert_log"], map(log_row, count((now.logs or 0) + 1), batch.logs))
        self._head = after
        self._numbers.note(numbers)
        waits.change(due, told.first, new, told.valued)
        self._watermark.set(Level(after.epoch, after.events, after.logs or 0))

    def _refuse(self, db: sqlite3.Connection) -> NoReturn:
        """Raise RunTakenOver if another epoch has begun, or else JournalDamaged: nothing was written."""
        found = head(db)
        if found.epoch != self._epoch:
            raise taken_over(found.run_id, self._epoch)
        raise damaged(self._connection.path, "somebody else has written to it")

    def look(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `look` finds in one state of the file, with all records saved."""
        self._save_all()
        return super().look(look)

    def value(self, run_id: str) -> bytes | None:
        """Return the pickled value of a task run or flow run, if it is kept."""
        return self.values([run_id]).get(run_id)

    def values(self, run_ids: Iterable[str]) -> dict[str, bytes]:
        """Return the pickled values of these runs, of those that have one. Others may write in between."""
        found: dict[str, bytes] = {}
        left = iter(run_ids)
        while some := list(islice(left, AT_A_LOOK)):
            found.update(super().look(partial(self._values_now, some)))
        return found

    def _values_now(self, run_ids: Sequence[str], db: sqlite3.Connection) -> dict[str, bytes]:
        events = {run_id: self._unsaved.valued(run_id) for run_id in run_ids}
        return self._kept_values(db, events)

    def catch_up(self) -> bool:
        """Save some of the records that are behind; return whether there are more."""
        with self._turn:
            self._save(self._unsaved.oldest())
            return bool(self._unsaved)

    def let_go(self, task_run_ids: Iterable[str]) -> list[str]:
        """Keep nothing in memory of those whose records are not behind; return which."""
        with self._turn:
            saved = [run_id for run_id in task_run_ids if run_id not in self._unsaved]
            self._numbers.forget(saved)
        return saved

    def _save(self, due: Sequence[str]) -> None:
        if due:
            self._write(Batch(), _Told((), self._head.events + 1), {}, due)

    def _save_all(self) -> None:
        with self._turn:
            self._save(self._unsaved.all())

    def _save_tail(self, db: sqlite3.Connection, before: Head) -> int:
        """Save the records that an earlier driver left behind; return the number of the last task run."""
        tail = self._tail(db)
        numbers = self._numbers.given(db, tail.runs)
        rows = (
            task_run_row(numbers[run_id], run, before.events, tail.valued.get(run_id, KEEP))
            for run_id, run in tail.runs.items()
        )
        put(db, SQL["save_task_run"], rows)
        return max(before.task_runs, max(numbers.values(), default=0))

    def close(self) -> None:
        """Save what is behind, and leave one file that needs no other, if nobody is reading it."""
        with suppress(JournalError):  # the events tell it anyway
            self._save_all()
        with suppress(JournalError):  # it is only tidied: everything is written already
            self._connection.pragma("busy_timeout = 0")
            if self._connection.pragma("journal_mode") == "wal":
                self._connection.pragma("wal_checkpoint(TRUNCATE)")
                self._connection.pragma("journal_mode = DELETE")
        self._watermark.close()
        super().close()


class _Told:
    """Events as pages have them, with the numbers from `first` to `last`, and the values that they bring.

    `valued` are the events that brought values of task runs, or said that there is none in the journal.
    """

    __slots__ = ("events", "first", "flow_values", "last", "task_values", "valued")

    def __init__(self, events: Sequence[Event], first: int) -> None:
        self.first, self.last = first, first + len(events) - 1
        self.events: list[Row] = []
        self.valued: dict[str, int] = {}
        self.task_values: list[Row] = []
        self.flow_values: dict[str, bytes | None] = {}
        for number, event in enumerate(events, start=first):
            row, owner, value = bare(event)
            self.events.append(row)
            if owner is None:
                continue
            if isinstance(event, FlowEvent):
                self.flow_values[owner] = value
                continue
            self.valued[owner] = number
            if value is not None:
                self.task_values.append((number, *value_row(owner, value)[1:]))

    def is_one_row(self) -> bool:
        """Tell whether this fits into one page, with no value but that of the last event."""
        fits = 0 < len(self.events) <= IN_A_PAGE and not self.flow_values
        return fits and all(number == self.last for number, *_ in self.task_values)

    def row(self) -> Row:
        """Return that one row."""
        value = self.task_values[0][1:] if self.task_values else (None, None)
        return (*page_row(self.last, self.events), *value)

    def write(self, db: sqlite3.Connection) -> None:
        """Write the events and the values."""
        for start in range(0, len(self.events), IN_A_PAGE):
            page = self.events[start : start + IN_A_PAGE]
            db.execute(SQL["insert_page"], page_row(self.first + start + len(page) - 1, page))
        put(db, SQL["save_task_value"], self.task_values)
        values = self.flow_values.items()
        put(db, SQL["drop_value"], [(owner,) for owner, value in values if value is None])
        kept = [value_row(owner, value) for owner, value in values if value is not None]
        put(db, SQL["save_value"], kept)


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(SQL[query]).fetchone()[0])


def _set_head(db: sqlite3.Connection, before: Head, after: Head) -> bool:
    """Write a head in the place of another one; return whether that was there."""
    numbers = after.events, after.task_runs, after.flow_runs, after.logs, after.recorded
    row = (*numbers, after.mark, before.epoch, before.events)
    return db.execute(SQL["advance"], row).rowcount == 1


# Opening -----------------------------------------------------------------------------------------------


def open_to_write(
    path: Path, run_id: str, epoch: int, entry: RunEntry | None, care: Care
) -> SqliteRunJournal:
    """Open the file of a run for the driver of `epoch`, which ends every earlier one; make it if need be.

    The entry of the run in the catalog is kept in the file too, to rebuild the catalog from.
    """
    level = level_of(path)
    if level.epoch > epoch:
        raise taken_over(run_id, epoch)
    is_new = not exists(path)
    if is_new:
        _make(path, Head(run_id, epoch), entry, care)
    connection = Connection(path, "rw", busy_seconds=BUSY_SECONDS)
    try:
        RUN.migrate(connection)
        if not is_new:
            _examine(connection)
        _apply(care, connection)
        journal = SqliteRunJournal(connection, epoch, Watermark(path, sync=care.sync_watermark))
        if SqliteRunReader.missing(journal):
            _compare(journal, path)
        journal.begin(run_id, entry, level)
    except BaseException:
        connection.close()
        raise
    return journal


def _make(path: Path, start: Head, entry: RunEntry | None, care: Care) -> None:
    def fill(db: sqlite3.Connection) -> None:
        db.execute(
            SQL["create_meta"],
            (start.run_id, start.epoch, 0, 0, 0, 0, 0, start.mark, *_kept(entry)),
        )

    RUN.make(path, fill, synchronous=care.draft)


def _examine(connection: Connection) -> None:
    """Look through a whole file before it is written to again: what is damaged would only get worse."""
    verdict = connection.pragma("integrity_check(1)")
    if verdict != "ok":
        raise damaged(connection.path, str(verdict))


def _compare(journal: SqliteRunReader, path: Path) -> None:
    """Compare the records with the events, in a file whose log was lost: parts of that may be in it already.

    Raises JournalDamaged where they tell different things.
    """
    events = [event for _, event in journal.events()]
    table = replay(event for event in events if event is not None)
    fits = list(journal.task_runs()) == list(table.task_runs.values())
    if None not in events and not (
        fits and list(journal.flow_runs()) == list(table.flow_runs.values())
    ):
        raise damaged(path, "its end was lost, and its records are not what its events tell")


def _apply(care: Care, connection: Connection) -> None:
    # That a file is a write-ahead log from now on may be lost in a power cut, what is in it not.
    connection.pragma(f"synchronous = {care.draft}")
    mode = connection.pragma(f"journal_mode = {care.journal_mode}")
    fits = str(mode).upper() == care.journal_mode
    connection.pragma(f"synchronous = {care.synchronous if fits else 'FULL'}")


def _kept(entry: RunEntry | None) -> tuple[str | None, int | None]:
    """Return an entry of the catalog as a run keeps it, and its mark."""
    if entry is None:
        return None, None
    text = json.dumps(entry_row(entry))
    return text, crc32(text.encode())
