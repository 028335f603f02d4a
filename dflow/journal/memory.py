"""A journal in memory: for tests, and for runs whose record nobody will miss.

It behaves as `SqliteJournal` does, for as long as its process lives. One suite of tests holds the
two to the same behaviour.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from msgspec import structs

from dflow.core.codec import KINDS
from dflow.core.events import Event
from dflow.core.records import FlowRun, TaskRun
from dflow.errors import JournalUnavailable
from dflow.journal.holding import (
    Probe,
    ambiguous,
    held,
    known_dead,
    lives,
    no_record,
    not_found,
    taken_over,
)
from dflow.messages import LogEntry
from dflow.ports import Batch, Holder, Missing, RunEntry


@dataclass(slots=True)
class _Record:
    """What is kept of one root flow run."""

    epoch: int = 0
    events: list[Event] = field(default_factory=list)
    task_runs: dict[str, TaskRun] = field(default_factory=dict)
    flow_runs: dict[str, FlowRun] = field(default_factory=dict)
    values: dict[str, bytes] = field(default_factory=dict)
    logs: list[LogEntry] = field(default_factory=list)


class MemoryRunReader:
    """The record of one run, to be read."""

    def __init__(self, record: _Record, lock: threading.RLock) -> None:
        self._kept: _Record | None = record
        self._lock = lock

    @property
    def _record(self) -> _Record:
        if self._kept is None:
            raise JournalUnavailable("This record of a run has been closed. Open it again.")
        return self._kept

    def events(self, after: int = 0) -> Iterator[tuple[int, Event | None]]:
        """Yield (number, event) after a number; None for an unknown kind."""
        with self._lock:
            later = self._record.events[after:]
        known = (event if type(event).__name__ in KINDS else None for event in later)
        return zip(count(after + 1), known, strict=False)

    def task_runs(self, after: int = 0, limit: int | None = None) -> Iterator[TaskRun]:
        """Yield the task runs after the first `after`, at most `limit`."""
        with self._lock:
            return iter(list(self._record.task_runs.values())[after:][:limit])

    def task_run(self, task_run_id: str) -> TaskRun | None:
        """Return one task run."""
        return self._record.task_runs.get(task_run_id)

    def flow_runs(self) -> Iterator[FlowRun]:
        """Yield the flow runs, in the order in which they were created."""
        with self._lock:
            return iter(list(self._record.flow_runs.values()))

    def counts(self) -> dict[tuple[str, str], dict[str, int]]:
        """Return {(flow run id, task name): {state name: how many task runs}}."""
        groups: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for run in self.task_runs():
            groups[run.flow_run_id, run.task_name][run.state_name] += 1
        return {group: dict(states) for group, states in groups.items()}

    def value(self, run_id: str) -> bytes | None:
        """Return the pickled value of a task run or flow run, if it is kept."""
        return self._record.values.get(run_id)

    def values(self, run_ids: Iterable[str]) -> dict[str, bytes]:
        """Return the pickled values of these runs, of those that have one."""
        kept = self._record.values
        return {run_id: kept[run_id] for run_id in run_ids if run_id in kept}

    def damaged_values(self) -> Sequence[str]:
        """Return nothing: memory is not damaged."""
        return []

    def logs(self, task_run_id: str | None = None, after: int = 0) -> Iterator[LogEntry]:
        """Yield log lines after a number, of all runs or of one task run."""
        with self._lock:
            later = self._record.logs[after:]
        return (e for e in later if task_run_id is None or e.task_run_id == task_run_id)

    def examine(self) -> Sequence[str]:
        """Return that nothing is wrong."""
        return ()

    def missing(self) -> Missing:
        """Return that nothing is missing."""
        return Missing()

    def close(self) -> None:
        """Let go of the record."""
        self._kept = None


class MemoryRunJournal(MemoryRunReader):
    """The record of one run, to be written by the driver of one epoch."""

    def __init__(self, run_id: str, record: _Record, epoch: int, lock: threading.RLock) -> None:
        super().__init__(record, lock)
        self._run_id, self._epoch = run_id, epoch

    def append(self, batch: Batch) -> int:
        """Write a batch; return the number of the last event."""
        with self._lock:
            record = self._record
            if record.epoch != self._epoch:
                raise taken_over(self._run_id, self._epoch)
            for event in batch.events:
                record.events.append(self._without_value(event))
            record.task_runs.update((run.id, run) for run in batch.task_runs)
            record.flow_runs.update((run.id, run) for run in batch.flow_runs)
            numbers = count(len(record.logs) + 1)
            record.logs.extend(replace(entry, number=next(numbers)) for entry in batch.logs)
            return len(record.events)

    def let_go(self, task_run_ids: Iterable[str]) -> list[str]:
        """Keep them, as nothing else has them; their driver need not."""
        return list(task_run_ids)

    def catch_up(self) -> bool:
        """Nothing is ever put off."""
        return False

    def _without_value(self, event: Any) -> Event:
        """Keep the value that the event carries apart, in place of an earlier one."""
        if not hasattr(event, "value"):
            return event  # type: ignore[no-any-return]  # narrowed by its kind
        owner = getattr(event, "task_run_id", None) or event.flow_run_id
        self._record.values.pop(owner, None)
        if event.value is None:
            return event  # type: ignore[no-any-return]  # narrowed by its kind
        self._record.values[owner] = event.value
        return structs.replace(event, value=None)  # type: ignore[no-any-return]  # narrowed by its kind


class MemoryCatalog:
    """All runs, and who drives each."""

    def __init__(self, probe: Probe, lock: threading.RLock) -> None:
        self._probe, self._lock = probe, lock
        self._entries: dict[str, RunEntry] = {}

    def create(self, entry: RunEntry) -> None:
        """Add a run."""
        kept = replace(entry, details=json.loads(json.dumps(dict(entry.details))))
        with self._lock:
            if entry.id in self._entries:
                raise ValueError(f"There is a run with the id '{entry.id}' already.")
            self._entries[entry.id] = kept

    def claim(self, run_id: str, holder: Holder, at: float) -> int:
        """Make `holder` the driver of a run and return the new epoch."""
        with self._lock:
            entry = self._entries.get(run_id)
            if entry is None:
                raise not_found(run_id)
            if lives(entry, self._probe, at):
                raise held(entry)
            epoch = entry.epoch + 1
            self._entries[run_id] = replace(entry, epoch=epoch, holder=holder, heartbeat=at)
            return epoch

    def heartbeat(self, run_id: str, epoch: int, at: float) -> None:
        """Give a sign of life."""
        self._change(run_id, epoch, heartbeat=at)

    def update(self, run_id: str, epoch: int, state_name: str, message: str, at: float) -> None:
        """Set the state that lists show."""
        self._change(run_id, epoch, state_name=state_name, message=message, changed_at=at)

    def end(self, run_id: str, epoch: int, state_name: str, message: str, at: float) -> None:
        """Set the last state of a run, and let go of it."""
        changes = {"state_name": state_name, "message": message, "changed_at": at, "holder": None}
        self._change(run_id, epoch, **changes)

    def _change(self, run_id: str, epoch: int, **changes: Any) -> None:
        with self._lock:
            entry = self._entries.get(run_id)
            if entry is None or entry.epoch != epoch:
                raise taken_over(run_id, epoch)
            self._entries[run_id] = replace(entry, **changes)

    def release(self, run_id: str, epoch: int) -> None:
        """Let go of a run."""
        with self._lock:
            entry = self._entries.get(run_id)
            if entry is not None and entry.epoch == epoch:
                self._entries[run_id] = replace(entry, holder=None)

    def find(self, text: str) -> RunEntry:
        """Return the run that `text` names."""
        entries = self.list()
        if text == "latest" and entries:
            return entries[0]
        for fits in (
            [e for e in entries if e.id == text],
            [e for e in entries if e.name == text],
            [e for e in entries if text and e.id.startswith(text)],
        ):
            if len(fits) > 1:
                raise ambiguous(text, [e.id for e in fits])
            if fits:
                return fits[0]
        raise not_found(text)

    def list(self, limit: int | None = None) -> list[RunEntry]:
        """Return runs, the newest first."""
        with self._lock:
            entries = list(self._entries.values())
        return sorted(entries, key=lambda e: (e.created_at, e.id), reverse=True)[:limit]

    def is_alive(self, entry: RunEntry, at: float) -> bool:
        """Tell whether a run has a driver that lives."""
        return lives(entry, self._probe, at)

    def drop(self, run_id: str, epoch: int) -> None:
        """Take a run off the list, for its driver."""
        with self._lock:
            if run_id in self._entries:
                self._change(run_id, epoch)
                del self._entries[run_id]


class MemoryInbox:
    """Commands to the drivers of runs."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._commands: dict[str, list[str]] = {}

    def send(self, run_id: str, command: Mapping[str, Any]) -> None:
        """Leave a command."""
        text = json.dumps(dict(command))
        with self._lock:
            self._commands.setdefault(run_id, []).append(text)

    def receive(self, run_id: str) -> Sequence[Mapping[str, Any]]:
        """Take the commands that were left, the oldest first."""
        with self._lock:
            return [json.loads(text) for text in self._commands.pop(run_id, [])]


