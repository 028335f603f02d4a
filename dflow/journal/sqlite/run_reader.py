"""The record of one run, to be read: while it is written, after a crash, after its end."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from dflow.core.events import Event
from dflow.core.records import FlowRun, TaskRun
from dflow.errors import JournalUnavailable
from dflow.journal.sqlite.connection import Connection
from dflow.journal.sqlite.failures import code_of, damaged
from dflow.journal.sqlite.many import find
from dflow.journal.sqlite.numbers import Numbers
from dflow.journal.sqlite.queries import queries, views
from dflow.journal.sqlite.rows import (
    KEEP,
    Head,
    Record,
    Row,
    Unsound,
    check,
    entry_of,
    event_of,
    head_of,
    label_mark,
    log_of,
    page_of,
    record_of,
    sound,
    storable,
    value_of,
)
from dflow.journal.sqlite.schema import RUN
from dflow.journal.sqlite.tail import Tail
from dflow.journal.sqlite.watermark import Level, level_of
from dflow.messages import LogEntry
from dflow.ports import Missing, RunEntry

SQL = queries("run")
PAGE = 1000
"""How many events or log lines are fetched at once."""

T = TypeVar("T")


class _Refusing:
    """Turns a row that is not sound into the error that names the file. A class: each row is read inside."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End."""
        if isinstance(error, Unsound):
            raise damaged(self._path, str(error)) from error


