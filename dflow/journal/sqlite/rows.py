"""Events, records and entries as rows, and back. A row whose mark does not fit is refused, never believed.

Rows hold primitives: msgpack and JSON, and the blobs of users, which nothing here unpickles.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeVar
from zlib import crc32

import msgpack
from msgspec import Struct
from msgspec.structs import replace

from dflow.core.codec import decode
from dflow.core.events import AttemptSucceeded, CacheHit, Event, FlowRunReturned
from dflow.core.plain import build, packed, plain
from dflow.core.records import FlowRun, TaskRun
from dflow.messages import LogEntry
from dflow.ports import Holder, RunEntry

Row = tuple[Any, ...]
Record = TypeVar("Record", TaskRun, FlowRun)


class Unsound(Exception):
    """A row does not hold what was written; the message says which one."""


class sound:  # noqa: N801  (reads as a word after `with`)
    """Turns whatever goes wrong while a row is read into `Unsound`. A class, as every row goes through it."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Begin to read."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End."""
        if isinstance(error, _WRONG):
            raise Unsound(f"{self._what} cannot be read") from error


_WRONG = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def check(fits: bool, what: str) -> None:
    """Raise `Unsound` unless it fits."""
    if not fits:
        raise Unsound(f"{what} is not as it was written")


def pack(data: Any) -> bytes:
    """Return plain data as msgpack; text may hold lone surrogates, as names of files do."""
    try:
        return packed(data)
    except UnicodeEncodeError:
        blob: bytes = msgpack.packb(plain(data), unicode_errors="surrogatepass")
        return blob


def unpack(blob: bytes) -> Any:
    """Return the data that was packed."""
    return msgpack.unpackb(blob, unicode_errors="surrogatepass", strict_map_key=False)


def storable(value: str) -> str:
    """Return text that SQLite can keep: what UTF-8 cannot say is written as an escape."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


# Meta ------------------------------------------------------------------------------------------------


class Head(Struct, frozen=True):
    """Who may write a record, the last number of each of its tables, and how far its records have come.

    Up to the event `recorded` all records have taken in what the events tell. Earlier versions did not
    count log lines (None), and all their records are as their events tell (None).
    """

    run_id: str
    epoch: int
    events: int = 0
    task_runs: int = 0
    flow_runs: int = 0
    logs: int | None = 0
    recorded: int | None = 0

    @property
    def mark(self) -> int:
        """The check sum of the row."""
        values = (self.run_id, self.epoch, self.events, self.task_runs, self.flow_runs)
        later = tuple(number for number in (self.logs, self.recorded) if number is not None)
        return crc32(repr((*values, *later)).encode())


def head_of(row: Row | None) -> Head:
    """Return the head of a record, from its row and the number of its last page, which may be ahead."""
    with sound("the head"):
        check(row is not None, "the head")
        *values, mark, last_page = row or ()
        head = Head(*values)
        check(head.mark == mark, "the head")
        return replace(head, events=max(head.events, last_page or 0))


# Events ----------------------------------------------------------------------------------------------


def bare(event: Event) -> tuple[Row, str | None, bytes | None]:
    """Return an event as a page has it, without its value; whose value it may carry; and the value."""
    owner = value = None
    if isinstance(event, FlowRunReturned):
        owner, value = event.flow_run_id, event.value
    elif isinstance(event, AttemptSucceeded | CacheHit):
        owner, value = event.task_run_id, event.value
    written = event if value is None else replace(event, value=None)
    return (type(event).__name__, event.version, written), owner, value


def page_row(last: int, events: Sequence[Row]) -> Row:
    """Return a page of bare events, the last of which has the number `last`."""
    blob = pack(events)
    return last, len(events), blob, _page_mark(last, len(events), blob)


def _page_mark(last: int, count: int, blob: bytes) -> int:
    return crc32(blob, crc32(b"%d %d" % (last, count)))


def page_of(row: Row) -> list[tuple[int, Event | None]]:
    """Return the events of a page with their numbers; None for a kind that is not known here."""
    last, count, blob, mark = row
    what = f"the page of events up to {last}"
    with sound(what):
        check(_page_mark(last, count, blob) == mark, what)
        events = [decode(*event) for event in unpack(blob)]
        check(len(events) == count, what)
        return list(enumerate(events, last - count + 1))


def _event_mark(
    number: int, at: float, kind: str, version: int, task_run_id: str | None, blob: bytes
) -> int:
    return crc32(blob, crc32(repr((number, at, kind, version, task_run_id)).encode()))


