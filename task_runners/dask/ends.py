"""Every dispatch that a runner has, from when it is entered until it ends: the one place that gives ends.

What ends badly takes with it what waits for it. The planner is kept in step, and a parcel that nobody needs
any more is let go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
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
    ResultLost,
    WorkerLost,
)
from dflow.core.records import Cause
from dflow.errors import DflowError, SerializationError
from dflow.messages import Key, Up
from task_runners.dask.parcels import DaskKey, Entry, Parcel
from task_runners.dask.planner import Planner

INQUEST = 2.0
"""Seconds in which a nanny may say how its worker died, before the loss is reported without."""
FAREWELL = 0.5
"""Seconds in which a worker that was told to leave, and has left, may say what it did last."""
UNKNOWN_SIZE = 1_000_000
"""Bytes that a value counts that did not come with its outcome, where nobody says how many it has."""
BEHIND = "Something that it depends on came to nothing."


@dataclass(slots=True)
class Ends:
    """The dispatches of one flow run, and their ends. Not safe for threads: its owner has the lock.

    `status` tells how a Dask key stands, before the news of it are here. With `values_here` all values are in
    the driver's memory. What is to be reported is in `news`.
    """

    status: Callable[[DaskKey], str] = lambda key: "pending"
    planner: Planner = field(default_factory=lambda: Planner(1))
    inquests: bool = True
    values_here: bool = False
    news: list[Up] = field(default_factory=list)
    released: list[Parcel] = field(default_factory=list)
    forgotten: list[Entry] = field(default_factory=list)
    deaths: dict[str, str] = field(default_factory=dict)
    _by_key: dict[Key, Entry] = field(default_factory=dict)
    _called_off: dict[int, Entry] = field(default_factory=dict)
    _parcels: dict[int, Parcel] = field(default_factory=dict)
    _due: dict[int, Entry | Parcel] = field(default_factory=dict)
    _behind: dict[int, list[tuple[Entry, str]]] = field(default_factory=dict)
    _after: dict[int, list[Entry]] = field(default_factory=dict)
    _next: deque[Callable[[], None]] = field(default_factory=deque)
    _settling: bool = False

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
        return asked and parcel is not None and self.status(parcel.dask_key) == "error"

    # What the driver does ---------------------------------------------------------------------------

    def enter(self, entry: Entry) -> None:
        """Add a dispatch, to be sent when the planner says so."""
        self._by_key[entry.key] = entry
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
        self.planner.add_sent(parcel.left, sole=parcel.alone)

    def find(self, key: Key) -> Entry | None:
        """Return a dispatch that waits, runs, or has a value here."""
        return self._by_key.get(key)

    def call_off(self, entry: Entry) -> int:
        """Note that a dispatch is not to begin; return the number by which that is answered."""
        self._called_off[entry.ticket] = entry
        return entry.ticket

    def called_off(self, ticket: int) -> Entry | None:
        """Return the dispatch with this number that is not to begin."""
        return self._called_off.pop(ticket, None)

    def parcel(self, ticket: int) -> Parcel | None:
        """Return what went under a number."""
        return self._parcels.get(ticket)

    def all(self) -> list[Entry]:
        """Return all dispatches."""
        return list(self._by_key.values())

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
            event = DispatchVoided(**of(entry), cause=cause, message=message)
            self._end(entry, event)

    def void_behind(self, entry: Entry, message: str) -> None:
        """Void a dispatch that cannot run, once all that it depends on has ended.

        Its driver must hear of those ends first: before them it would send the dispatch out again at once.
        """
        if entry.ended:
            return
        open_one = _open_source(entry)
        if open_one is None:
            self.void(entry, Cause.UPSTREAM, message)
        else:
            self._behind.setdefault(open_one.ticket, []).append((entry, message))

    # What is lost, or cannot be -----------------------------------------------------------------------

    def lost(self, entry: Entry) -> None:
        """A value that was there cannot be had any more."""
        if entry.good and self._by_key.get(entry.key) is entry:
            entry.gone = True
            self.news.append(ResultLost(**of(entry)))
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
            **of(entry), started_at=now, seconds=0.0, error=error, retriable=False
        )
        self._end(entry, failure)

    def taken_back(self, entry: Entry | None) -> None:
        """A dispatch has not begun, and will not."""
        if entry is not None:
            self.void(entry, Cause.WITHDRAWN)

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

    # Time -----------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> list[Parcel]:
        """End what waits no longer; return finished parcels whose outcomes must be asked for."""
        late = [due for due in self._due.values() if due.due is not None and due.due <= now]
        found = []
        for each in late:
            self._due.pop(each.ticket, None)
            if isinstance(each, Entry):
                self._lose(each)
            elif each.retired:
                self._give_up(each)
            elif each.unheard:
                found.append(each)
        return found

    def next_due(self) -> float | None:
        """Return when `overdue` is to be called next, by the monotonic clock."""
        return min((due.due for due in self._due.values() if due.due is not None), default=None)

    def _give_up(self, parcel: Parcel) -> None:
        """Wait no longer for what a worker that has left may say: what had not begun there goes again."""
        message = f"Worker {parcel.retired} has left the cluster."
        for entry in parcel.left:
            if entry.on_worker:
                event = WorkerLost(**of(entry), cause=Cause.SCALED_DOWN, message=message)
                self._end(entry, event)
        self._gave_back(parcel.unheard)

    # Ends -------------------------------------------------------------------------------------------------

    def conclude(self, entry: Entry) -> None:
        """End a dispatch as its outcome says: once its value can be had, and after all that it depends on.

        So the order of what is recorded is that in which it came about, whichever way the news took.
        """
        outcome = entry.outcome
        if outcome is None or entry.ended:
            return
        good = isinstance(outcome, AttemptSucceeded)
        if good and not (entry.kept or self.values_here or self._is_there(entry.parcel)):
            return
        open_one = _open_source(entry) if entry.sources else None
        if open_one is None:
            self._end(entry, outcome, good=good)
        else:
            self._after.setdefault(open_one.ticket, []).append(entry)

    def _is_there(self, parcel: Parcel | None) -> bool:
        return parcel is not None and (parcel.there or self.status(parcel.dask_key) == "finished")

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
        self._end(entry, WorkerLost(**of(entry), message=message))

    def _end(self, entry: Entry, event: Event, *, good: bool = False) -> None:
        if entry.ended:
            return
        heard = entry.outcome
        if heard is not None and event is not heard and not entry.started:
            at, worker = heard.started_at, heard.worker
            self.news.append(AttemptStarted(**of(entry) | {"at": at}, worker=worker))
        entry.ended, entry.good = True, good
        entry.sources, entry.work = (), None
        if entry.due is not None:
            self._due.pop(entry.ticket, None)
        self.news.append(event)
        dependents = () if good else tuple(entry.dependents or ())
        if isinstance(event, Outcome):
            self.planner.ended(entry, event.seconds, _size_of(event), clock.monotonic())
        else:
            self.planner.remove(entry)
        parcel = entry.parcel
        if not good:
            self._remove(entry)
        elif self.values_here or entry.copy is not None:
            self._leave(entry)
        if dependents or self._behind or self._after:
            self._settle(entry, parcel, dependents)

    def _settle(self, entry: Entry, parcel: Parcel | None, dependents: Iterable[Any]) -> None:
        """End what has waited for this end, or cannot run now, one after the other, however many they are."""
        for dependent in dependents:
            if dependent.parcel is None or dependent.parcel is parcel:
                self._next.append(partial(self.void_behind, dependent, BEHIND))
        for dependent, message in self._behind.pop(entry.ticket, ()):
            self._next.append(partial(self.void_behind, dependent, message))
        for waiting in self._after.pop(entry.ticket, ()):
            end = self.conclude if entry.good else partial(self.void_behind, message=BEHIND)
            self._next.append(partial(end, waiting))
        if self._settling:
            return
        self._settling = True
        while self._next:
            self._next.popleft()()
        self._settling = False

    def _remove(self, entry: Entry) -> None:
        del self._by_key[entry.key]
        self._called_off.pop(entry.ticket, None)
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


def _open_source(entry: Entry) -> Entry | None:
    return next((up for up in entry.sources if not up.ended), None)


def of(entry: Entry) -> dict[str, Any]:
    """Return what every report of a dispatch says."""
    return {"at": clock.now(), "task_run_id": entry.key[0], "dispatch": entry.key[1]}


def _size_of(event: Outcome) -> int | None:
    """Return how many bytes a value has, as far as that matters; None without one."""
    if not isinstance(event, AttemptSucceeded):
        return None
    if event.size is not None:
        return event.size
    return UNKNOWN_SIZE if event.value is None else len(event.value)


def bytes_with_dask(entry: Entry) -> int:
    """Return how many bytes the value of a dispatch has that ended well, if nobody but Dask has it."""
    if not entry.good or entry.kept or entry.outcome is None:
        return 0
    return _size_of(entry.outcome) or 0
