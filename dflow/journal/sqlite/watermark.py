"""The watermark: how far a record has been written, kept beside its file.

A write-ahead log that is deleted, or cut where a transaction ends, leaves an earlier state that is whole
in itself: SQLite cannot see that there was more. The watermark can. Its writer sets it after each commit,
so it is never above what was written; below it may be, after a kill between the two. One that is missing,
or does not fit its check sum, says nothing. It is one line of text, always of the same length.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from msgspec import Struct

from dflow.ports import Missing

LOG = logging.getLogger(__name__)

_LINE = "dflow watermark 1, epoch {:020d}, event {:020d}, log line {:020d}, check {:08x}\n"
_LENGTH = len(_LINE.format(0, 0, 0, 0))
_NUMBERS = re.compile(rb"dflow watermark 1, epoch (\d+), event (\d+), log line (\d+), check .*\n")


class Level(Struct, frozen=True):
    """How far a record has been written: in which epoch, up to which event and log line."""

    epoch: int = 0
    events: int = 0
    logs: int = 0

    def above(self, found: Level) -> Missing:
        """Return what was written up to this level, and is not in a record that ends where `found` says."""
        return Missing(max(0, self.events - found.events), max(0, self.logs - found.logs))


def beside(record: Path) -> Path:
    """Return where the watermark of a record is."""
    return record.with_name("watermark")


def level_of(record: Path) -> Level:
    """Return the level that the watermark of a record tells; zeros if there is none that does."""
    line = b""
    with suppress(OSError):  # one that is missing, or kept from us, says nothing
        handle = os.open(beside(record), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            line = os.read(handle, _LENGTH + 1)
        finally:
            os.close(handle)
    found = _NUMBERS.fullmatch(line)
    level = Level(*map(int, found.groups())) if found else Level()
    return level if line == _line(record.parent.name, level) else Level()


def _line(run_id: str, level: Level) -> bytes:
    numbers = level.epoch, level.events, level.logs
    return _LINE.format(*numbers, crc32(repr((run_id, *numbers)).encode())).encode()


class Watermark:
    """The watermark of a record, for its one writer. With `sync` each level survives a power cut.

    While it cannot be written, the record goes on without it, with a warning.
    """

    def __init__(self, record: Path, *, sync: bool) -> None:
        self._record, self._run_id, self._sync = record, record.parent.name, sync
        self._warned = False
        self._handle: int | None = None

    def set(self, level: Level) -> None:
        """Say how far the record has been written."""
        try:
            if self._handle is None:
                self._handle = _opened(beside(self._record))
            os.pwrite(self._handle, _line(self._run_id, level), 0)
            if self._sync:
                os.fsync(self._handle)
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        """Let go of the file."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            LOG.warning(
                "'%s' cannot be written: %s. The run goes on; should its record be cut, nobody may notice.",
                beside(self._record),
                error.strerror or error,
            )


def _opened(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        os.fchmod(handle, 0o600)
        os.ftruncate(handle, _LENGTH)
    except OSError:
        os.close(handle)
        raise
    return handle