class SqliteRunReader:
    """The record in an open file. Each call sees one state of it; what is damaged is never given out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._refusing = _Refusing(connection.path)
        self._is_older = False
        self._numbers = Numbers()
        self._last_tail = Tail(0, 0, self._numbers)
        self.on_close: Callable[[], None] = lambda: None

    def look(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `look` finds in one state of the file."""
        try:
            return self._look_once(look)
        except JournalUnavailable as error:
            if code_of(error.__cause__) != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
        _undo_cut_short(self._connection.path)
        return self._look_once(look)

    def _look_once(self, look: Callable[[sqlite3.Connection], T]) -> T:
        with self._refusing, self._connection.reading() as db:
            migrated = self._is_older and self._see_migrated(db)
            found = look(db)
        self._is_older = self._is_older and not migrated  # a look that fails brings the views back
        return found

    def _see_migrated(self, db: sqlite3.Connection) -> bool:
        """Tell whether the driver has migrated a file of an earlier version; if so, read it as it is."""
        if RUN.version(db, self._connection.path) < RUN.newest:
            return False
        for (name,) in db.execute(SQL["views"]).fetchall():
            db.execute(f"DROP VIEW temp.{name}")
        return True

    def check_kind(self) -> None:
        """Raise NotAJournal, JournalTooNew or JournalDamaged unless this is the record of a run.

        One of an earlier version is shown as one of the newest.
        """
        version = self.look(lambda db: RUN.version(db, self._connection.path))
        if version < RUN.newest:
            self._connection.pragma("temp_store = MEMORY")
            with self._connection.usable() as db:
                db.executescript(views(RUN.name, version))
            self._is_older = True

    def events(self, after: int = 0) -> Iterator[tuple[int, Event | None]]:
        """Yield (number, event) after a number; None for an unknown kind."""
        return self._events(after, self.look(head).events)

    def _events(self, after: int, last: int) -> Iterator[tuple[int, Event | None]]:
        first = self.look(first_of_pages)
        while after < min(last, first - 1):
            rows = self._page("events", after, min(last, first - 1))
            yield from self._sound(rows, lambda row: [(row[0], event_of(row))])
            after += len(rows)
        while after < last:
            for event in self._sound(self.look(partial(next_pages, after)), page_of):
                if after < event[0] <= last:
                    yield event
                    after = event[0]

    def _sound(self, rows: list[Row], read: Callable[[Row], Iterable[T]]) -> Iterator[T]:
        """Yield what rows hold, up to the first that is damaged, and raise JournalDamaged there."""
        for row in rows:
            with self._refusing:
                found = read(row)
            yield from found

    def _page(self, query: str, after: int, last: int) -> list[Row]:
        """Return the next rows of a table that is only added to, none of which may be missing."""

        def look(db: sqlite3.Connection) -> list[Row]:
            rows = db.execute(SQL[query], (after, last, PAGE)).fetchall()
            expected = list(range(after + 1, min(after + PAGE, last) + 1))
            check([row[0] for row in rows] == expected, f"the list of {query} after {after}")
            return rows

        return self.look(look)

    def task_runs(self, after: int = 0, limit: int | None = None) -> Iterator[TaskRun]:
        """Yield the task runs after the first `after`, at most `limit`."""

        def look(db: sqlite3.Connection) -> tuple[list[Row], dict[str, TaskRun], list[TaskRun]]:
            rows = db.execute(SQL["task_runs"], (after, -1 if limit is None else limit)).fetchall()
            saved = head(db).task_runs
            due = max(0, saved - after)
            check(len(rows) == (due if limit is None else min(due, limit)), "the list of task runs")
            tail = self._tail(db)
            changed = {row[1]: tail.runs[row[1]] for row in rows if row[1] in tail.runs}
            end = None if limit is None else max(0, after - saved) + limit - len(rows)
            made = [tail.runs[made] for made in tail.made[max(0, after - saved) : end]]
            return rows, changed, made

        rows, changed, made = self.look(look)
        records = self._records(TaskRun, [row[:-1] for row in rows], after)
        return chain((changed.get(run.id, run) for run in records), made)

    def task_run(self, task_run_id: str) -> TaskRun | None:
        """Return one task run. That there is none takes longer to say than what it is."""

        def look(db: sqlite3.Connection) -> TaskRun | None:
            tail = self._tail(db)
            if task_run_id in tail.runs:
                return tail.runs[task_run_id]
            number = self._numbers.of(db, task_run_id)
            if number is None:
                self._numbers.check_absent(db)
                return None
            row = db.execute(SQL["task_run"], (number,)).fetchone()
            check(row is not None and row[1] == task_run_id, "the list of task runs")
            return record_of(TaskRun, row[:4])

        return self.look(look)

    def _tail(self, db: sqlite3.Connection) -> Tail:
        """Return what the events tell beyond the records; of what was read last only the rest is read."""
        now = head(db)
        recorded = now.events if now.recorded is None else now.recorded
        tail = self._last_tail
        if tail.key != (recorded, now.task_runs):
            tail = Tail(recorded, now.task_runs, self._numbers)
        while tail.upto < now.events:
            for row in next_pages(tail.upto, db):
                tail.take(db, (event for event in page_of(row) if event[0] > tail.upto))
        self._last_tail = tail
        return tail

    def flow_runs(self) -> Iterator[FlowRun]:
        """Yield the flow runs, in the order in which they were created."""

        def look(db: sqlite3.Connection) -> list[Row]:
            rows = db.execute(SQL["flow_runs"]).fetchall()
            check(len(rows) == head(db).flow_runs, "the list of flow runs")
            return rows

        return self._records(FlowRun, self.look(look))

    def counts(self) -> dict[tuple[str, str], dict[str, int]]:
        """Return {(flow run id, task name): {state name: how many task runs}}."""
        return self.look(lambda db: _counts(db, self._tail(db)))

    def value(self, run_id: str) -> bytes | None:
        """Return the pickled value of a task run or flow run, if it is kept."""

        def look(db: sqlite3.Connection) -> bytes | None:
            return self._kept_values(db, {run_id: self._tail(db).valued.get(run_id)}).get(run_id)

        return self.look(look)

    def _kept_values(
        self, db: sqlite3.Connection, events: Mapping[str, int | None]
    ) -> dict[str, bytes]:
        """Return the values of runs, those that these events brought, or else the ones that are recorded."""
        recorded = self._valued(db, [run for run, event in events.items() if event is None])
        events = {run: recorded.get(run) if n is None else n for run, n in events.items()}
        brought = {event for event in events.values() if event is not None and event != KEEP}
        rows = {event: row for event, *row in find(db, SQL["task_value"], brought)}
        kept = {run: value_of(run, *rows[n]) for run, n in events.items() if n in rows}
        if others := [run for run, event in events.items() if event is None or event == KEEP]:
            kept |= {run: value_of(run, *row) for run, *row in find(db, SQL["value"], others)}
        return kept

    def _valued(self, db: sqlite3.Connection, run_ids: Iterable[str]) -> dict[str, int | None]:
        """Return which events brought the values of these task runs, as far as they are recorded."""
        numbers = {self._numbers.of(db, run_id): run_id for run_id in run_ids}
        numbers.pop(None, None)
        rows = find(db, SQL["valued"], numbers)
        fits = [numbers[number] == run_id for number, run_id, _ in rows]
        check(len(fits) == len(numbers) and all(fits), "the list of task runs")
        return {run_id: event for _, run_id, event in rows}

    def damaged_values(self) -> list[str]:
        """Return the runs whose values are not what was written."""

        def look(db: sqlite3.Connection) -> list[str]:
            tail = self._tail(db)
            valued = dict(db.execute(SQL["task_values"])) | tail.valued
            damaged: list[str] = []
            left = iter(valued.items())
            while some := dict(islice(left, PAGE)):
                rows = {event: row for event, *row in find(db, SQL["task_value"], some.values())}
                kept = ((run, *rows[event]) for run, event in some.items() if event in rows)
                damaged += [run for run, *row in kept if not _is_sound(run, *row)]
            others = (row for row in db.execute(SQL["values"]) if row[0] not in valued)
            return damaged + [run for run, *row in others if not _is_sound(run, *row)]

        return self.look(look)

    def logs(self, task_run_id: str | None = None, after: int = 0) -> Iterator[LogEntry]:
        """Yield log lines after a number, of all runs or of one task run."""
        lines = self._logs(after, self.look(found_level).logs)
        return (e for e in lines if task_run_id is None or e.task_run_id == task_run_id)

    def _logs(self, after: int, last: int) -> Iterator[LogEntry]:
        while after < last:
            page = self._page("logs", after, last)
            yield from self._sound(page, lambda row: [log_of(row)])
            after += len(page)

    def examine(self) -> Sequence[str]:
        """Look through all pages of the file; return what is wrong with them."""
        found = self.look(lambda db: db.execute("PRAGMA integrity_check(10)").fetchall())
        return [] if found == [("ok",)] else [f"The file is damaged: {what}." for (what,) in found]

    def missing(self) -> Missing:
        """Return what the watermark knows of and the record does not."""
        level = level_of(self._connection.path)  # first: what is written meanwhile is not missing
        return level.above(self.look(found_level))

    def close(self) -> None:
        """Let go of the record."""
        self._connection.close()
        self.on_close()

    def _records(self, cls: type[Record], rows: list[Row], after: int = 0) -> Iterator[Record]:
        for number, row in enumerate(rows, start=after + 1):
            with self._refusing:
                record = record_of(cls, row, number)
            yield record


