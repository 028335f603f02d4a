"""What the engine stands on, as protocols: it knows these shapes and nothing of what is behind them.

No port speaks of files, of SQL or of a cluster framework. Times are seconds since 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dflow.core.events import Event
from dflow.core.plain import Plain
from dflow.core.records import FlowRun, TaskRun
from dflow.messages import AttemptInfo, Down, Key, LogEntry, Up, Work

# The journal -------------------------------------------------------------------------------------


class Holder(Plain, frozen=True):
    """The process that drives a run. A pid alone may be used again; with start time and boot it may not.

    `pids` names the processes among which the pid is unique, where one machine has several such groups.
    """

    pid: int
    host: str
    boot_id: str
    started_at: float
    user: str = ""
    pids: str = ""


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
class Batch:
    """What one transaction makes durable: events, the records they left, and log lines."""

    events: Sequence[Event] = ()
    task_runs: Sequence[TaskRun] = ()
    flow_runs: Sequence[FlowRun] = ()
    logs: Sequence[LogEntry] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """How many events and log lines were acknowledged, and are gone: the power failed, or a file was cut."""

    events: int = 0
    logs: int = 0

    def __bool__(self) -> bool:
        """Tell whether anything is missing."""
        return bool(self.events or self.logs)


class RunReader(Protocol):
    """The record of one root flow run, to be read; it may be growing meanwhile.

    What a call gives is as it was at the moment of the call. Any call may raise an error of `JournalError`.
    """

    def events(self, after: int = 0) -> Iterator[tuple[int, Event | None]]:
        """Yield (number, event) after a number, numbers from 1 without gaps; None for an unknown kind."""

    def task_runs(self, after: int = 0, limit: int | None = None) -> Iterator[TaskRun]:
        """Yield the task runs after the first `after`, at most `limit`, in the order of their creation."""

    def task_run(self, task_run_id: str) -> TaskRun | None:
        """Return one task run."""

    def flow_runs(self) -> Iterator[FlowRun]:
        """Yield the flow runs (the root first), in the order in which they were created."""

    def counts(self) -> dict[tuple[str, str], dict[str, int]]:
        """Return {(flow run id, task name): {state name: how many task runs}}."""

    def value(self, run_id: str) -> bytes | None:
        """Return the pickled value that its last outcome carried, while its record says that it is here."""

    def damaged_values(self) -> Sequence[str]:
        """Return the runs whose values cannot be read any more."""

    def logs(self, task_run_id: str | None = None, after: int = 0) -> Iterator[LogEntry]:
        """Yield log lines after a number, of all runs or of one task run."""

    def examine(self) -> Sequence[str]:
        """Look through all that the record is kept in; return what is wrong with it."""

    def missing(self) -> Missing:
        """Return what is known to be missing at the end; a writer tells what was when it was opened."""

    def close(self) -> None:
        """Let go of the record."""


class RunJournal(RunReader, Protocol):
    """The record of one root flow run, to be written by its one driver."""

    def append(self, batch: Batch) -> int:
        """Write a batch in one transaction; return the number of the last event.

        The value of an event (``event.value``) is kept apart: `events` gives the event back without it.
        Of several records of one run the last counts. Raises `RunTakenOver` when another epoch has begun,
        and `JournalUnavailable` when nothing was written: the same batch may be given again.
        """

    def values(self, run_ids: Iterable[str]) -> dict[str, bytes]:
        """Return what `value` gives of these runs, of those that have one."""

    def catch_up(self) -> bool:
        """Do some of what was put off; return whether there is more. Raises as `append` does."""

    def let_go(self, task_run_ids: Iterable[str]) -> list[str]:
        """Keep nothing in memory of those that are saved, and hardly asked for again; return which."""


class Catalog(Protocol):
    """All root flow runs, and who drives each. Several processes use it at once."""

    def create(self, entry: RunEntry) -> None:
        """Add a run, claimed already if it has a holder. Raises ValueError if its id is there already."""

    def claim(self, run_id: str, holder: Holder, at: float) -> int:
        """Make `holder` the driver of a run and return the new epoch.

        Raises `RunHeld` while another driver that holds it lives, `RunNotFound` for an unknown id.
        """

    def heartbeat(self, run_id: str, epoch: int, at: float) -> None:
        """Give a sign of life. Raises `RunTakenOver` if the epoch is not the present one."""

    def update(self, run_id: str, epoch: int, state_name: str, message: str, at: float) -> None:
        """Set the state that lists show. Raises `RunTakenOver` if the epoch is not the present one."""

    def end(self, run_id: str, epoch: int, state_name: str, message: str, at: float) -> None:
        """Set the last state of a run, and let go of it. Raises as `update` does."""

    def release(self, run_id: str, epoch: int) -> None:
        """Let go of a run; nothing happens if the epoch is not the present one."""

    def find(self, text: str) -> RunEntry:
        """Return the run with this id, unique start of an id, name, or the ``latest``. Else `RunNotFound`."""

    def list(self, limit: int | None = None) -> list[RunEntry]:
        """Return runs, the newest first."""

    def is_alive(self, entry: RunEntry, at: float) -> bool:
        """Tell whether a run has a driver that lives; one on another host, while its heartbeat is young."""


class Inbox(Protocol):
    """Commands to the driver of a run, from other processes."""

    def send(self, run_id: str, command: Mapping[str, Any]) -> None:
        """Leave a command (JSON-able)."""

    def receive(self, run_id: str) -> Sequence[Mapping[str, Any]]:
        """Take the commands that were left, the oldest first; each is received once."""


class Leases(Protocol):
    """Shares of limited things: each counts until it expires, is released, or its holder is seen to die."""

    def acquire(
        self,
        key: str,
        owner: str,
        seconds: float,
        at: float,
        limit: int = 1,
        holder: Holder | None = None,
    ) -> bool:
        """Take or renew a share until ``at + seconds``; False if `limit` others hold theirs.

        When the process `holder` is seen to die, others have it at once, or else when it expires.
        """

    def acquire_each(
        self,
        keys: Sequence[str],
        owner: str,
        seconds: float,
        at: float,
        limit: int = 1,
        holder: Holder | None = None,
    ) -> frozenset[str]:
        """Take a share of each key that can be had, in one transaction; return those keys."""

    def renew(self, owner: str, seconds: float, at: float) -> None:
        """Hold all shares of an owner that have not expired until ``at + seconds``."""

    def release_each(self, keys: Sequence[str], owner: str) -> None:
        """Give back the shares of these keys, in one transaction; nothing happens without one."""

    def release_all(self, owner: str) -> None:
        """Give back all shares of an owner."""

    def holders(self, key: str, at: float) -> Sequence[str]:
        """Return the owners whose shares count."""


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
        """Open the record of a run for its driver, made if need be.

        Every earlier epoch ends with it. Raises `RunTakenOver` when a later one has begun, and other
        errors of `JournalError`. One that has lost its end is opened: see `RunReader.missing`.
        """

    def read(self, run_id: str) -> RunReader:
        """Open the record of a run to look at. Raises `RunNotFound`, and errors of `JournalError`."""

    def size(self, run_id: str) -> int:
        """Return how many bytes the record of a run takes."""

    def delete(self, run_id: str, epoch: int) -> None:
        """Delete a run and its record, as its driver, who has claimed it: nobody else drives it meanwhile.

        Raises `RunTakenOver` if the epoch is not the present one, `RunNotFound` for an unknown id.
        """

    def describe(self) -> Mapping[str, str]:
        """Return what ``dflow doctor`` shows of it."""

    def close(self) -> None:
        """Let go of everything."""


# Runners and the Link ------------------------------------------------------------------------------


class Link(Protocol):
    """What an attempt has of its driver. `receive` returns None for good once the attempt has ended."""

    @property
    def address(self) -> Key:
        """The dispatch to which messages come down this link."""

    @property
    def far(self) -> bool:
        """Whether the driver is in another process."""

    def send(self, message: Up) -> None:
        """Send a message up. Does not block; messages arrive in order, each once."""

    def confirm_start(self) -> None:
        """Wait until the driver knows that this attempt has started."""

    def receive(self, timeout: float | None = None) -> Down | None:
        """Return the next message that came down, or None after `timeout` seconds or at the end."""

    @property
    def ended(self) -> bool:
        """Whether nothing will come down any more."""

    def fetch(self, key: Key) -> Any:
        """Return the value of a child that is held by the runner. Raises `MissingResult`."""

    def pack(self, call: Any) -> Any:
        """Return a child's call in the form that the driver's runner takes. Raises `SerializationError`."""

    def witness(self, error: BaseException) -> None:
        """Show the exception itself to a driver in the same process; elsewhere do nothing."""


class Host(Protocol):
    """What an open runner has of the driver of `root_id`. All methods may be called by any thread."""

    root_id: str

    def news(self, messages: Sequence[Up]) -> None:
        """Take what came up from attempts, in order. Does not block."""

    def link(self, info: AttemptInfo) -> Link:
        """Return a link for an attempt that runs in the driver's own process."""


