"""What the engine stands on, as protocols: it knows these shapes and nothing of what is behind them.

No port speaks of files, of SQL or of a cluster framework. Times are seconds since 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dflow.core.events import Event
from dflow.core.records import FlowRun, TaskRun

# The journal -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that drives a run. A pid alone may be used again; with start time and boot it may not."""

    pid: int
    host: str
    boot_id: str
    started_at: float
    user: str = ""


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A root flow run, as the catalog lists it.

    `details` holds what is needed to run it again and to explain it (entrypoint, parameters, versions,
    git state, trigger, tags, …), as JSON-able data. `holder` is the driver that claimed it, `epoch` how
    often it was claimed, `heartbeat` when its driver last gave a sign.
    """

    id: str
    name: str
    flow_name: str
    created_at: float
    state_name: str = "Pending"
    message: str = ""
    changed_at: float = 0.0
    epoch: int = 0
    holder: Holder | None = None
    heartbeat: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that a run said. `level` is that of the logging module (10 … 50)."""

    at: float
    flow_run_id: str
    task_run_id: str | None
    attempt: int
    level: int
    logger: str
    message: str
    worker: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction makes durable: events, the records they left, and log lines."""

    events: Sequence[Event] = ()
    task_runs: Sequence[TaskRun] = ()
    flow_runs: Sequence[FlowRun] = ()
    logs: Sequence[LogEntry] = ()


class RunReader(Protocol):
    """The record of one root flow run, to be read; it may be growing meanwhile."""

    def events(self, after: int = 0) -> Iterator[tuple[int, Event | None]]:
        """Yield (number, event) after a number, numbers from 1 without gaps; None for an unknown kind."""

    def task_runs(self) -> Iterator[TaskRun]:
        """Yield the task runs, in the order in which they were created."""

    def task_run(self, task_run_id: str) -> TaskRun | None:
        """Return one task run."""

    def flow_runs(self) -> Iterator[FlowRun]:
        """Yield the flow runs (the root first), in the order in which they were created."""

    def counts(self) -> dict[tuple[str, str], dict[str, int]]:
        """Return {(flow run id, task name): {state name: how many task runs}}."""

    def value(self, run_id: str) -> bytes | None:
        """Return the pickled value of a task run or flow run, if the journal keeps it."""

    def logs(self, task_run_id: str | None = None, after: int = 0) -> Iterator[LogEntry]:
        """Yield log lines after a number, of all runs or of one task run."""

    def close(self) -> None:
        """Let go of the record."""


class RunJournal(RunReader, Protocol):
    """The record of one root flow run, to be written by its one driver."""

    def append(self, batch: Batch) -> int:
        """Write a batch in one transaction; return the number of the last event.

        The value of an event (``event.value``) is kept apart: `events` gives the event back without it.
        Raises `RunTakenOver` when another epoch has begun and `JournalUnavailable` when nothing was written.
        """


class Catalog(Protocol):
    """All root flow runs, and who drives each. Several processes use it at once."""

    def create(self, entry: RunEntry) -> None:
        """Add a run. Raises ValueError if its id is there already."""

    def claim(self, run_id: str, holder: Holder, at: float) -> int:
        """Make `holder` the driver of a run and return the new epoch.

        Raises `RunHeld` while another driver that holds it lives, `RunNotFound` for an unknown id.
        """

    def heartbeat(self, run_id: str, epoch: int, at: float) -> None:
        """Give a sign of life. Raises `RunTakenOver` if the epoch is not the present one."""

    def update(self, run_id: str, epoch: int, state_name: str, message: str, at: float) -> None:
        """Set the state that lists show. Raises `RunTakenOver` if the epoch is not the present one."""

    def release(self, run_id: str, epoch: int) -> None:
        """Let go of a run; nothing happens if the epoch is not the present one."""

    def find(self, text: str) -> RunEntry:
        """Return the run with this id, this unique start of an id, this name, or the ``latest``.

        Raises `RunNotFound` when none or several fit; its message says which.
        """

    def list(self, limit: int | None = None) -> list[RunEntry]:
        """Return runs, the newest first."""

    def is_alive(self, entry: RunEntry) -> bool:
        """Tell whether a run has a driver that lives."""


class Inbox(Protocol):
    """Commands to the driver of a run, from other processes."""

    def send(self, run_id: str, command: Mapping[str, Any]) -> None:
        """Leave a command (JSON-able)."""

    def receive(self, run_id: str) -> Sequence[Mapping[str, Any]]:
        """Take the commands that were left, the oldest first; each is received once."""


class Leases(Protocol):
    """Shares of something limited, held for a time: concurrency limits, keys of a cache."""

    def acquire(self, key: str, owner: str, seconds: float, at: float, limit: int = 1) -> bool:
        """Take a share until ``at + seconds``, or return False if `limit` others hold theirs.

        An owner that has a share already renews it.
        """

    def release(self, key: str, owner: str) -> None:
        """Give a share back; nothing happens without one."""

    def holders(self, key: str, at: float) -> Sequence[str]:
        """Return the owners whose shares have not expired."""


class Journal(Protocol):
    """The durable record as a whole."""

    @property
    def catalog(self) -> Catalog:
        """All runs."""

    @property
    def inbox(self) -> Inbox:
        """Commands to drivers."""

    @property
    def leases(self) -> Leases:
        """Shares of limited things."""

    def write(self, run_id: str, epoch: int) -> RunJournal:
        """Open the record of a run for its driver, made if need be. Raises errors of `JournalError`."""

    def read(self, run_id: str) -> RunReader:
        """Open the record of a run to look at. Raises errors of `JournalError`."""

    def delete(self, run_id: str) -> None:
        """Delete a run and its record. Raises `RunHeld` while it has a driver that lives."""

    def describe(self) -> Mapping[str, str]:
        """Return what ``dflow doctor`` shows of it."""

    def close(self) -> None:
        """Let go of everything."""


# Clock and luck ------------------------------------------------------------------------------------


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards, from some start."""


class Ids(Protocol):
    """Where luck comes from."""

    def run_id(self) -> str:
        """Return an id that no other run has, and that sorts by time."""

    def run_name(self) -> str:
        """Return a name that people can remember."""

    def luck(self) -> float:
        """Return a number in [0, 1)."""
