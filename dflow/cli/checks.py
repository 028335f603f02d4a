"""What ``dflow doctor RUN`` checks in the record of a run, one function each.

Each takes the record and yields a sentence for every fault that it finds. There is a list of them, `CHECKS`,
in which further ones find their place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from dflow.cli import text
from dflow.cli.show import lacks
from dflow.core import invariants
from dflow.core.events import Event
from dflow.core.records import FlowRun, Held, TaskRun
from dflow.core.replay import Table
from dflow.errors import JournalError, ResultStoreError
from dflow.ports import RunReader
from dflow.results import files

TRIES = 5
"""How often the record of a run that grows meanwhile is read."""
GROUPS = 5
"""How many groups of task runs that are counted wrongly are named."""

Counts = dict[tuple[str, str], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Examined:
    """The record of a run `name`, with what was read of it at once.

    `table` and `counts` are None if it grows faster than it can be read. With `deep` the files of stored
    results are read, too.
    """

    name: str
    reader: RunReader
    numbered: Sequence[tuple[int, Event | None]]
    table: Table | None
    counts: Counts | None
    deep: bool = False


def check(reader: RunReader, name: str = "", *, deep: bool = False) -> tuple[int, list[str]]:
    """Return the number of events of a record, and what is wrong with it; `deep` reads stored results too."""
    checks = CHECKS
    try:
        record = replace(_read(reader, name), deep=deep)
    except JournalError as error:
        record = Examined(name, reader, (), None, None)
        checks = (unread(error), *BESIDE)
    broken = chain.from_iterable(_told(check, record) for check in checks)
    return len(record.numbered), list(dict.fromkeys(broken))


def _read(reader: RunReader, name: str) -> Examined:
    for _ in range(TRIES):
        numbered = list(reader.events())
        table = Table()
        table.flow_runs.update((run.id, run) for run in reader.flow_runs())
        table.task_runs.update((run.id, run) for run in reader.task_runs())
        counts = reader.counts()
        if not any(True for _ in reader.events(len(numbered))):
            return Examined(name, reader, numbered, table, counts)
    return Examined(name, reader, numbered, None, None)


Check = Callable[[Examined], Iterator[str]]


def _told(check: Check, record: Examined) -> Iterator[str]:
    try:
        yield from check(record)
    except JournalError as error:
        yield str(error)


# The checks --------------------------------------------------------------------------------------------


def unread(error: JournalError) -> Check:
    """Return the check that tells why a record cannot be read."""
    return lambda record: iter([str(error)])


def files_are_whole(record: Examined) -> Iterator[str]:
    """Look at what the record is kept in."""
    yield from record.reader.examine()


def nothing_is_missing(record: Examined) -> Iterator[str]:
    """Look for events and log lines that were acknowledged and are gone."""
    if missing := record.reader.missing():
        yield lacks(record.name, missing)


def invariants_hold(record: Examined) -> Iterator[str]:
    """Look whether the events and the records are such as dflow promises."""
    yield from invariants.numbers_without_gaps(record.numbered)
    events = [event for _, event in record.numbered if event is not None]
    unknown = len(record.numbered) - len(events)
    if unknown:
        yield (
            f"{text.several(unknown, 'event')} of {len(record.numbered)} are of a kind that this dflow does "
            "not know: the record cannot be checked. Install the dflow that wrote it."
        )
    else:
        yield from invariants.check(events, record.table)


def counts_agree(record: Examined) -> Iterator[str]:
    """Look whether the task runs are as many as are counted, in each state."""
    if record.table is None or record.counts is None:
        return
    groups: dict[tuple[str, str], Counter[str]] = {}
    for run in record.table.task_runs.values():
        groups.setdefault((run.flow_run_id, run.task_name), Counter())[run.state_name] += 1
    wrong = [
        group for group in groups | record.counts if groups.get(group) != record.counts.get(group)
    ]
    for _, task_name in wrong[:GROUPS]:
        yield f"The task runs of '{text.name(task_name)}' are not as many as are counted."


def values_are_kept(record: Examined) -> Iterator[str]:
    """Look whether the journal has each value that it is said to have."""
    if record.table is None:
        return
    runs: list[FlowRun | TaskRun] = [
        *record.table.flow_runs.values(),
        *record.table.task_runs.values(),
    ]
    for run in runs:
        if run.held is Held.JOURNAL and record.reader.value(run.id) is None:
            now = record.reader.task_run(run.id)  # it may have gone on meanwhile
            if now is None or now.held is Held.JOURNAL:
                yield f"The value of '{text.name(run.name)}' ({run.id}) is said to be kept, and is not there."


def results_are_there(record: Examined) -> Iterator[str]:
    """Look whether result stores have each value that they should; if `deep`, also what is in it."""
    if record.table is None:
        return
    runs: list[FlowRun | TaskRun] = [
        *record.table.flow_runs.values(),
        *record.table.task_runs.values(),
    ]
    stored = {run.id: run for run in runs if run.held is Held.STORED and run.stored is not None}
    try:
        kept = {run.id: run.stored for run in stored.values() if run.stored is not None}
        looked_at = kept if record.deep else files.gone(kept)
        for run_id in looked_at:
            fault = files.fault(kept[run_id], deep=record.deep)
            now = record.reader.task_run(run_id)  # it may have gone on meanwhile
            if fault is not None and (now is None or now.stored == kept[run_id]):
                yield f"The value of '{text.name(stored[run_id].name)}' ({run_id}) cannot be had: {fault}"
    except ResultStoreError as error:
        yield str(error)


def log_is_whole(record: Examined) -> Iterator[str]:
    """Read all log lines: those that are damaged or missing show."""
    for _ in record.reader.logs():
        pass
    yield from ()


BESIDE: tuple[Check, ...] = (files_are_whole, nothing_is_missing, log_is_whole)
"""What can be checked without the events."""
CHECKS: tuple[Check, ...] = (
    *BESIDE,
    invariants_hold,
    counts_agree,
    values_are_kept,
    results_are_there,
)
"""All checks, in the order in which their faults are told."""
