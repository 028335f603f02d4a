"""What is heard of dispatches, from two sides that know nothing of each other, joined.

Attempts speak through the feed, and Dask of its keys. What that comes to is in `ends`. It knows no cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dflow.attempts import clock
from dflow.attempts.rows import BACK, LONG, Row, outcome_in
from dflow.core.events import (
    AttemptStarted,
    AttemptSucceeded,
    Outcome,
    Report,
    ResultRecomputed,
    WorkerLost,
)
from dflow.core.records import Cause
from dflow.messages import Key, Up
from task_runners.dask.ends import FAREWELL, Ends, of
from task_runners.dask.parcels import Entry, Parcel

RECOVERY = 1.0
"""Seconds after which an outcome that Dask knows of and nobody told is asked for."""


@dataclass(slots=True)
class Book(Ends):
    """The dispatches of one flow run, and what is heard of them."""

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
                if row[0] == 0:
                    self._over(ticket)
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
        if parcel not in (None, entry.parcel) and _lies_apart(outcome):
            return  # the value was in a parcel that is given up
        entry.outcome = outcome
        self.conclude(entry)

    def _told_again(self, entry: Entry, first: Outcome, outcome: Outcome) -> None:
        again = (outcome.started_at, outcome.worker) != (first.started_at, first.worker)
        if again and entry.good and not entry.kept and isinstance(outcome, AttemptSucceeded):
            entry.gone = False
            self.news.append(ResultRecomputed(**of(entry)))

    # What Dask says -------------------------------------------------------------------------------------

    def in_memory(self, ticket: int) -> None:
        """A parcel is done. The outcomes of what was in it should be here too, or come soon."""
        parcel = self._over(ticket)
        if parcel is None:
            return
        parcel.there = True
        for entry in parcel.left:
            self.conclude(entry)
        if parcel.unheard:
            parcel.due = clock.monotonic() + RECOVERY
            self._due[ticket] = parcel

    def outcomes_lost(self, ticket: int) -> None:
        """A parcel is done, but what became of these of its dispatches can not be found out.

        Of several none has brought its worker down, as the parcel was done: they go again.
        """
        parcel = self._parcels.get(ticket)
        if parcel is None:
            return
        if not parcel.sole:
            self._gave_back(parcel.unheard)
            return
        for entry in parcel.unheard:
            message = "Its outcome was lost with its worker."
            self._end(entry, WorkerLost(**of(entry), message=message))

    def worker_died(self, ticket: int, worker: str) -> None:
        """The worker that had a parcel is gone: what is not known to have begun there goes again.

        What was heard to have ended well is lost, too, if its value has gone with the worker.
        """
        parcel = self._over(ticket)
        if parcel is None:
            return
        again = [each for each in parcel.unheard if not each.started]
        for entry in parcel.left:
            if entry.on_worker:
                self._lost_on(entry, worker)
        alone = self.planner.lost(again, clock.monotonic())
        for entry in again:
            if entry in alone:
                self._lost_on(entry, worker)
            else:
                self._leave(entry)

    def upstream_failed(self, ticket: int, message: str) -> None:
        """A parcel will not run, because of what it depends on."""
        parcel = self._over(ticket)
        if parcel is None:
            return
        self._lose_values(parcel, message)
        again = []
        for entry in parcel.unheard:
            dead = [up for up in entry.sources if self.dead(up)]
            for up in dead:
                self.lost(up)
            if dead or any(not up.ended and up.parcel is not parcel for up in entry.sources):
                self.void_behind(entry, message)
            else:
                again.append(entry)
        self._gave_back([entry for entry in again if not entry.ended])

    def broken(self, ticket: int, problem: str) -> None:
        """Dask could not run a parcel. Which of its dispatches is to blame shows when they go alone."""
        parcel = self._over(ticket)
        if parcel is None:
            return
        self._lose_values(parcel, problem)
        left = parcel.unheard
        if len(left) > 1:
            self.planner.lost(left, clock.monotonic())
            for entry in left:
                self._leave(entry)
        else:
            for entry in left:
                self.not_run(entry, problem)

    def worker_retired(self, tickets: Iterable[int], worker: str) -> None:
        """A worker has left that was told to: it may say yet what had begun there, and what came of it."""
        for ticket in tickets:
            parcel = self._over(ticket)
            if parcel is not None and parcel.left:
                parcel.retired, parcel.due = worker, clock.monotonic() + FAREWELL
                self._due[ticket] = parcel

    def _lose_values(self, parcel: Parcel, message: str) -> None:
        """End what has run in a parcel and whose value did not come of it."""
        for entry in parcel.left:
            if entry.outcome is not None and entry.on_worker:
                self._end(entry, WorkerLost(**of(entry), message=f"Its value was lost: {message}"))

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
                if entry.on_worker and worker == (entry.outcome or entry).worker:
                    behind = _all_behind(entry)
                    self._end(entry, WorkerLost(**of(entry), cause=cause, message=message))
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
                event = WorkerLost(**of(entry), cause=Cause.SCHEDULER_LOST, message=message)
                self._end(entry, event)
        self._parcels.clear()


def _lies_apart(outcome: Outcome) -> bool:
    """Tell whether there is a value, and it did not come along."""
    if not isinstance(outcome, AttemptSucceeded):
        return False
    return outcome.value is None and outcome.stored is None


def _all_behind(entry: Entry) -> list[Any]:
    """Return all that depends on a dispatch that has not ended."""
    found: dict[Any, None] = {}
    left: list[Any] = [entry]
    while left:
        new = [each for each in left.pop().dependents or () if each not in found]
        found.update(dict.fromkeys(new))
        left += new
    return list(found)
