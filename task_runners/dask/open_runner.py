"""A Dask runner at work for one flow run.

Whatever happens is told to one thread of its own, which enters it into the book, sends what the planner says
now, and reports what the book decides. The driver's threads enter new dispatches, and send what can go at
once, themselves; a lock keeps the book whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from dflow.attempts import clock
from dflow.attempts.rows import Row
from dflow.errors import DflowError, MissingResult
from dflow.messages import Down, Key, Settled, Up, Work
from dflow.ports import Host
from dflow.results.pickling import loads
from task_runners.dask import clusters, names, settings
from task_runners.dask.book import Book
from task_runners.dask.carried import item_of
from task_runners.dask.connection import Connection
from task_runners.dask.couriers import Courier, InMemory, Travelling
from task_runners.dask.graph import CHUNK, Draft, dask_key, tickets
from task_runners.dask.left_work import enter, parcels_of
from task_runners.dask.parcels import DaskKey, Entry, Parcel
from task_runners.dask.planner import Planner
from task_runners.dask.reader import Reader
from task_runners.dask.runner import DaskTaskRunner
from task_runners.dask.works import Works
from task_runners.values import missing

LOOK = 0.5
"""Seconds between two looks at whether the scheduler is there."""
COUNT = 5.0
"""Seconds between two looks at how many threads the workers of a cluster have that is not ours."""
PATIENCE = 0.02, 2.0
"""What a dispatch may take before what is behind it is given back: seconds at least, and how many times what
its parcel was expected to take."""
UNBOUNDED = 1 << 60
GATHERED = 256
"""How many tasks' values are gathered in one go."""

_log = logging.getLogger("dflow.runners")