@dataclass(frozen=True, slots=True)
class _Share:
    """Until when a share is held, and by which process."""

    until: float
    holder: Holder | None


class MemoryLeases:
    """Shares of limited things."""

    def __init__(self, probe: Probe, lock: threading.RLock) -> None:
        self._probe, self._lock = probe, lock
        self._shares: defaultdict[str, dict[str, _Share]] = defaultdict(dict)

    def acquire(
        self,
        key: str,
        owner: str,
        seconds: float,
        at: float,
        limit: int = 1,
        holder: Holder | None = None,
    ) -> bool:
        """Take or renew a share until ``at + seconds``."""
        with self._lock:
            others = [other for other in self.holders(key, at) if other != owner]
            if len(others) >= limit:
                return False
            self._shares[key][owner] = _Share(at + seconds, holder)
            return True

    def acquire_each(
        self,
        keys: Sequence[str],
        owner: str,
        seconds: float,
        at: float,
        limit: int = 1,
        holder: Holder | None = None,
    ) -> frozenset[str]:
        """Take a share of each key that can be had; return those keys."""
        with self._lock:
            return frozenset(
                key for key in keys if self.acquire(key, owner, seconds, at, limit, holder)
            )

    def renew(self, owner: str, seconds: float, at: float) -> None:
        """Hold all shares of an owner that have not expired until ``at + seconds``."""
        with self._lock:
            for shares in self._shares.values():
                if owner in shares and shares[owner].until > at:
                    shares[owner] = replace(shares[owner], until=at + seconds)

    def release_each(self, keys: Sequence[str], owner: str) -> None:
        """Give back the shares of these keys."""
        with self._lock:
            for key in keys:
                self._shares[key].pop(owner, None)

    def release_all(self, owner: str) -> None:
        """Give back all shares of an owner."""
        with self._lock:
            for shares in self._shares.values():
                shares.pop(owner, None)

    def holders(self, key: str, at: float) -> Sequence[str]:
        """Return the owners whose shares count."""
        with self._lock:
            return sorted(
                owner
                for owner, share in self._shares[key].items()
                if share.until > at and not known_dead(share.holder, self._probe)
            )