class OpenRunner(Protocol):
    """A runner at work for one root flow run. `dispatch`, `withdraw`, `stop` and `release` do not block.

    Of every dispatch it is given it reports exactly one end: an outcome, `DispatchVoided` (its upstream
    failed, or it was withdrawn) or `WorkerLost`. An outcome is reported after its value can be fetched.
    """

    @property
    def shares_memory(self) -> bool:
        """Whether bodies run in the driver's process: nothing needs to be pickled."""

    @property
    def follows(self) -> bool:
        """Whether it takes work whose upstreams are still with it, and passes their values on by itself."""

    @property
    def runs_here(self) -> bool:
        """Whether `dispatch` runs the bodies before it returns, in the thread that calls it."""

    def pack(self, call: Any) -> Any:
        """Return a call as this runner takes it. Raises `SerializationError`, naming the parameter."""

    def dispatch(self, works: Sequence[Work]) -> None:
        """Take a group of task runs, in an order in which upstreams come first."""

    def withdraw(self, keys: Sequence[Key]) -> None:
        """Take dispatches back: those that have not started end as voided (WITHDRAWN)."""

    def stop(self, keys: Sequence[Key]) -> None:
        """Ask running bodies to stop, as far as this runner can."""

    def release(self, keys: Sequence[Key]) -> None:
        """Let go of values that nobody needs any more."""

    def fetch(self, key: Key) -> Any:
        """Return the value of a dispatch that succeeded. Raises `MissingResult` or `SerializationError`."""

    def fetch_each(self, keys: Sequence[Key]) -> Mapping[Key, Any]:
        """Return what can be fetched in one go of the values of dispatches; `fetch` gives the others."""

    def tell(self, key: Key, message: Down) -> None:
        """Send a message down to the attempt of this dispatch."""

    def apply(self, function: Callable[[Any], Any], key: Key) -> Any:
        """Return what a function makes of a value, where that is. Raises what it raises, `MissingResult`."""

    def each_host(self, function: Callable[..., Any], *args: Any) -> Mapping[str, Any]:
        """Call a function in a process of each other host of bodies; return what came of it by host."""

    def close(self) -> None:
        """End the work for this flow run: nothing of it is left with the runner."""


class TaskRunner(Protocol):
    """Where attempts run: a description, that can be opened for any number of flow runs. Equal ones share."""

    def open(self, host: Host) -> OpenRunner:
        """Start to work for a flow run, starting whatever is needed. Raises `ClusterError`."""

    def shutdown(self) -> None:
        """Let go of everything that open runners equal to this one have shared."""

    def describe(self) -> Mapping[str, Any]:
        """Return the kind and the settings, JSON-able, as the journal records them."""


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
