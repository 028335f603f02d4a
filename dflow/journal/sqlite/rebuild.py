"""The catalog from the records of the runs, for a home whose catalog was lost."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dflow.core.records import FlowRun, FlowStage
from dflow.errors import JournalError
from dflow.journal.sqlite.rows import page_of
from dflow.journal.sqlite.run_reader import SQL, head, kept_entry, open_to_read
from dflow.journal.sqlite.watermark import level_of
from dflow.ports import RunEntry

LOG = logging.getLogger(__name__)

RECORDS = "*/journal.sqlite"
"""Where the records are, below the folder of runs."""


def recorded(runs: Path) -> Iterator[RunEntry]:
    """Yield the runs that have a record below the folder `runs`; one that cannot be read is left out."""
    for path in sorted(runs.glob(RECORDS)):
        try:
            entry = _entry(path)
        except JournalError as error:
            LOG.warning("A run is missing in the catalog that was rebuilt. %s", error)
        else:
            if entry is not None:
                yield entry


def _entry(path: Path) -> RunEntry | None:
    """Return a run as its record tells of it; None if that tells nothing yet."""
    reader = open_to_read(path)
    try:
        entry, epoch, heard = reader.look(_facts)
        root = next(reader.flow_runs(), None)
    finally:
        reader.close()
    if entry is None and root is not None:
        entry = RunEntry(root.id, root.name, root.flow_name, root.created_at)
    if entry is None:
        return None
    epoch = max(epoch, level_of(path).epoch)  # the file may have lost the beginning of an epoch
    entry = replace(entry, epoch=epoch, heartbeat=max(entry.heartbeat, heard))
    return entry if root is None else _as_it_stands(entry, root)


def _facts(db: sqlite3.Connection) -> tuple[RunEntry | None, int, float]:
    return kept_entry(db), head(db).epoch, _last_heard(db)


def _last_heard(db: sqlite3.Connection) -> float:
    """Return when the last event was."""
    page = db.execute(SQL["last_page"]).fetchone()
    if page is not None:
        return max((event.at for _, event in page_of(page) if event is not None), default=0.0)
    row = db.execute(SQL["last_event_at"]).fetchone()
    return float(row[0]) if row else 0.0


def _as_it_stands(entry: RunEntry, root: FlowRun) -> RunEntry:
    """Return the entry with the state of the run, whose driver has let go of it once that is final."""
    let_go = root.stage.final or root.stage is FlowStage.INTERRUPTED
    return replace(
        entry,
        holder=None if let_go else entry.holder,
        state_name=root.state_name,
        message=root.message,
        changed_at=root.changed_at,
    )
