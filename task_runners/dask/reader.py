"""What a connection tells, read into the book."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from distributed.scheduler import KilledWorker

from dflow.attempts.link import Letter
from task_runners.dask.book import Book, Entry
from task_runners.dask.carried import BodyFailed, TakenBack
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
            self._book.heard(address, message)

    def finished(self, ticket: int) -> None:
        """A key is in memory."""
        self._book.in_memory(ticket)

    def erred(self, ticket: int, error: BaseException | None) -> None:
        """A key has erred, by itself or because of something that it depends on."""
        entry = self._book.numbered(ticket)
        if entry is None:
            return
        own = _speaks_of(error, entry)
        if own and isinstance(error, BodyFailed):
            self._book.told(ticket, error.outcome)
        elif own and isinstance(error, KilledWorker):
            self._book.worker_died(ticket, error.last_worker.address)
        elif isinstance(error, BodyFailed | KilledWorker) or self._book.is_dead_end(ticket):
            self._book.upstream_failed(ticket, "Something that it depends on came to nothing.")
        elif isinstance(error, TakenBack):
            self._book.taken_back(ticket)
        else:
            self._book.not_run(ticket, repr(error))

    def cancelled(self, ticket: int, reason: str) -> None:
        """Dask has given a key up: we let go of it, or what it needs is gone, or the scheduler is."""
        entry = self._book.numbered(ticket)
        if entry is None or entry.ended:
            return
        if reason.startswith("lost"):
            self._book.upstream_failed(
                ticket, "A value that it depends on is gone from the cluster."
            )
        else:
            self._scheduler_lost(
                f"The Dask scheduler has dropped all work ({reason or 'no reason given'})."
            )

    def recovered(self, ticket: int, outcome: bytes | None) -> None:
        """The outcome that came with a value was asked for."""
        if outcome is None:
            self._book.outcome_lost(ticket)
        else:
            self._book.told(ticket, pickle.loads(outcome))

    def taken_back(self, tickets: Sequence[int]) -> None:
        """Dispatches have not begun on any worker, and will not."""
        for ticket in tickets:
            self._book.taken_back(ticket)

    def died(self, worker: str, how: str) -> None:
        """A worker process has ended."""
        self._book.death(worker, how)

    def nowhere(self, ticket: int, cluster: str) -> None:
        """No worker of the cluster can take a dispatch now."""
        entry = self._book.numbered(ticket)
        if entry is not None and not entry.ended:
            _log.warning(
                "No worker can take task run '%s' now: it needs %s. %s It waits for one that can, and so "
                "does what else of its task needs the same.",
                entry.name,
                described(entry.placement),
                cluster,
            )

    def removed(self, worker: str, keys: Sequence[Any], expected: bool) -> None:
        """The scheduler has lost a worker that had these keys to work on."""
        tickets = [key[1] for key in keys if isinstance(key, tuple) and len(key) == 2]
        self._book.worker_left(tickets, worker, expected)


def _speaks_of(error: BaseException | None, entry: Entry) -> bool:
    """Tell whether an error is a dispatch's own, and not that of something it depends on."""
    if isinstance(error, BodyFailed):
        return error.key == entry.key
    return isinstance(error, KilledWorker) and error.task == entry.dask_key