def event_of(row: Row) -> Event | None:
    """Return the event that a row of an earlier version holds, or None for a kind that is not known."""
    number, at, kind, version, task_run_id, blob, mark = row
    what = f"event {number}"
    with sound(what):
        check(_event_mark(number, at, kind, version, task_run_id, blob) == mark, what)
        fields = unpack(blob) | {"at": at}
        if task_run_id is not None:
            fields["task_run_id"] = task_run_id
        return decode(kind, version, fields)


# Records ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def label_mark(flow_run_id: str, task_name: str, state_name: str) -> int:
    """Return the check sum of what task runs are counted by."""
    return crc32("\0".join((flow_run_id, task_name, state_name)).encode())


KEEP = -1
"""What says that the value of a task run stays what it is."""


def task_run_row(number: int, run: TaskRun, event: int, valued: int = KEEP) -> Row:
    """Return a task run as a row, as `event` left it; the event `valued` brought its value."""
    label = _label(run.flow_run_id, run.task_name, run.state_name)
    blob = pack(run)
    return (number, run.id, *label, blob, crc32(blob), event, valued)


@lru_cache(maxsize=1024)
def _label(flow_run_id: str, task_name: str, state_name: str) -> Row:
    """Return what a task run is counted by, and the check sum of that."""
    label = flow_run_id, storable(task_name), state_name
    return (*label, label_mark(*label))


def flow_run_row(run: FlowRun) -> Row:
    """Return a flow run as a row."""
    blob = pack(run)
    return (run.id, blob, crc32(blob))


def record_of(cls: type[Record], row: Row, number: int | None = None) -> Record:
    """Return the record that a row holds. With `number`, the row must have it."""
    found, run_id, blob, mark = row
    what = f"the record of '{run_id}'"
    with sound(what):
        check(crc32(blob) == mark and number in (None, found), what)
        record = build(cls, unpack(blob))
        check(record.id == run_id, what)
        return record


# Values and log lines ----------------------------------------------------------------------------------


def value_row(run_id: str, value: bytes) -> Row:
    """Return the value of a run as a row."""
    return run_id, value, crc32(value, crc32(run_id.encode()))


def value_of(run_id: str, value: bytes, mark: int) -> bytes:
    """Return the value that a row holds."""
    try:
        fits = value_row(run_id, value)[-1] == mark
    except _WRONG as error:  # not through `sound`: there may be hundreds of thousands
        raise Unsound(f"the value of '{run_id}' cannot be read") from error
    if not fits:
        raise Unsound(f"the value of '{run_id}' is not as it was written")
    return bytes(value)


def log_row(number: int, entry: LogEntry) -> Row:
    """Return a log line as a row."""
    row = (
        number,
        float(entry.at),
        entry.flow_run_id,
        entry.task_run_id,
        entry.attempt,
        entry.level,
        storable(entry.logger),
        storable(entry.message),
        storable(entry.worker),
    )
    return (*row, crc32(repr(row).encode()))


def log_of(row: Row) -> LogEntry:
    """Return the log line that a row holds. Those of an earlier version have no mark."""
    number, *values, mark = row
    if mark is not None and crc32(repr(row[:-1]).encode()) != mark:
        raise Unsound(f"log line {number} is not as it was written")
    return LogEntry(*(*values, number))


# The catalog and the leases ----------------------------------------------------------------------------


_ENTRY_FIELDS = [field.name for field in fields(RunEntry)]


def entry_row(entry: RunEntry) -> Row:
    """Return a run as the catalog's row."""
    return (
        entry.id,
        storable(entry.name),
        storable(entry.flow_name),
        entry.created_at,
        entry.state_name,
        storable(entry.message),
        entry.changed_at,
        entry.epoch,
        holder_text(entry.holder),
        entry.heartbeat,
        json.dumps(dict(entry.details)),
    )


def entry_of(row: Row) -> RunEntry:
    """Return the run that the catalog's row, or a JSON list of the same, holds."""
    with sound("an entry of the catalog"):
        values = dict(zip(_ENTRY_FIELDS, row, strict=True))
        values["holder"] = holder_of(values["holder"])
        values["details"] = json.loads(values["details"])
        return RunEntry(**values)


def holder_text(holder: Holder | None) -> str | None:
    """Return a holder as JSON."""
    return None if holder is None else json.dumps(plain(holder))


def holder_of(text: str | None) -> Holder | None:
    """Return the holder that was written as JSON."""
    with sound("the holder"):
        return None if text is None else build(Holder, json.loads(text))
