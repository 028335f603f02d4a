"""From works to entries of the book: what the planner is to know of each, and whether it can still run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dflow.attempts.functions import ByReference, ByValue
from dflow.core.records import Cause
from dflow.messages import AtRunner, Work
from task_runners.dask.book import Book
from task_runners.dask.ends import bytes_with_dask
from task_runners.dask.graph import tickets
from task_runners.dask.parcels import Entry

KNOWN = 256
"""How many functions' labels are remembered."""
ELSEWHERE = "Where its earlier driver had sent it, it did not begin."
GONE = "What it depends on is not on the cluster any more."


class Works:
    """Enters works into the book. Used with the book's lock."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._labels: dict[tuple[str, int], tuple[Any, str]] = {}

    def enter(self, work: Work, size: int) -> None:
        """Enter a work, behind those at this runner that it depends on; one that cannot run is void."""
        info, placement = work.info, work.placement
        sources: tuple[Entry, ...] = ()
        missed, depth = False, 0
        if work.inputs:
            keys = [given.key for given in work.inputs.values() if isinstance(given, AtRunner)]
            found = [self._book.find(key) for key in keys]
            sources = tuple(each for each in found if each is not None)
            missed = len(sources) < len(keys)
            depth = max((each.depth + 1 for each in sources), default=0)
            if not self._book.values_here:
                size += sum(map(bytes_with_dask, sources))
        ticket = next(tickets)
        entry = Entry(
            key=info.key,
            label=self._label(info.task_name, work.call),
            group=placement.priority,
            alone=bool(
                placement.batch is False
                or info.confirm_start
                or placement.resources
                or placement.workers
            ),
            shares=placement.batch is True,
            priority=placement.priority,
            depth=depth,
            number=ticket,
            size=size,
            upstreams=tuple(each for each in sources if not each.ended) if sources else (),
            ticket=ticket,
            work=work,
            sources=sources,
        )
        self._book.enter(entry)
        if missed:
            self._book.planner.remove(entry)
            self._book.void_behind(entry, GONE)

    def _label(self, task_name: str, call: Any) -> str:
        """Return by what durations are learned: the task and its function."""
        function = getattr(call, "function", None)
        if function is None:
            function = call.call.function  # in memory
        known = self._labels.get((task_name, id(function)))
        if known is None or known[0] is not function:
            if len(self._labels) >= KNOWN:
                self._labels.clear()
            known = (function, label_of(task_name, function))
            self._labels[task_name, id(function)] = known
        return known[1]

    def sound(self, entries: Sequence[Any]) -> list[Entry]:
        """Return those of some entries that can run; the others are void, or will be.

        What an earlier driver had sent out cannot be sent again by this one, which has not been asked for it.
        """
        for entry in [each for each in entries if each.work is None]:
            self._book.void(entry, Cause.DRIVER_LOST, ELSEWHERE)
        entries = [entry for entry in entries if entry.work is not None]
        if not any(entry.sources for entry in entries):
            return list(entries)
        found = []
        stuck: set[Entry] = set()
        for entry in entries:
            dead = [source for source in entry.sources if self._book.dead(source)]
            for source in dead:
                self._book.lost(source)
            if dead:
                self._book.void_behind(entry, GONE)
            if dead or not stuck.isdisjoint(entry.sources):
                stuck.add(entry)
            else:
                found.append(entry)
        return [entry for entry in found if not entry.ended]


def label_of(task_name: str, function: Any) -> str:
    """Return by what durations are learned of a task and its function."""
    return f"{task_name} {_named(function)}"


def _named(function: Any) -> str:
    if isinstance(function, ByReference):
        return f"{function.module}:{function.qualname}"
    if isinstance(function, ByValue):
        return function.digest
    return (
        f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', id(function))}"
    )
