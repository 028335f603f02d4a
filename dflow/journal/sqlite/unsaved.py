"""Records that are not saved yet: the events that were written tell of them.

A task run changes a few times within a moment. Its events are written at once, its record when it has been
behind for a while, with what it is by then: mostly once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice

from dflow.core.records import TaskRun
from dflow.journal.sqlite.rows import KEEP, Row, task_run_row

Runs = Mapping[str, TaskRun]
Numbers = Mapping[str, int]

BEHIND = 20_000
"""By how many events records may be behind: a reader takes a third of a second for so many."""
HELD = 20_000
"""How many records may be."""
AT_ONCE = 500
"""How many are saved in one go: when there is nothing else to do, or there are too many."""


class Unsaved:
    """The task runs whose records are behind, in the order in which they fell behind."""

    def __init__(self) -> None:
        self._runs: dict[str, TaskRun] = {}
        self._valued: dict[str, int] = {}
        self._behind: deque[tuple[int, deque[str]]] = deque()  # since which event, and who

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        """Tell whether the record of a task run is behind."""
        return run_id in self._runs

    def valued(self, run_id: str) -> int | None:
        """Return which event brought the value of a task run; None if that is not known here."""
        return self._valued.get(run_id)

    def due(self, first: int, last: int, new: Runs) -> list[str]:
        """Return what is to be saved when the events from `first` to `last` have changed `new`."""
        oldest = self._behind[0][0] if self._behind else last
        if last - oldest <= BEHIND and len(self._runs) + len(new) <= HELD:
            return []
        return self._first(max(AT_ONCE, 2 * (last - first)))

    def oldest(self) -> list[str]:
        """Return those that have been behind for longest."""
        return self._first(AT_ONCE)

    def _first(self, count: int) -> list[str]:
        waiting = chain.from_iterable(ids for _, ids in self._behind)
        return list(islice(filter(self._runs.__contains__, waiting), count))

    def all(self) -> list[str]:
        """Return all of them."""
        return list(self._runs)

    def rows(self, due: Numbers, last: int, new: Runs, valued: Numbers) -> Iterator[Row]:
        """Yield what is due, by its numbers, as rows, as the events up to `last` have left it."""
        for run_id, number in due.items():
            run = new.get(run_id) or self._runs[run_id]
            event = valued.get(run_id) or self._valued.get(run_id, KEEP)
            yield task_run_row(number, run, last, event)

    def recorded(self, due: Collection[str], first: int, last: int, new: Runs) -> int:
        """Return up to which event, at least, all records are whole once this is saved.

        `first` is the first new event.
        """
        gone = set(due)
        for since, ids in self._behind:
            if not gone.issuperset(ids):
                return since - 1
        return last if new.keys() <= gone else first - 1

    def change(self, due: Collection[str], first: int, new: Runs, valued: Numbers) -> None:
        """Note that what was due is saved, and that the events from `first` on have changed `new`."""
        if due:
            gone = set(due)
            self._forget(gone)
            new = {run_id: run for run_id, run in new.items() if run_id not in gone}
            valued = {run_id: event for run_id, event in valued.items() if run_id not in gone}
        ids = deque(run_id for run_id in new if run_id not in self._runs)
        if ids:
            self._behind.append((first, ids))
        self._runs.update(new)
        self._valued.update(valued)

    def _forget(self, gone: Collection[str]) -> None:
        for run_id in gone:
            self._runs.pop(run_id, None)
            self._valued.pop(run_id, None)
        while self._behind:
            _, ids = self._behind[0]
            while ids and ids[0] not in self._runs:
                ids.popleft()
            if ids:
                break
            self._behind.popleft()