def _is_sound(run_id: str, value: bytes, mark: int) -> bool:
    try:
        value_of(run_id, value, mark)
    except Unsound:
        return False
    return True


def head(db: sqlite3.Connection) -> Head:
    """Return who may write a record, and the last numbers of its tables."""
    return head_of(db.execute(SQL["head"]).fetchone())


def found_level(db: sqlite3.Connection) -> Level:
    """Return how far the file of a record goes."""
    found = head(db)
    logs = last_log(db) if found.logs is None else found.logs
    return Level(found.epoch, found.events, logs)


def first_of_pages(db: sqlite3.Connection) -> int:
    """Return the number of the first event that is in a page, or will be."""
    row = db.execute(SQL["pages"], (0, 1)).fetchone()
    with sound("the first page of events"):
        return head(db).events + 1 if row is None else int(row[0] - row[1] + 1)


def next_pages(after: int, db: sqlite3.Connection) -> list[Row]:
    """Return the next pages of events after a number, none of which may be missing."""
    what = f"the list of events after {after}"
    rows: list[Row] = []
    end = after
    with sound(what):
        for row in db.execute(SQL["pages"], (after, PAGE)):
            last, count, *_ = row
            follows = last - count == end if rows else last - count <= after
            check(follows and last > end, what)
            rows.append(row)
            end = last
            if end - after >= PAGE:
                break
    check(bool(rows), what)
    return rows


def last_log(db: sqlite3.Connection) -> int:
    """Return the number of the last log line."""
    return int(db.execute(SQL["last_log"]).fetchone()[0])


def _counts(db: sqlite3.Connection, tail: Tail) -> dict[tuple[str, str], dict[str, int]]:
    groups: dict[tuple[str, str], Counter[str]] = {}
    total = 0
    for flow_run_id, task_name, state_name, mark, number, _ in db.execute(SQL["counts"]):
        with sound("the count of task runs"):
            fits = label_mark(flow_run_id, task_name, state_name) == mark
            check(fits, "the count of task runs")
        groups.setdefault((flow_run_id, task_name), Counter())[state_name] = number
        total += number
    check(total == head(db).task_runs, "the count of task runs")
    for run in tail.runs.values():
        group = groups.setdefault((run.flow_run_id, storable(run.task_name)), Counter())
        group[run.state_name] += 1
        saved = tail.saved_state(db, run.id)
        if saved is not None:
            group[saved] -= 1
    return {name: dict(+group) for name, group in groups.items()}


def kept_entry(db: sqlite3.Connection) -> RunEntry | None:
    """Return the entry of the catalog that a record keeps."""
    text, mark = db.execute(SQL["entry"]).fetchone()
    if text is None:
        return None
    with sound("the entry of the run"):
        check(crc32(text.encode()) == mark, "the entry of the run")
        return entry_of(json.loads(text))


# Opening -----------------------------------------------------------------------------------------------


def open_to_read(path: Path) -> SqliteRunReader:
    """Open the file of a run to look at, without writing to it."""
    reader = SqliteRunReader(Connection(path, "ro"))
    try:
        reader.check_kind()
    except BaseException:
        reader.close()
        raise
    return reader


def _undo_cut_short(path: Path) -> None:
    """Undo the transaction that a killed writer left half done, which takes a writable connection.

    Only rollback mode knows this; in a write-ahead log such a transaction is not seen at all.
    """
    connection = Connection(path, "rw")
    try:
        connection.pragma("query_only = ON")
        connection.pragma("schema_version")
    finally:
        connection.close()
