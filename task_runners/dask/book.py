"""Every dispatch that is with Dask, and what became of it: the place where exactly one end is given to each.

News come from two sides that know nothing of each other: from attempts, through the feed, and from Dask,
about its keys. The book joins them; what it decides to report is in `news`. It knows no cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from dflow.attempts import clock
from dflow.attempts.capture import capture
from dflow.core.events import (
    AttemptRaised,
    AttemptStarted,
    AttemptSucceeded,
    DispatchVoided,
    Event,
    Outcome,
    Report,
    ResultLost,
    ResultRecomputed,
    WorkerLost,
)
from dflow.core.records import Cause
from dflow.errors import SerializationError
from dflow.messages import ANYWHERE, Key, Placement, Up

DaskKey = tuple[str, int]
"""The name of a task of Dask: a prefix, and a number that is never used twice."""

RECOVERY = 1.0
"""Seconds after which an outcome that Dask knows of and nobody told is asked for."""
INQUEST = 0.5
"""Seconds in which a nanny may say how its worker died, before the loss is reported without."""


@dataclass(slots=True, eq=False)
class Entry:
    """One dispatch: under which Dask key it went, what it depends on there, and what became of it."""

    key: Key
    ticket: int
    depth: int
    upstreams: tuple[Entry, ...] = ()
    dask_key: DaskKey = ("", 0)
    name: str = ""
    placement: Placement = ANYWHERE
    started: bool = False
    worker: str = ""
    outcome: Outcome | None = None
    in_memory: bool = False
    ended: bool = False
    good: bool = False
    gone: bool = False
    due: float | None = None
    lost_on: str | None = None

    @property
    def usable(self) -> bool:
        """Whether its value is, or will be, with Dask."""
        return not self.gone and (self.good or not self.ended)

    @property
    def copy(self) -> bytes | None:
        """The pickled value, where it came with the outcome and is not with Dask any more."""
        return (
            self.outcome.value if self.gone and isinstance(self.outcome, AttemptSucceeded) else None
        )


@dataclass(slots=True)
class Book:
    """The dispatches of one flow run. Not safe for threads: its owner has the lock.

    `has_erred` tells whether a Dask key has erred, before the news of it are here.
    """

    has_erred: Callable[[DaskKey], bool] = lambda key: False
    news: list[Up] = field(default_factory=list)
    released: list[Entry] = field(default_factory=list)
    deaths: dict[str, str] = field(default_factory=dict)
    inquests: bool = True
    _by_key: dict[Key, Entry] = field(default_factory=dict)
    _by_ticket: dict[int, Entry] = field(default_factory=dict)
    _due: dict[int, Entry] = field(default_factory=dict)
    _behind: dict[int, list[tuple[Entry, str]]] = field(default_factory=dict)

    def dead(self, entry: Entry) -> bool:
        """Tell whether what depends on a dispatch can never run."""
        return not entry.usable or self.has_erred(entry.dask_key)

    # What the driver does ---------------------------------------------------------------------------

    def enter(self, entry: Entry) -> None:
        """Add a dispatch."""
        self._by_key[entry.key] = entry
        self._by_ticket[entry.ticket] = entry

    def find(self, key: Key) -> Entry | None:
        """Return a dispatch that is with Dask, running or finished."""
        return self._by_key.get(key)

    def numbered(self, ticket: int) -> Entry | None:
        """Return the dispatch with a number."""
        return self._by_ticket.get(ticket)

    def all(self) -> list[Entry]:
        """Return all dispatches that are with Dask."""
        return list(self._by_ticket.values())

    def release(self, keys: Iterable[Key]) -> None:
        """Let go of finished dispatches; others are kept until they end."""
        for key in keys:
            entry = self._by_key.get(key)
            if entry is not None and entry.ended:
                self._remove(entry)

    def void(self, entry: Entry, cause: Cause, message: str = "") -> None:
        """End a dispatch for no fault of its body."""
        self._end(entry, DispatchVoided(**_of(entry), cause=cause, message=message))

    def void_behind(self, entry: Entry, message: str) -> None:
        """Void a dispatch that cannot run, once all that it depends on has ended.

        Its driver must hear of those ends first: before them it would send the dispatch out again at once.
        """
        open_one = next((up for up in entry.upstreams if not up.ended), None)
        if open_one is None:
            self.void(entry, Cause.UPSTREAM, message)
        else:
            self._behind.setdefault(open_one.ticket, []).append((entry, message))

    # What attempts say --------------------------------------------------------------------------------

    def heard(self, address: Key, message: Up) -> None:
        """Take what an attempt said. All but the story of its own dispatch goes on as it is."""
        own = isinstance(message, Report) and (message.task_run_id, message.dispatch) == address
        if not own:
            self.news.append(message)
            return
        entry = self._by_key.get(address)
        if entry is None:
            return
        if isinstance(message, AttemptStarted):
            self._began(entry, message)
        elif isinstance(message, Outcome):
            self._told(entry, message)

    def _began(self, entry: Entry, event: AttemptStarted) -> None:
        if not entry.ended and not entry.started:
            entry.started, entry.worker = True, event.worker
            self.news.append(event)

    def _told(self, entry: Entry, outcome: Outcome) -> None:
        first = entry.outcome
        if first is not None:
            again = (outcome.started_at, outcome.worker) != (first.started_at, first.worker)
            if again and entry.good and isinstance(outcome, AttemptSucceeded):
                entry.gone = False
                self.news.append(ResultRecomputed(**_of(entry)))
            return
        if entry.ended:
            return
        entry.outcome = outcome
        if not isinstance(outcome, AttemptSucceeded):
            self._end(entry, outcome)
        elif entry.in_memory:
            self._end(entry, outcome, good=True)

    # What Dask says -------------------------------------------------------------------------------------

    def in_memory(self, ticket: int) -> None:
        """A value is there. Its outcome should be too, or come soon."""
        entry = self._by_ticket.get(ticket)
        if entry is None or entry.ended:
            return
        entry.in_memory = True
        if entry.outcome is not None:
            self._end(entry, entry.outcome, good=True)
        else:
            self._expect(entry, RECOVERY)

    def told(self, ticket: int, outcome: Outcome) -> None:
        """The outcome came by way of Dask: with the failure of a key, or because it was asked for."""
        entry = self._by_ticket.get(ticket)
        if entry is not None:
            self._told(entry, outcome)

    def outcome_lost(self, ticket: int) -> None:
        """A value was there, but what became of its attempt can not be found out."""
        entry = self._by_ticket.get(ticket)
        if entry is not None and not entry.ended:
            self._end(
                entry, WorkerLost(**_of(entry), message="Its outcome was lost with its worker.")
            )

    def worker_died(self, ticket: int, worker: str) -> None:
        """The worker that had a dispatch is gone."""
        entry = self._by_ticket.get(ticket)
        if entry is None or entry.ended:
            return
        if entry.outcome is not None:
            # The body had returned, and its worker died before Dask knew. A small value came with the news.
            if isinstance(entry.outcome, AttemptSucceeded) and entry.outcome.value is not None:
                entry.gone = True
                self._end(entry, entry.outcome, good=True)
                return
            entry.outcome = None
        entry.lost_on = worker
        if worker in self.deaths or not self.inquests:
            self._lose(entry)
        else:
            self._expect(entry, INQUEST)

    def death(self, worker: str, how: str) -> None:
        """A worker's nanny says how it died."""
        self.deaths.setdefault(worker, how)
        while len(self.deaths) > 100:
            del self.deaths[next(iter(self.deaths))]
        for entry in [e for e in self._due.values() if e.lost_on == worker]:
            self._lose(entry)

    def upstream_failed(self, ticket: int, message: str) -> None:
        """A dispatch will not run, because of what it depends on."""
        entry = self._by_ticket.get(ticket)
        if entry is None or entry.ended:
            return
        for upstream in entry.upstreams:
            if upstream.good and self.dead(upstream):
                self.lost(upstream)
        self.void_behind(entry, message)

    def lost(self, entry: Entry) -> None:
        """A value that was there cannot be had any more."""
        if entry.good and self._by_key.get(entry.key) is entry:
            entry.gone = True
            self.news.append(ResultLost(**_of(entry)))
            self._remove(entry)

    def not_run(self, ticket: int, problem: str) -> None:
        """Dask itself could not run a dispatch: trying again would not help."""
        entry = self._by_ticket.get(ticket)
        if entry is None or entry.ended:
            return
        error = SerializationError(f"Dask could not run this task: {problem}")
        now = clock.now()
        failure = AttemptRaised(
            **_of(entry), started_at=now, seconds=0.0, error=capture(error), retriable=False
        )
        self._end(entry, failure)

    def taken_back(self, ticket: int) -> None:
        """A dispatch has not begun, and will not."""
        entry = self._by_ticket.get(ticket)
        if entry is not None and not entry.ended:
            self.void(entry, Cause.WITHDRAWN)

    def worker_left(self, tickets: Iterable[int], worker: str, expected: bool) -> None:
        """A scheduler that runs things again has lost a worker that had these dispatches.

        Those that had started end here, and with them what waits for them: Dask's next try is another one.
        """
        cause = Cause.SCALED_DOWN if expected else Cause.WORKER_DIED
        ended = []
        for ticket in tickets:
            entry = self._by_ticket.get(ticket)
            if entry is not None and entry.started and not entry.ended and entry.worker == worker:
                message = f"Worker {worker} has left the cluster."
                self._end(entry, WorkerLost(**_of(entry), cause=cause, message=message))
                ended.append(entry)
        while ended:
            last = ended.pop()
            for entry in self.all():
                if not entry.ended and last in entry.upstreams:
                    self.void(entry, Cause.UPSTREAM, f"Worker {worker} has left the cluster.")
                    ended.append(entry)

    def is_dead_end(self, ticket: int) -> bool:
        """Tell whether something that a dispatch depends on has failed or is gone."""
        entry = self._by_ticket.get(ticket)
        return entry is not None and any(map(self.dead, entry.upstreams))

    def scheduler_lost(self, message: str) -> None:
        """Everything that was with Dask is gone."""
        for entry in list(self._by_ticket.values()):
            if entry.good:
                self.lost(entry)
            elif not entry.ended:
                entry.gone = True
                self._end(
                    entry, WorkerLost(**_of(entry), cause=Cause.SCHEDULER_LOST, message=message)
                )

    # Time -----------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> list[Entry]:
        """Report deaths that nobody explains; return finished dispatches whose outcome must be asked for."""
        late = [entry for entry in self._due.values() if entry.due is not None and entry.due <= now]
        for entry in late:
            if entry.lost_on is not None:
                self._lose(entry)
            else:
                del self._due[entry.ticket]
        return [entry for entry in late if entry.lost_on is None and not entry.ended]

    def next_due(self) -> float | None:
        """Return when `overdue` is to be called next, by the monotonic clock."""
        return min(
            (entry.due for entry in self._due.values() if entry.due is not None), default=None
        )

    def _expect(self, entry: Entry, seconds: float) -> None:
        entry.due = clock.monotonic() + seconds
        self._due[entry.ticket] = entry

    # Ends -------------------------------------------------------------------------------------------------

    def _lose(self, entry: Entry) -> None:
        how = self.deaths.get(entry.lost_on or "", "died")
        message = f"Worker {entry.lost_on} {how}."
        self._end(entry, WorkerLost(**_of(entry), message=message))

    def _end(self, entry: Entry, event: Event, *, good: bool = False) -> None:
        entry.ended, entry.good = True, good
        entry.upstreams = ()
        self._due.pop(entry.ticket, None)
        self.news.append(event)
        if not good:
            self._remove(entry)
        for dependent, message in self._behind.pop(entry.ticket, ()):
            if not dependent.ended:
                self.void_behind(dependent, message)

    def _remove(self, entry: Entry) -> None:
        del self._by_key[entry.key]
        del self._by_ticket[entry.ticket]
        self._due.pop(entry.ticket, None)
        self.released.append(entry)


def _of(entry: Entry) -> dict[str, Any]:
    return {"at": clock.now(), "task_run_id": entry.key[0], "dispatch": entry.key[1]}
