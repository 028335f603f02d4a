"""Records that are not saved yet: the events that were written tell of them.

A task run changes a few times within a moment. Its events are written at once, its record when it has been
behind for a while, with what it is by then: mostly once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from itertools import islice

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
        # Since which event a record is behind, the record, and which event brought its value, if one did.
        self._runs: OrderedDict[str, tuple[int, TaskRun, int | None]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._runs)

    def valued(self, run_id: str) -> int | None:
        """Return which event brought the value of a task run; None if that is not known here."""
        behind = self._runs.get(run_id)
        return None if behind is None else behind[2]

    def due(self, first: int, last: int, new: Runs) -> list[str]:
        """Return what is to be saved when the events from `first` to `last` have changed `new`."""
        oldest = next(iter(self._runs.values()))[0] if self._runs else last
        if last - oldest <= BEHIND and len(self._runs) + len(new) <= HELD:
            return []
        return list(islice(self._runs, max(AT_ONCE, 2 * (last - first))))

    def oldest(self) -> list[str]:
        """Return those that have been behind for longest."""
        return list(islice(self._runs, AT_ONCE))

    def all(self) -> list[str]:
        """Return all of them."""
        return list(self._runs)

    def rows(self, due: Numbers, last: int, new: Runs, valued: Numbers) -> Iterator[Row]:
        """Yield what is due, by its numbers, as rows, as the events up to `last` have left it."""
        for run_id, number in due.items():
            run = new.get(run_id) or self._runs[run_id][1]
            event = valued.get(run_id) or self.valued(run_id)
            yield task_run_row(number, run, last, KEEP if event is None else event)

    def recorded(self, due: Collection[str], first: int, last: int, new: Runs) -> int:
        """Return up to which event all records are whole once this is saved; `first` is the first new one."""
        gone = set(due)
        for run_id, (since, _, _) in self._runs.items():
            if run_id not in gone:
                return since - 1
        return last if new.keys() <= gone else first - 1

    def change(self, due: Collection[str], first: int, new: Runs, valued: Numbers) -> None:
        """Note that what was due is saved, and that the events from `first` on have changed `new`."""
        behind = self._runs
        for run_id in due:
            behind.pop(run_id, None)
        saved = set(due)
        for run_id, run in new.items():
            if run_id in saved:
                continue
            since, _, event = behind.get(run_id, (first, run, None))
            behind[run_id] = (since, run, valued.get(run_id, event))
