"""What a connection tells, read into the book. Tickets are those of parcels, but where it says otherwise."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from distributed.scheduler import KilledWorker

from dflow.attempts.link import Ended, Letter
from task_runners.dask.book import Book
from task_runners.dask.carried import BodyFailed, TakenBack
from task_runners.dask.ends import BEHIND
from task_runners.dask.parcels import Parcel
from task_runners.dask.placements import described

_log = logging.getLogger("dflow.runners")


class Reader:
    """Understands what comes from Dask and from workers. Used by the one thread that owns the book."""

    def __init__(self, book: Book, scheduler_lost: Callable[[str], None]) -> None:
        self._book = book
        self._scheduler_lost = scheduler_lost

    def letters(self, letters: Sequence[Letter]) -> None:
        """Attempts have said something."""
        for address, message in letters:
            if isinstance(message, Ended):
                self._book.rows(message.parcel, message.worker, message.rows)
            else:
                self._book.heard(address, message)

    def finished(self, ticket: int) -> None:
        """A key is in memory."""
        self._book.in_memory(ticket)

    def erred(self, ticket: int, error: BaseException | None) -> None:
        """A key has erred, by itself or because of something that it depends on."""
        parcel = self._book.parcel(ticket)
        if parcel is None or parcel.over:
            return
        own = _speaks_of(error, parcel)
        if own and isinstance(error, BodyFailed):
            self._book.told(parcel.entries[0], error.outcome)
        elif own and isinstance(error, KilledWorker):
            self._book.worker_died(ticket, error.last_worker.address)
        elif own and isinstance(error, TakenBack):
            for entry in parcel.left:
                self._book.taken_back(entry)
        elif isinstance(error, BodyFailed | KilledWorker | TakenBack) or self._book.is_dead_end(
            ticket
        ):
            self._book.upstream_failed(ticket, BEHIND)
        else:
            self._book.broken(ticket, repr(error))

    def cancelled(self, ticket: int, reason: str) -> None:
        """Dask has given a key up: we let go of it, or what it needs is gone, or the scheduler is."""
        parcel = self._book.parcel(ticket)
        if parcel is None or not parcel.left:
            return
        if reason.startswith("lost"):
            self._book.upstream_failed(
                ticket, "A value that it depends on is gone from the cluster."
            )
        else:
            self._scheduler_lost(
                f"The Dask scheduler has dropped all work ({reason or 'no reason given'})."
            )

    def recovered(self, ticket: int, data: bytes | None) -> None:
        """The outcomes that came with a value were asked for."""
        parcel = self._book.parcel(ticket)
        if parcel is None:
            return
        told = None if data is None else pickle.loads(data)
        if isinstance(told, Ended):
            self._book.rows(ticket, told.worker, told.rows)
        elif told is not None:
            self._book.told(parcel.entries[0], told)
        self._book.outcomes_lost(ticket)

    def taken_back(self, tickets: Sequence[int]) -> None:
        """Dispatches with these tickets have not begun on any worker, and will not."""
        for ticket in tickets:
            self._book.taken_back(self._book.called_off(ticket))

    def died(self, worker: str, how: str) -> None:
        """A worker process has ended."""
        self._book.death(worker, how)

    def nowhere(self, ticket: int, cluster: str) -> None:
        """No worker of the cluster can take a dispatch now."""
        parcel = self._book.parcel(ticket)
        if parcel is not None and parcel.left:
            _log.warning(
                "No worker can take task run '%s' now: it needs %s. %s It waits for one that can, and so "
                "does what else of its task needs the same.",
                parcel.name,
                described(parcel.placement),
                cluster,
            )

    def retired(self, worker: str, tickets: Sequence[int]) -> None:
        """A worker has left that was told to, and these will not run again by themselves."""
        self._book.worker_retired(tickets, worker)

    def threads(self, count: int) -> None:
        """The workers have so many threads now."""
        self._book.planner.slots = max(1, count)

    def removed(self, worker: str, keys: Sequence[Any], expected: bool) -> None:
        """The scheduler has lost a worker that had these keys to work on."""
        tickets = [key[1] for key in keys if isinstance(key, tuple) and len(key) == 2]
        self._book.worker_left(tickets, worker, expected)


def _speaks_of(error: BaseException | None, parcel: Parcel) -> bool:
    """Tell whether an error is a parcel's own, and not that of something it depends on."""
    if isinstance(error, BodyFailed):
        return parcel.sole and error.key == parcel.entries[0].key
    if isinstance(error, TakenBack):
        return error.args == (parcel.ticket,)
    return isinstance(error, KilledWorker) and error.task == parcel.dask_key
