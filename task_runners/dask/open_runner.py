"""A Dask runner at work for one flow run.

Whatever happens is told to one thread of its own, which enters it into the book and reports what the book
decides. The driver's threads enter new dispatches themselves; a lock keeps the book whole.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from dflow.attempts import clock
from dflow.errors import MissingResult
from dflow.messages import AtRunner, Down, Key, Settled, Up, Work
from dflow.ports import Host
from dflow.results.pickling import loads
from task_runners.dask import clusters, names
from task_runners.dask.book import Book, DaskKey, Entry
from task_runners.dask.carried import Carried
from task_runners.dask.connection import Connection
from task_runners.dask.couriers import Courier, InMemory, Travelling
from task_runners.dask.graph import CHUNK, Draft, dask_key, tickets
from task_runners.dask.reader import Reader
from task_runners.dask.runner import DaskTaskRunner
from task_runners.values import missing

LOOK = 0.5
"""Seconds between two looks at whether the scheduler is there."""

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
        self._book = Book(self._has_erred, inquests=runner.own is not None)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._reader = Reader(self._book, self._lose)
        self._broken: list[Connection] = []
        self._connection, self._courier = self._connect()
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
        return connection, InMemory(
            self._host,
            lambda key, outcome: self._calls.put(lambda: book.heard(key, outcome)),
            lambda tickets: self._calls.put(lambda: reader.taken_back(tickets)),
        )

    # The port -----------------------------------------------------------------------------------------

    def pack(self, call: Any) -> Any:
        """Return a call as it travels. Raises `SerializationError`, naming the parameter."""
        return self._courier.pack(call)

    def dispatch(self, works: Sequence[Work]) -> None:
        """Hand work to Dask. Raises `ClusterError` if there is no cluster any more."""
        with self._lock:
            if self._connection is None:
                self._connection, self._courier = self._connect()
            for start in range(0, len(works), CHUNK):
                self._submit(self._connection, works[start : start + CHUNK])
        self._calls.put(_nothing)

    def _submit(self, connection: Connection | None, works: Sequence[Work]) -> None:
        if connection is None:
            return
        draft = Draft()
        for work in works:
            self._draft(draft, work, connection)
        if draft.entries:
            connection.submit(draft)
            self._courier.submitted(draft)

    def _draft(self, draft: Draft, work: Work, connection: Connection) -> None:
        """Enter a work into the book and the draft, unless what it needs is gone."""
        ticket = next(tickets)
        sources = [given.key for given in work.inputs.values() if isinstance(given, AtRunner)]
        found = [self._book.find(key) for key in sources]
        ups = tuple(up for up in found if up is not None)
        entry = Entry(
            work.info.key,
            ticket,
            depth=max((up.depth + 1 for up in ups), default=0),
            upstreams=ups,
            dask_key=dask_key(work, connection.run, ticket),
            name=work.info.task_run_name,
            placement=work.placement,
        )
        self._book.enter(entry)
        lost = [up for up in ups if self._book.dead(up) and up.copy is None]
        if len(ups) < len(sources) or lost:
            for up in lost:
                self._book.lost(up)
            self._book.void_behind(entry, "What it depends on is not on the cluster any more.")
            return
        try:
            self._courier.draft(draft, work, entry)
        except Exception as error:
            self._book.not_run(ticket, str(error))

    def withdraw(self, keys: Sequence[Key]) -> None:
        """Take back what has not begun on any worker."""
        with self._lock:
            entries = [self._book.find(key) for key in keys]
            waiting = [e.ticket for e in entries if e is not None and not (e.ended or e.started)]
            if waiting and self._connection is not None:
                self._courier.withdraw(waiting)

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
            entry, connection = self._book.find(key), self._connection
        if entry is None or not entry.good or connection is None:
            raise missing(key)
        if entry.copy is not None:
            return loads(entry.copy)
        try:
            carried: Carried = connection.gather(entry.dask_key)
        except Exception as error:
            self._calls.put(lambda: self._book.lost(entry))
            raise MissingResult(
                f"The value of task run '{key[0]}' was lost, and could not be computed again: {error}"
            ) from error
        return carried.value

    def tell(self, key: Key, message: Down) -> None:
        """Send a message down to an attempt that has started. In memory the engine does that itself."""
        with self._lock:
            entry, connection = self._book.find(key), self._connection
            if self.shares_memory or entry is None or not entry.worker or connection is None:
                return
            child = None
            if isinstance(message, Settled) and message.key is not None:
                child = self._book.find(message.key)
            places = {} if child is None else {child.key: child.dask_key}
            connection.deliver(entry.worker, key, message, places)

    def apply(self, function: Callable[[Any], Any], key: Key) -> Any:
        """Return what a function makes of a value, on a worker that has it. Raises `MissingResult`."""
        with self._lock:
            entry, connection = self._book.find(key), self._connection
        if self.shares_memory or entry is None or entry.copy is not None or connection is None:
            return function(self.fetch(key))
        return connection.apply(function, entry.dask_key)

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
            entries = self._book.all()
        for entry in entries:
            self._courier.forget(entry)
        if connection is not None:
            connection.close()

    # The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (call := self._next()) is not None:
            with self._lock:
                self._make(call)
                self._let_go()
                news, self._book.news = self._book.news, []
            self._report(news)
            while self._broken:
                self._broken.pop().close()

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._calls.get(timeout=LOOK)
        except Empty:
            return _nothing

    def _make(self, call: Callable[[], None]) -> None:
        """Make a call, and see what the time has brought."""
        try:
            call()
            for entry in self._book.overdue(clock.monotonic()):
                if self._connection is not None:
                    self._connection.recover(entry.ticket, entry.dask_key)
            if self._connection is not None and not self._connection.alive:
                self._lose("The connection to the Dask scheduler was lost.")
        except Exception:
            _log.exception("News of a cluster could not be understood.")

    def _report(self, news: Sequence[Up]) -> None:
        try:
            if news:
                self._host.news(news)
        except Exception:
            _log.exception("News of a cluster could not be reported.")

    def _has_erred(self, key: DaskKey) -> bool:
        return self._connection is not None and self._connection.status(key) == "error"

    def _let_go(self) -> None:
        released, self._book.released = self._book.released, []
        for entry in released:
            self._courier.forget(entry)
        if self._connection is not None:
            self._connection.release([entry.dask_key for entry in released])

    def _lose(self, message: str) -> None:
        """Give up on a connection, and on everything that was with it."""
        self._book.scheduler_lost(message)
        if self._connection is not None:
            self._broken.append(self._connection)
            self._connection = None


def _nothing() -> None:
    """Do nothing but wake the thread."""