class OpenDask:
    """Runs the bodies of one flow run on a cluster that it may share."""

    follows = True
    runs_here = False

    def __init__(self, runner: DaskTaskRunner, host: Host) -> None:
        self._runner = runner
        self._host = host
        self._owner = names.owner_of(host.root_id, runner.address or os.urandom(4).hex())
        self._lock = threading.RLock()
        own = runner.own
        threads = 1 if own is None else settings.size(own)[0] * settings.size(own)[1]
        planner = Planner(threads, UNBOUNDED) if self.shares_memory else Planner(threads)
        self._book = Book(
            self._status, planner, inquests=own is not None, values_here=self.shares_memory
        )
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._reader = Reader(self._book, self._lose)
        self._broken: list[Connection] = []
        self._counted_at = clock.monotonic() - COUNT
        self._connection, self._courier = self._connect()
        self._works = Works(self._book)
        self._thread = threading.Thread(target=self._run, name="dflow-dask", daemon=True)
        self._thread.start()

    @property
    def shares_memory(self) -> bool:
        """Whether bodies run in the driver's process."""
        return self._runner.own is not None and not self._runner.own.processes

    def _connect(self) -> tuple[Connection | None, Courier]:
        cluster = clusters.shared.get(self._runner)
        lease = 0.0 if self._runner.own is not None else self._runner.lease_seconds
        connection = Connection(cluster, self._calls.put, self._reader, self._owner, lease)
        if not self.shares_memory:
            return connection, Travelling(connection)
        book, reader = self._book, self._reader

        def told(ticket: int, worker: str, rows: list[Row]) -> None:
            self._calls.put(lambda: book.rows(ticket, worker, rows))

        return connection, InMemory(
            self._host,
            told,
            lambda tickets: self._calls.put(lambda: reader.taken_back(tickets)),
        )

    # The port -----------------------------------------------------------------------------------------

    def pack(self, call: Any) -> Any:
        """Return a call as it travels. Raises `SerializationError`, naming the parameter."""
        return self._courier.pack(call)

    def reattach(
        self,
        under_way: Collection[Key],
        values: Collection[Key],
        found: Callable[[Collection[Key]], None],
    ) -> None:
        """Take up what an earlier driver of the flow run has left on the cluster.

        `under_way` are dispatches that have no end yet, `values` those that ended well. `found` is called
        with those that are there; then what became of them meanwhile is reported.
        """
        with self._lock:
            if self._connection is None:
                return
            parcels = parcels_of(self._connection.left(), set(under_way), set(values))
            found(enter(self._book, parcels))
            self._connection.take_up(parcels)
            self._let_go()
            news, self._book.news = self._book.news, []
            self._report(news)
        self._calls.put(_nothing)

    def dispatch(self, works: Sequence[Work]) -> None:
        """Take work, and hand to Dask what can go. Raises `ClusterError` if there is no cluster any more."""
        with self._lock:
            if self._connection is None:
                self._connection, self._courier = self._connect()
            size = self._courier.size
            for work in works:
                self._works.enter(work, size(work.call))
            self._send()
        self._calls.put(_nothing)

    def withdraw(self, keys: Sequence[Key]) -> None:
        """Take back what has not begun on any worker."""
        with self._lock:
            found = [self._book.find(key) for key in keys]
            asked = [e for e in found if e is not None and not (e.ended or e.started)]
            for entry in asked:
                if entry.parcel is None:
                    self._book.taken_back(entry)
            away = [entry for entry in asked if entry.parcel is not None]
            if away and self._connection is not None:
                self._courier.withdraw([self._book.call_off(entry) for entry in away])
        self._calls.put(_nothing)

    def stop(self, keys: Sequence[Key]) -> None:
        """Do nothing: a thread on a worker cannot be stopped from outside."""

    def release(self, keys: Sequence[Key]) -> None:
        """Let go of values."""
        with self._lock:
            self._book.release(keys)
            self._let_go()

    def fetch(self, key: Key) -> Any:
        """Return a value. Raises `MissingResult` or `SerializationError`."""
        with self._lock:
            entry = self._book.find(key)
        if entry is None or not entry.good or self._connection is None:
            raise missing(key)
        if entry.copy is not None and not self.shares_memory:
            return loads(entry.copy)
        try:
            return self._courier.fetch(entry)
        except DflowError:
            raise
        except Exception as error:
            self._calls.put(lambda: self._book.lost(entry))
            raise MissingResult(
                f"The value of task run '{key[0]}' was lost, and could not be computed again: {error}"
            ) from error

    def fetch_each(self, keys: Sequence[Key]) -> Mapping[Key, Any]:
        """Return the values that can be gathered in one go, some at a time; what fails is left out."""
        with self._lock:
            connection, found = self._connection, {key: self._book.find(key) for key in keys}
            at = {
                key: entry.parcel.dask_key
                for key, entry in found.items()
                if entry is not None and entry.good and entry.parcel and entry.copy is None
            }
        if connection is None or self.shares_memory:
            return {}
        values: dict[Key, Any] = {}
        wanted = list(dict.fromkeys(at.values()))
        for start in range(0, len(wanted), GATHERED):
            there = connection.gather_each(wanted[start : start + GATHERED])
            for key, place in at.items():
                if place in there:
                    with contextlib.suppress(DflowError, KeyError):  # `fetch` says what is wrong
                        values[key] = item_of(there[place], key[0]).value
        return values

    def tell(self, key: Key, message: Down) -> None:
        """Send a message down to an attempt that has started. In memory the engine does that itself."""
        with self._lock:
            entry, connection = self._book.find(key), self._connection
            if self.shares_memory or entry is None or not entry.worker or connection is None:
                return
            places: dict[Key, DaskKey | bytes] = {}
            if isinstance(message, Settled) and message.key is not None:
                child = self._book.find(message.key)
                if child is not None and child.copy is not None:
                    places[child.key] = child.copy
                elif child is not None and child.parcel is not None:
                    places[child.key] = child.parcel.dask_key
            connection.deliver(entry.worker, key, message, places)

    def apply(self, function: Callable[[Any], Any], key: Key) -> Any:
        """Return what a function makes of a value, on a worker that has it. Raises `MissingResult`."""
        with self._lock:
            entry, connection = self._book.find(key), self._connection
            parcel = None if entry is None or self.shares_memory else entry.parcel
        if parcel is None or connection is None:
            return function(self.fetch(key))
        return connection.apply(function, parcel.dask_key, key[0])

    def each_host(self, function: Callable[..., Any], *args: Any) -> Mapping[str, Any]:
        """Call a function on one worker of each host; nowhere if the workers are threads of this process."""
        with self._lock:
            connection = self._connection
        if connection is None or self.shares_memory:
            return {}
        return connection.each_host(function, *args)

    def close(self) -> None:
        """Let go of everything. Bodies that run go on; nobody hears of them."""
        self._calls.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._lock:
            connection, self._connection = self._connection, None
            entries, parcels = self._book.all(), self._book.parcels()
        for entry in entries:
            self._courier.forget(entry)
        for parcel in parcels:
            self._courier.drop(parcel)
        self._courier.close()
        if connection is not None:
            connection.close()

    # Sending --------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Hand to Dask what the planner says."""
        planner = self._book.planner
        while self._connection is not None and (batches := planner.plan(clock.monotonic())):
            draft = Draft()
            for nodes in batches:
                entries = self._works.sound(nodes)
                if entries:
                    self._draft(draft, entries, self._connection)
                if len(draft.parcels) >= CHUNK:
                    self._submit(draft, self._connection)
                    draft = Draft()
            self._submit(draft, self._connection)

    def _draft(self, draft: Draft, entries: list[Entry], connection: Connection) -> None:
        """Put dispatches into one parcel; each into one of its own, where they do not go together."""
        ticket = next(tickets)
        parcel = Parcel(ticket, dask_key(entries, connection.run, ticket), entries)
        self._book.send(parcel)
        least, factor = PATIENCE
        patience = max(least, factor * self._book.planner.expected(entries))
        try:
            self._courier.draft(draft, parcel, patience)
        except Exception as error:
            self._book.broken(ticket, str(error))

    def _submit(self, draft: Draft, connection: Connection) -> None:
        if not draft.parcels:
            return
        try:
            connection.submit(draft)
        except Exception as error:
            problem = error if isinstance(error, DflowError) else str(error)
            for parcel in draft.parcels:
                for entry in parcel.left:
                    self._book.not_run(entry, problem)
        else:
            self._courier.submitted(draft)

    # The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while calls := self._next():
            with self._lock:
                for call in calls:
                    self._make(call)
                self._make(self._look)
                self._make(self._send)
                self._make(self._let_go)
                news, self._book.news = self._book.news, []
            self._report(news)
            while self._broken:
                self._broken.pop().close()

    def _next(self) -> list[Callable[[], None]]:
        """Wait for what is to be done; nothing when it is time to end."""
        return list(self._taken())

    def _taken(self) -> Iterator[Callable[[], None]]:
        try:
            call = self._calls.get(timeout=self._pause())
        except Empty:
            yield _nothing
            return
        with contextlib.suppress(Empty):
            while call is not None:
                yield call
                call = self._calls.get_nowait()
        if call is None:
            self._calls.put(None)

    def _pause(self) -> float:
        """Return how many seconds nothing needs to be looked at."""
        with self._lock:
            due = (self._book.planner.next_look(), self._book.next_due())
        now = clock.monotonic()
        return max(0.0, min([LOOK, *(time - now for time in due if time is not None)]))

    def _make(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            _log.exception("News of a cluster could not be understood.")

    def _look(self) -> None:
        """See what the time has brought."""
        now = clock.monotonic()
        overdue = self._book.overdue(now)
        connection = self._connection
        if connection is None:
            return
        for parcel in overdue:
            connection.recover(parcel.ticket, parcel.dask_key)
        if self._runner.own is None and now - self._counted_at >= COUNT:
            self._counted_at = now
            connection.ask_threads(self._reader.threads)
        if not connection.alive:
            self._lose("The connection to the Dask scheduler was lost.")

    def _report(self, news: Sequence[Up]) -> None:
        try:
            if news:
                self._host.news(news)
        except Exception:
            _log.exception("News of a cluster could not be reported.")

    def _status(self, key: DaskKey) -> str:
        return "cancelled" if self._connection is None else self._connection.status(key)

    def _let_go(self) -> None:
        released, self._book.released = self._book.released, []
        forgotten, self._book.forgotten = self._book.forgotten, []
        for entry in forgotten:
            self._courier.forget(entry)
        for parcel in released:
            self._courier.drop(parcel)
        if self._connection is not None and released:
            light = {parcel.dask_key: None for parcel in released if parcel.light}
            rest = [parcel.dask_key for parcel in released if parcel.dask_key not in light]
            self._connection.release(rest)
            self._connection.release(list(light), light=True)

    def _lose(self, message: str) -> None:
        """Give up on a connection, and on everything that was with it."""
        self._book.scheduler_lost(message)
        if self._connection is not None:
            self._broken.append(self._connection)
            self._connection = None


def _nothing() -> None:
    """Do nothing but wake the thread."""
