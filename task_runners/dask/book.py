"""Every dispatch that this runner has, and what became of it: the place where one end is given to each.

News come from two sides that know nothing of each other: from attempts, through the feed, and from Dask,
about its keys. The book joins them; what it decides to report is in `news`, and it keeps the planner in step.
It knows no cluster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dflow.attempts import clock
from dflow.attempts.capture import capture
from dflow.attempts.rows import BACK, LONG, Row, outcome_in
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
from dflow.errors import DflowError, SerializationError
from dflow.messages import Key, Up
from task_runners.dask.parcels import DaskKey, Entry, Parcel
from task_runners.dask.planner import Planner

RECOVERY = 1.0
"""Seconds after which an outcome that Dask knows of and nobody told is asked for."""
INQUEST = 0.5
"""Seconds in which a nanny may say how its worker died, before the loss is reported without."""
UNKNOWN_SIZE = 1_000_000
"""Bytes that a value counts that did not come with its outcome, where nobody says how many it has."""
BEHIND = "Something that it depends on came to nothing."


@dataclass(slots=True)
class Book:
    """The dispatches of one flow run. Not safe for threads: its owner has the lock.

    `has_erred` tells whether a Dask key has erred, before the news of it are here. With `values_here` all
    values are in the driver's memory.
    """

    has_erred: Callable[[DaskKey], bool] = lambda key: False
    planner: Planner = field(default_factory=lambda: Planner(1))
    inquests: bool = True
    values_here: bool = False
    news: list[Up] = field(default_factory=list)
    released: list[Parcel] = field(default_factory=list)
    forgotten: list[Entry] = field(default_factory=list)
    deaths: dict[str, str] = field(default_factory=dict)
    _by_key: dict[Key, Entry] = field(default_factory=dict)
    _by_ticket: dict[int, Entry] = field(default_factory=dict)
    _parcels: dict[int, Parcel] = field(default_factory=dict)
    _due: dict[int, Entry | Parcel] = field(default_factory=dict)
    _behind: dict[int, list[tuple[Entry, str]]] = field(default_factory=dict)
    _to_void: deque[tuple[Entry, str]] = field(default_factory=deque)
    _voiding: bool = False

    def dead(self, entry: Entry) -> bool:
        """Tell whether what takes the value of a dispatch can never run."""
        if entry.ended and not entry.good:
            return True
        if entry.kept or (self.values_here and entry.good):
            return False
        if entry.gone:
            return True
        parcel = entry.parcel
        asked = parcel is not None and (entry.ended or parcel.sole)
        return asked and parcel is not None and self.has_erred(parcel.dask_key)

    # What the driver does ---------------------------------------------------------------------------

    def enter(self, entry: Entry) -> None:
        """Add a dispatch, to be sent when the planner says so."""
        self._by_key[entry.key] = entry
        self._by_ticket[entry.ticket] = entry
        self.planner.add(entry)

    def send(self, parcel: Parcel) -> None:
        """Note that dispatches go, as one task of Dask."""
        self._parcels[parcel.ticket] = parcel
        parcel.held = len(parcel.entries)
        for place, entry in enumerate(parcel.entries):
            entry.parcel, entry.place = parcel, place

    def adopt(self, parcel: Parcel) -> None:
        """Add a parcel that an earlier driver has sent, with those of its dispatches that are in it yet."""
        self._parcels[parcel.ticket] = parcel
        for place, entry in enumerate(parcel.entries):
            entry.place = place
            if entry.parcel is parcel:
                parcel.held += 1
                self._by_key[entry.key] = entry
                self._by_ticket[entry.ticket] = entry
        self.planner.add_sent(parcel.left)

    def find(self, key: Key) -> Entry | None:
        """Return a dispatch that waits, runs, or has a value here."""
        return self._by_key.get(key)

    def numbered(self, ticket: int) -> Entry | None:
        """Return the dispatch with a number."""
        return self._by_ticket.get(ticket)

    def parcel(self, ticket: int) -> Parcel | None:
        """Return what went under a number."""
        return self._parcels.get(ticket)

    def all(self) -> list[Entry]:
        """Return all dispatches."""
        return list(self._by_ticket.values())

    def parcels(self) -> list[Parcel]:
        """Return all that is with Dask."""
        return list(self._parcels.values())

    def release(self, keys: Iterable[Key]) -> None:
        """Let go of finished dispatches; others are kept until they end."""
        for key in keys:
            entry = self._by_key.get(key)
            if entry is not None and entry.ended:
                self._remove(entry)

    def void(self, entry: Entry, cause: Cause, message: str = "") -> None:
        """End a dispatch for no fault of its body, and what waits for it."""
        if not entry.ended:
            event = DispatchVoided(**_of(entry), cause=cause, message=message)
            self._end(entry, event)

    def void_behind(self, entry: Entry, message: str) -> None:
        """Void a dispatch that cannot run, once all that it depends on has ended.

        Its driver must hear of those ends first: before them it would send the dispatch out again at once.
        """
        open_one = next((up for up in entry.sources if not up.ended), None)
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
            self.told(entry, message)

    def rows(self, ticket: int, worker: str, rows: Sequence[Row]) -> None:
        """Take what became of dispatches in a parcel."""
        parcel = self._parcels.get(ticket)
        if parcel is None:
            return
        back: list[Entry] = []
        for row in rows:
            entry = parcel.entries[row[0]]
            if len(row) == 1:
                self.taken_back(entry)
            elif row[1] is BACK:
                back += [each for each in parcel.entries[row[0] :] if each.parcel is parcel]
            elif row[1] is LONG:
                self.planner.began(entry, clock.monotonic())
            elif entry.parcel is parcel or not entry.ended:
                self.told(entry, outcome_in(row, entry.key, worker), parcel)
        self._gave_back([entry for entry in back if not entry.ended])

    def _began(self, entry: Entry, event: AttemptStarted) -> None:
        if not entry.ended and not entry.started:
            entry.started, entry.worker = True, event.worker
            self.planner.began(entry, clock.monotonic())
            self.news.append(event)

    def told(self, entry: Entry, outcome: Outcome, parcel: Parcel | None = None) -> None:
        """Take an outcome, from the feed, or by way of Dask."""
        first = entry.outcome
        if first is not None:
            self._told_again(entry, first, outcome)
            return
        if entry.ended:
            return
        if not isinstance(outcome, AttemptSucceeded):
            entry.outcome = outcome
            self._end(entry, outcome)
            return
        kept = outcome.value is not None or outcome.stored is not None
        if not kept and parcel is not None and parcel is not entry.parcel:
            return  # the value was in a parcel that is given up
        entry.outcome = outcome
        if kept or self.values_here or (entry.parcel is not None and entry.parcel.there):
            self._end(entry, outcome, good=True)

    def _told_again(self, entry: Entry, first: Outcome, outcome: Outcome) -> None:
        again = (outcome.started_at, outcome.worker) != (first.started_at, first.worker)
        if again and entry.good and not entry.kept and isinstance(outcome, AttemptSucceeded):
            entry.gone = False
            self.news.append(ResultRecomputed(**_of(entry)))

    # What Dask says -------------------------------------------------------------------------------------

    def in_memory(self, ticket: int) -> None:
        """A parcel is done. The outcomes of what was in it should be here too, or come soon."""
        parcel = self._over(ticket)
        if parcel is None:
            return
        parcel.there = True
        for entry in parcel.left:
            if entry.outcome is not None:
                self._end(entry, entry.outcome, good=True)
        if parcel.left:
            parcel.due = clock.monotonic() + RECOVERY
            self._due[ticket] = parcel

    def outcomes_lost(self, ticket: int) -> None:
        """A parcel is done, but what became of these of its dispatches can not be found out."""
        parcel = self._parcels.get(ticket)
        for entry in parcel.left if parcel is not None else ():
            message = "Its outcome was lost with its worker."
            self._end(entry, WorkerLost(**_of(entry), message=message))

    def worker_died(self, ticket: int, worker: str) -> None:
        """The worker that had a parcel is gone: what is not known to have begun there goes again."""
        parcel = self._over(ticket)
        if parcel is None:
            return
        again = []
        for entry in parcel.left:
            entry.outcome = None  # its value has gone with the worker
            if entry.started:
                self._lost_on(entry, worker)
            else:
                again.append(entry)
        alone = self.planner.lost(again, clock.monotonic())
        for entry in again:
            if entry in alone:
                self._lost_on(entry, worker)
            else:
                self._leave(entry)

    def _lost_on(self, entry: Entry, worker: str) -> None:
        entry.lost_on = worker
        if worker in self.deaths or not self.inquests:
            self._lose(entry)
        else:
            entry.due = clock.monotonic() + INQUEST
            self._due[entry.ticket] = entry

    def death(self, worker: str, how: str) -> None:
        """A worker's nanny says how it died."""
        self.deaths.setdefault(worker, how)
        while len(self.deaths) > 100:
            del self.deaths[next(iter(self.deaths))]
        for due in list(self._due.values()):
            if isinstance(due, Entry) and due.lost_on == worker:
                self._lose(due)

    def upstream_failed(self, ticket: int, message: str) -> None:
        """A parcel will not run, because of what it depends on."""
        parcel = self._over(ticket)
        if parcel is None:
            return
        again = []
        for entry in parcel.left:
            dead = [up for up in entry.sources if self.dead(up)]
            for up in dead:
                self.lost(up)
            if dead or any(not up.ended and up.parcel is not parcel for up in entry.sources):
                self.void_behind(entry, message)
            else:
                again.append(entry)
        self._gave_back([entry for entry in again if not entry.ended])

    def lost(self, entry: Entry) -> None:
        """A value that was there cannot be had any more."""
        if entry.good and self._by_key.get(entry.key) is entry:
            entry.gone = True
            self.news.append(ResultLost(**_of(entry)))
            self._remove(entry)

    def not_run(self, entry: Entry, problem: str | DflowError) -> None:
        """A dispatch could not be run at all: trying again would not help."""
        if entry.ended:
            return
        if isinstance(problem, str):
            problem = SerializationError(f"Dask could not run this task: {problem}")
        now = clock.now()
        error = capture(problem)
        failure = AttemptRaised(
            **_of(entry), started_at=now, seconds=0.0, error=error, retriable=False
        )
        self._end(entry, failure)

    def broken(self, ticket: int, problem: str) -> None:
        """Dask could not run a parcel. Which of its dispatches is to blame shows when they go alone."""
        parcel = self._over(ticket)
        if parcel is None:
            return
        left = parcel.left
        if len(left) > 1:
            self.planner.lost(left, clock.monotonic())
            for entry in left:
                self._leave(entry)
        else:
            for entry in left:
                self.not_run(entry, problem)

    def taken_back(self, entry: Entry | None) -> None:
        """A dispatch has not begun, and will not."""
        if entry is not None:
            self.void(entry, Cause.WITHDRAWN)

    def worker_left(self, tickets: Iterable[int], worker: str, expected: bool) -> None:
        """A scheduler that runs things again has lost a worker that had these parcels.

        What had started ends here, and with it what waits for it: Dask's next try is another one. What went
        with others goes again from here, as some of it may have ended.
        """
        cause = Cause.SCALED_DOWN if expected else Cause.WORKER_DIED
        message = f"Worker {worker} has left the cluster."
        for ticket in tickets:
            parcel = self._parcels.get(ticket)
            if parcel is None:
                continue
            for entry in parcel.left:
                if entry.started and entry.worker == worker:
                    behind = _all_behind(entry)
                    self._end(entry, WorkerLost(**_of(entry), cause=cause, message=message))
                    for each in behind:
                        self.void(each, Cause.UPSTREAM, message)
            if not parcel.sole:
                self.worker_died(ticket, worker)

    def is_dead_end(self, ticket: int) -> bool:
        """Tell whether something that a parcel depends on has failed or is gone."""
        parcel = self._parcels.get(ticket)
        return parcel is not None and any(
            self.dead(up) for entry in parcel.left for up in entry.sources
        )

    def scheduler_lost(self, message: str) -> None:
        """Everything that was with Dask is gone."""
        for entry in self.all():
            if entry.good:
                self.lost(entry)
            elif not entry.ended:
                entry.gone = True
                event = WorkerLost(**_of(entry), cause=Cause.SCHEDULER_LOST, message=message)
                self._end(entry, event)
        self._parcels.clear()

    # Time -----------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> list[Parcel]:
        """Report deaths that nobody explains; return finished parcels whose outcomes must be asked for."""
        late = [due for due in self._due.values() if due.due is not None and due.due <= now]
        found = []
        for each in late:
            self._due.pop(each.ticket, None)
            if isinstance(each, Entry):
                self._lose(each)
            elif each.left:
                found.append(each)
        return found

    def next_due(self) -> float | None:
        """Return when `overdue` is to be called next, by the monotonic clock."""
        return min((due.due for due in self._due.values() if due.due is not None), default=None)

    # Ends -------------------------------------------------------------------------------------------------

    def _over(self, ticket: int) -> Parcel | None:
        """Note that Dask has said its last word of a parcel."""
        parcel = self._parcels.get(ticket)
        if parcel is None or parcel.over:
            return None
        parcel.over = True
        self.planner.sent_over(parcel.entries, clock.monotonic())
        self._let_go(parcel)
        return parcel

    def _gave_back(self, entries: Sequence[Entry]) -> None:
        self.planner.gave_back(entries, clock.monotonic())
        for entry in entries:
            self._leave(entry)

    def _lose(self, entry: Entry) -> None:
        how = self.deaths.get(entry.lost_on or "", "died")
        message = f"Worker {entry.lost_on} {how}."
        self._end(entry, WorkerLost(**_of(entry), message=message))

    def _end(self, entry: Entry, event: Event, *, good: bool = False) -> None:
        if entry.ended:
            return
        entry.ended, entry.good = True, good
        entry.sources, entry.work = (), None
        if entry.due is not None:
            self._due.pop(entry.ticket, None)
        self.news.append(event)
        dependents = () if good else tuple(entry.dependents)
        if isinstance(event, Outcome):
            self.planner.ended(entry, event.seconds, _size_of(event), clock.monotonic())
        else:
            self.planner.remove(entry)
        parcel = entry.parcel
        if not good:
            self._remove(entry)
        elif self.values_here or entry.copy is not None:
            self._leave(entry)
        if dependents or self._behind:
            self._settle(entry, parcel, dependents)

    def _settle(self, entry: Entry, parcel: Parcel | None, dependents: Iterable[Any]) -> None:
        """Void what cannot run now: one after the other, however long the chain."""
        for dependent in dependents:
            if dependent.parcel is None or dependent.parcel is parcel:
                self._to_void.append((dependent, BEHIND))
        self._to_void.extend(self._behind.pop(entry.ticket, ()))
        if self._voiding:
            return
        self._voiding = True
        while self._to_void:
            dependent, message = self._to_void.popleft()
            if not dependent.ended:
                self.void_behind(dependent, message)
        self._voiding = False

    def _remove(self, entry: Entry) -> None:
        del self._by_key[entry.key]
        del self._by_ticket[entry.ticket]
        self._due.pop(entry.ticket, None)
        self._leave(entry, unwanted=not entry.good)
        self.forgotten.append(entry)

    def _leave(self, entry: Entry, *, unwanted: bool = False) -> None:
        """Note that a dispatch needs nothing of its parcel any more, or never did."""
        parcel, entry.parcel = entry.parcel, None
        if parcel is not None:
            parcel.held -= 1
            self._let_go(parcel, unwanted=unwanted)

    def _let_go(self, parcel: Parcel, *, unwanted: bool = False) -> None:
        """Let Dask have a parcel that nobody needs; one that is done, but for Dask's word, waits for that."""
        wanted = parcel.held or not (parcel.over or unwanted)
        if not wanted and self._parcels.pop(parcel.ticket, None) is not None:
            self._due.pop(parcel.ticket, None)
            self.released.append(parcel)


def _all_behind(entry: Entry) -> list[Any]:
    """Return all that depends on a dispatch that has not ended."""
    found: dict[Any, None] = {}
    left: list[Any] = [entry]
    while left:
        new = [each for each in left.pop().dependents if each not in found]
        found.update(dict.fromkeys(new))
        left += new
    return list(found)


def _of(entry: Entry) -> dict[str, Any]:
    return {"at": clock.now(), "task_run_id": entry.key[0], "dispatch": entry.key[1]}


def _size_of(event: Outcome) -> int | None:
    """Return how many bytes a value has, as far as that matters; None without one."""
    if not isinstance(event, AttemptSucceeded):
        return None
    if event.size is not None:
        return event.size
    return UNKNOWN_SIZE if event.value is None else len(event.value)
