"""The two ways of getting a body to a worker: as bytes, or, in this process, as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dask.task_spec import TaskRef

from dflow.attempts import body
from dflow.attempts.packing import Packer
from dflow.core.events import AttemptSucceeded, Outcome
from dflow.messages import Along, AtRunner, Blob, Kept, Key, Work
from dflow.ports import Host
from dflow.results.pickling import dumps
from task_runners.dask import execution
from task_runners.dask.book import Entry
from task_runners.dask.carried import BodyFailed, Carried, TakenBack
from task_runners.dask.connection import Connection
from task_runners.dask.graph import Draft, Encoder, Parts
from task_runners.dask.internals import own_variables
from task_runners.dask.places import Place
from task_runners.dask.shelf import Shelf
from task_runners.values import Asked, Read, asked_here


class Courier(Protocol):
    """Gets bodies to workers."""

    def pack(self, call: Any) -> Any:
        """Return a call in the form in which it goes. Raises `SerializationError`."""

    def draft(self, draft: Draft, work: Work, entry: Entry) -> None:
        """Add a dispatch to a graph."""

    def submitted(self, draft: Draft) -> None:
        """Note that a graph is with Dask."""

    def withdraw(self, tickets: Sequence[int]) -> None:
        """See to it that dispatches that have not begun never do, and that the book hears which."""

    def forget(self, entry: Entry) -> None:
        """Drop what is kept for a dispatch that has ended."""


def _sources(work: Work, entry: Entry) -> tuple[dict[str, Entry], dict[str, Along]]:
    """Return the upstreams whose values Dask brings, and what goes along of others, by task run."""
    by_key = {up.key: up for up in entry.upstreams}
    refs: dict[str, Entry] = {}
    along: dict[str, Along] = {}
    for name, given in work.inputs.items():
        if not isinstance(given, AtRunner):
            along[name] = given
            continue
        copy = by_key[given.key].copy
        if copy is None:
            refs[name] = by_key[given.key]
        else:
            along[name] = Blob(copy)
    return refs, along


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

    def draft(self, draft: Draft, work: Work, entry: Entry) -> None:
        """Add a dispatch with its payload."""
        refs, along = _sources(work, entry)
        on_shelf = {
            name: ref
            for name, given in along.items()
            if isinstance(given, Kept) and (ref := self._shelf.refer(given, draft)) is not None
        }
        payload, parts = self._encoder.encode(work, entry, (*refs, *on_shelf), along)
        beside = [self._parts.refer(part, draft) for part in parts]
        values = [TaskRef(up.dask_key) for up in refs.values()]
        draft.add(entry, execution.execute, payload, *beside, *values, *on_shelf.values())

    def submitted(self, draft: Draft) -> None:
        """Hold the large parts of the graph, and the values from stores, on the cluster."""
        self._parts.hold(draft)
        self._shelf.hold(draft)

    def withdraw(self, tickets: Sequence[int]) -> None:
        """Ask the workers."""
        self._connection.withdraw(tickets)

    def forget(self, entry: Entry) -> None:
        """Do nothing: all is with Dask."""


class InMemory:
    """Bodies run on a cluster in this process: nothing is pickled, and the engine's own links are used.

    `told` is called with (dispatch, outcome) by the threads of the workers, `taken_back` with tickets.
    """

    def __init__(
        self,
        host: Host,
        told: Callable[[Key, Outcome], None],
        taken_back: Callable[[Sequence[int]], None],
    ) -> None:
        self._host = host
        self._told = told
        self._taken_back = taken_back
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._read = Read()

    def pack(self, call: Any) -> Asked:
        """Return the call, with the context in which it was made."""
        return asked_here(call)

    def draft(self, draft: Draft, work: Work, entry: Entry) -> None:
        """Add a dispatch; what is to be run stays here."""
        refs, along = _sources(work, entry)
        names, ticket = tuple(refs), entry.ticket

        def job(place: Place, given: tuple[Any, ...]) -> Carried:
            with self._lock:
                if ticket not in self._waiting:
                    raise TakenBack
                self._waiting.discard(ticket)
            return self._run(work, along, dict(zip(names, given, strict=True)), place)

        with self._lock:
            self._waiting.add(ticket)
        execution.put(ticket, job)
        values = [TaskRef(up.dask_key) for up in refs.values()]
        draft.add(entry, execution.execute_here, ticket, *values)

    def _run(
        self,
        work: Work,
        along: Mapping[str, Along],
        brought: Mapping[str, Carried],
        place: Place,
    ) -> Carried:
        def load() -> tuple[Any, dict[str, Any]]:
            values = {name: carried.value for name, carried in brought.items()}
            values.update((name, self._read.value_of(given, link)) for name, given in along.items())
            return asked.call, values

        asked: Asked = work.call
        key = work.info.key
        link = self._host.link(work.info)
        outcome, value = asked.in_context(
            body.run,
            work.info,
            load,
            link,
            kept=own_variables(),
            worker=threading.current_thread().name,
            slot=place.slot,
            adopted=place.adopted,
        )
        self._told(key, outcome)
        if not isinstance(outcome, AttemptSucceeded):
            raise BodyFailed.of(key, outcome)
        return Carried(outcome, value)

    def submitted(self, draft: Draft) -> None:
        """Do nothing: there are no parts."""

    def withdraw(self, tickets: Sequence[int]) -> None:
        """Let what has not begun never do so."""
        with self._lock:
            taken = [ticket for ticket in tickets if ticket in self._waiting]
            self._waiting.difference_update(taken)
        self._taken_back(taken)

    def forget(self, entry: Entry) -> None:
        """Drop the job."""
        with self._lock:
            self._waiting.discard(entry.ticket)
        execution.drop(entry.ticket)