class MemoryJournal:
    """A journal that lives and dies with its process.

    `is_alive` tells whether the process that holds a run lives, or None where it cannot tell.
    """

    def __init__(self, *, is_alive: Probe) -> None:
        self._lock = threading.RLock()
        self._records: dict[str, _Record] = {}
        self.catalog = MemoryCatalog(is_alive, self._lock)
        self.inbox = MemoryInbox(self._lock)
        self.leases = MemoryLeases(is_alive, self._lock)

    def write(self, run_id: str, epoch: int) -> MemoryRunJournal:
        """Open the record of a run for its driver, made if need be."""
        with self._lock:
            record = self._records.setdefault(run_id, _Record())
            if record.epoch > epoch:
                raise taken_over(run_id, epoch)
            record.epoch = epoch
            return MemoryRunJournal(run_id, record, epoch, self._lock)

    def read(self, run_id: str) -> MemoryRunReader:
        """Open the record of a run to look at."""
        with self._lock:
            if run_id not in self._records:
                raise no_record(run_id)
            return MemoryRunReader(self._records[run_id], self._lock)

    def size(self, run_id: str) -> int:
        """Return how many bytes the values of a run take; the rest is not counted."""
        with self._lock:
            record = self._records.get(run_id, _Record())
            return sum(map(len, record.values.values()))

    def delete(self, run_id: str, epoch: int) -> None:
        """Delete a run and its record, as its driver."""
        with self._lock:
            known = {entry.id for entry in self.catalog.list()} | set(self._records)
            if run_id not in known:
                raise not_found(run_id)
            self.catalog.drop(run_id, epoch)
            self._records.pop(run_id, None)
            self.inbox.receive(run_id)

    def describe(self) -> Mapping[str, str]:
        """Return what ``dflow doctor`` shows of it."""
        return {"journal": "in memory: it ends with this process"}

    def close(self) -> None:
        """Let go of everything; what was recorded stays until the process ends."""
