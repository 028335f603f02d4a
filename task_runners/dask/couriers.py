"""The two ways of getting bodies to a worker: as bytes, or, in this process, as they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from dask.task_spec import TaskRef

from dflow.attempts import body
from dflow.attempts.packing import Packer
from dflow.attempts.rows import LONG, Row
from dflow.core.events import AttemptSucceeded, Outcome
from dflow.messages import Along, AtRunner, Key, Work
from dflow.ports import Host, Link
from dflow.results.pickling import dumps
from task_runners.dask import execution
from task_runners.dask.carried import BodyFailed, TakenBack
from task_runners.dask.connection import Connection
from task_runners.dask.encoding import Encoder, kept_by
from task_runners.dask.graph import Draft, Parts
from task_runners.dask.internals import own_variables
from task_runners.dask.parcels import DaskKey, Entry, Parcel
from task_runners.dask.places import Place
from task_runners.dask.running import Running, end_watch
from task_runners.dask.shelf import Shelf
from task_runners.values import Asked, Read, asked_here, missing


class Courier(Protocol):
    """Gets bodies to workers."""

    def pack(self, call: Any) -> Any:
        """Return a call in the form in which it goes. Raises `SerializationError`."""

    def size(self, call: Any) -> int:
        """Return about how many bytes of a call travel."""

    def draft(self, draft: Draft, parcel: Parcel, patience: float) -> None:
        """Add a parcel to a graph."""

    def submitted(self, draft: Draft) -> None:
        """Note that a graph is with Dask."""

    def withdraw(self, tickets: Sequence[int]) -> None:
        """See to it that dispatches that have not begun never do, and that the book hears which."""

    def fetch(self, entry: Entry) -> Any:
        """Return a value. Raises whatever goes wrong."""

    def drop(self, parcel: Parcel) -> None:
        """Drop what is kept for a parcel."""

    def forget(self, entry: Entry) -> None:
        """Drop what is kept for a dispatch that is over and done with."""

    def close(self) -> None:
        """End what runs beside the bodies."""


class Travelling:
    """Bodies go to other processes."""

    def __init__(self, connection: Connection) -> None:
        run, script_there = connection.run, connection.cluster.script_there
        self._connection = connection
        self._packer = Packer(connection.cluster.importable, script_there)
        self._encoder = Encoder(
            run, script_there, lambda value: dumps(value, script_by_reference=script_there)
        )
        self._parts = Parts(run, connection)
        self._shelf = Shelf(run, connection)

    def pack(self, call: Any) -> Any:
        """Return a call as bytes."""
        return self._packer.pack(call)

    def size(self, call: Any) -> int:
        """Return how many bytes its arguments have."""
        return len(call.arguments)

    def draft(self, draft: Draft, parcel: Parcel, patience: float) -> None:
        """Add a parcel with its payload."""
        encoding = self._encoder.begin(parcel, patience)
        for entry in parcel.entries:
            work = entry.work
            if work is None:
                continue
            on_shelf: dict[str, DaskKey] = {}
            if work.inputs:
                for name, kept in kept_by(entry, work).items():
                    key = self._shelf.refer(kept, draft)
                    if key is not None:
                        on_shelf[name] = key
            encoding.add(entry, work, on_shelf)
        payload, parts, keys = encoding.done()
        beside = [self._parts.refer(part, draft) for part in parts]
        draft.add(parcel, execution.execute, payload, *beside, *map(TaskRef, keys))

    def submitted(self, draft: Draft) -> None:
        """Hold the large parts of the graph, and the values from stores, on the cluster."""
        self._parts.hold(draft)
        self._shelf.hold(draft)

    def withdraw(self, tickets: Sequence[int]) -> None:
        """Ask the workers."""
        self._connection.withdraw(tickets)

    def fetch(self, entry: Entry) -> Any:
        """Get a value from the cluster: alone, where others lie with it."""
        parcel = entry.parcel
        if parcel is None:
            raise missing(entry.key)
        if parcel.sole:
            return self._connection.gather(parcel.dask_key).value
        return self._connection.apply(_itself, parcel.dask_key, entry.key[0])

    def drop(self, parcel: Parcel) -> None:
        """Do nothing: all is with Dask."""

    def forget(self, entry: Entry) -> None:
        """Do nothing: all is with Dask."""

    def close(self) -> None:
        """Do nothing: all is with Dask."""


def _itself(value: Any) -> Any:
    return value


class InMemory:
    """Bodies run on a cluster in this process: nothing is pickled, and the engine's own links are used.

    `told` is called with (ticket, worker, rows) by the threads of the workers, `taken_back` with tickets.
    Values stay here.
    """

    def __init__(
        self,
        host: Host,
        told: Callable[[int, str, list[Row]], None],
        taken_back: Callable[[Sequence[int]], None],
    ) -> None:
        self._host = host
        self._told = told
        self._taken_back = taken_back
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._values: dict[Key, Any] = {}
        self._read = Read()

    def pack(self, call: Any) -> Asked:
        """Return the call, with the context in which it was made."""
        return asked_here(call)

    def size(self, call: Any) -> int:  # noqa: ARG002  (of the protocol)
        """Nothing travels."""
        return 0

    def draft(self, draft: Draft, parcel: Parcel, patience: float) -> None:
        """Add a parcel; what is to be run stays here."""
        works = [(entry.ticket, entry.work) for entry in parcel.entries if entry.work is not None]
        sources = [source for entry in parcel.entries for source in entry.sources]
        before = {
            source.parcel.dask_key: None
            for source in sources
            if not source.ended and source.parcel not in (None, parcel)
        }
        with self._lock:
            self._waiting.update(ticket for ticket, _ in works)
        execution.put(parcel.ticket, partial(self._run, parcel.ticket, works, patience))
        draft.add(parcel, execution.execute_here, parcel.ticket, *map(TaskRef, before))

    def _run(
        self, ticket: int, works: Sequence[tuple[int, Work]], patience: float, place: Place
    ) -> None:
        """Run a parcel, in a thread of a worker. Raises `BodyFailed` if its only body did not return."""
        worker = threading.current_thread().name
        running = Running(len(works), partial(self._tell, ticket, worker), patience)
        outcome: Outcome | None = None
        for turn in running.items():
            number, work = works[turn]
            with self._lock:
                begins = number in self._waiting
                self._waiting.discard(number)
            if not begins:
                running.ended((turn,))
            elif len(works) == 1 or self._has_all(work):
                begun = partial(self._told, ticket, worker, [(turn, LONG)])
                running.begins(_Start(begun))
                outcome = self._attempt(work, running, place)
                running.ended((turn, outcome))
            if place.left:
                running.give_back()
        if len(works) == 1:
            _settle(ticket, works[0][1], outcome)

    def _tell(self, ticket: int, worker: str, rows: list[Row], at_once: bool) -> None:  # noqa: ARG002  (of `Running`)
        self._told(ticket, worker, rows)

    def _has_all(self, work: Work) -> bool:
        """Tell whether what a work depends on has come to something."""
        given = work.inputs.values()
        return all(not isinstance(g, AtRunner) or g.key in self._values for g in given)

    def _attempt(self, work: Work, running: Running, place: Place) -> Outcome:
        asked: Asked = work.call
        link = self._host.link(work.info)
        outcome, value = asked.in_context(
            body.run,
            work.info,
            partial(self._load, work, link),
            link,
            kept=own_variables(),
            worker=threading.current_thread().name,
            slot=running.slot(place),
            adopted=place.adopted,
        )
        if isinstance(outcome, AttemptSucceeded):
            self._values[work.info.key] = value
        return outcome

    def _load(self, work: Work, link: Link) -> tuple[Any, Mapping[str, Any]]:
        values = {name: self._value_of(given, link) for name, given in work.inputs.items()}
        return work.call.call, values

    def _value_of(self, given: AtRunner | Along, link: Link) -> Any:
        if isinstance(given, AtRunner):
            if given.key not in self._values:
                raise missing(given.key)
            return self._values[given.key]
        return self._read.value_of(given, link)

    def submitted(self, draft: Draft) -> None:
        """Do nothing: there are no parts."""

    def withdraw(self, tickets: Sequence[int]) -> None:
        """Let what has not begun never do so."""
        with self._lock:
            taken = [ticket for ticket in tickets if ticket in self._waiting]
            self._waiting.difference_update(taken)
        self._taken_back(taken)

    def fetch(self, entry: Entry) -> Any:
        """Return a value. Raises `MissingResult`."""
        if entry.key not in self._values:
            raise missing(entry.key)
        return self._values[entry.key]

    def drop(self, parcel: Parcel) -> None:
        """Drop the job."""
        execution.drop(parcel.ticket)

    def forget(self, entry: Entry) -> None:
        """Drop the value."""
        with self._lock:
            self._waiting.discard(entry.ticket)
        self._values.pop(entry.key, None)

    def close(self) -> None:
        """End the thread that looks after parcels."""
        end_watch()


class _Start:
    """Tells the planner, once, that a body takes its time: the engine hears of its start by its own link."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    @property
    def told(self) -> bool:
        """Whether it has told it."""
        return self._tell is None

    def begun(self) -> None:
        """Tell it."""
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


def _settle(ticket: int, work: Work, outcome: Outcome | None) -> None:
    """Let what depends on the only dispatch of a parcel err, if that came to nothing."""
    if outcome is None:
        raise TakenBack(ticket)
    if not isinstance(outcome, AttemptSucceeded):
        raise BodyFailed.of(work.info.key, outcome)
