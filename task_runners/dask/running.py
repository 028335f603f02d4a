"""A parcel at work on a thread: whose turn it is, what has become of the others, what is given back.

A thread of its own looks after the parcels that are at work in this process. What runs longer than parcels
are meant to is reported to have begun, and does not hold up what is behind it: that is given back. Outcomes
wait a moment for others to travel with them, and not for a body that takes its time. Those of what is known
to have begun do not wait: should a next body end this process before they have left, they are charged for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

from dflow.attempts import clock
from dflow.attempts.rows import BACK, Row, weight_of
from task_runners.dask.places import Place

LOOK = 0.01
"""Seconds between two looks at what is at work."""
LONG = 0.02
"""From how many seconds on the start of a body is told."""
TOGETHER = 0.01
"""Seconds that an outcome waits at most for others to travel with it, before it is handed to the sender."""
MAX_ROWS = 200_000
"""About how many bytes of outcomes travel together."""
IDLE = 30.0
"""Seconds after which the thread that looks ends, if nothing is at work."""

_log = logging.getLogger("dflow.runners")

Tell = Callable[[list[Row], bool], None]
"""Sends rows to the driver, at once or with what comes soon."""


class HasStart(Protocol):
    """What can tell of the start of an attempt."""

    @property
    def told(self) -> bool:
        """Whether it has."""

    def begun(self) -> None:
        """Let the driver know."""


class Running:
    """A parcel at work.

    `tell` sends what has become of its items; `patience` is how many seconds an item may run before those
    behind it are given back, unless it `keeps` them. No further item begins once the worker `leaves`. Once an
    item takes its time `slow` is called, with what tells whether it still does.
    """

    def __init__(
        self,
        count: int,
        tell: Tell,
        patience: float,
        *,
        keeps: bool = False,
        leaves: Callable[[], bool] = bool,
        slow: Callable[[Callable[[], bool]], object] | None = None,
    ) -> None:
        self._tell = tell
        self._patience = patience
        self._keeps = keeps
        self._leaves = leaves
        self._slow = slow
        self._slow_since = -1
        self._open = False
        self._left = False
        self._lock = threading.Lock()
        self._end = count
        self._present = -1
        self._began = 0.0
        self._link: HasStart | None = None
        self._rows: list[Row] = []
        self._rows_since = 0.0
        self._weight = 0
        self.all_rows: list[Row] = []

    def items(self) -> Iterator[int]:
        """Yield the places of the items, one after the other, as long as they have not been given back."""
        _watch.begin(self)
        try:
            while self._next():
                yield self._present
        finally:
            _watch.over(self)
            self._flush(at_once=True)

    def _next(self) -> bool:
        if self._present >= 0 and self._leaves():
            self.give_back()
        with self._lock:
            if self._present + 1 >= self._end:
                return False
            self._present += 1
            self._began, self._link, self._open = clock.monotonic(), None, True
            return True

    def begins(self, link: HasStart) -> None:
        """Note the link of the item whose turn it is."""
        self._link = link

    def ended(self, row: Row) -> None:
        """Note what has become of the item whose turn it was."""
        with self._lock:
            link, self._link, self._open = self._link, None, False
            if not self._rows:
                self._rows_since = clock.monotonic()
            self._rows.append(row)
            self._weight += weight_of(row)
            heavy = self._weight > MAX_ROWS
            told = link is not None and link.told
        if told:
            self._flush(at_once=True)
        elif heavy:
            self._flush()

    def _flush(self, *, at_once: bool = False) -> None:
        with self._lock:
            rows, self._rows, self._weight = self._rows, [], 0
            if rows:
                self.all_rows += rows
                self._tell(rows, at_once)

    def give_back(self) -> None:
        """Give back what is behind the present item."""
        with self._lock:
            first = self._present + 1
            behind = first < self._end and not self._keeps
            if behind:
                self._end = first
                self._rows.append((first, BACK))
        if behind:
            self._flush(at_once=True)

    def leave(self) -> None:
        """Say at once, and once, all that there is to say: there is little time left."""
        if self._left:
            return
        self._left = True
        link = self._link
        if link is not None:
            link.begun()
        self.give_back()
        self._flush()
        self._tell([], True)

    def slot(self, place: Place) -> Callable[[], AbstractContextManager[Any]]:
        """Return what gives the place back while the present item waits: then nothing waits behind it.

        A thread that an item has left behind, and that waits later, changes nothing.
        """
        return partial(self._waiting, place, self._present)

    @contextmanager
    def _waiting(self, place: Place, mine: int) -> Iterator[None]:
        if self._link is not None:
            self._link.begun()
        self.give_back()
        with place.slot() if self._present == mine else nullcontext():
            yield

    def look(self, now: float) -> bool:
        """See what the time has brought; return whether there is anything left to look for."""
        if self._leaves():
            self.leave()
        with self._lock:
            link, since = self._link, now - self._began
            if link is not None and since >= LONG:
                link.begun()
        if link is not None and since >= self._patience:
            self.give_back()
            self._say_slow()
        if self._rows and now - self._rows_since >= TOGETHER:
            self._flush()
        # Its thread may be late: an item whose turn it is may have no link yet, however long that takes.
        waits = since < max(LONG, self._patience) or (
            self._open and self._slow_since < self._present
        )
        return self._present + 1 < self._end or waits or bool(self._rows)

    def _say_slow(self) -> None:
        present = self._present
        if self._slow_since == present:
            return
        self._slow_since = present
        if self._slow is not None:
            self._slow(lambda: self._link is not None and self._present == present)


class _Watch:
    """The thread that looks after what is at work."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[Running] = set()
        self._thread: threading.Thread | None = None
        self._ending = False

    def begin(self, running: Running) -> None:
        """Look after a parcel."""
        with self._changed:
            self._running.add(running)
            self._ending = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dflow-watch", daemon=True)
                self._thread.start()
            elif len(self._running) == 1:
                self._changed.notify_all()

    def over(self, running: Running) -> None:
        """Look after it no more."""
        with self._changed:
            self._running.discard(running)

    def at_work(self) -> list[Running]:
        """Return the parcels that it looks after."""
        with self._changed:
            return list(self._running)

    def end(self) -> None:
        """End the thread if nothing is at work, and wait until it has, or until something is."""
        with self._changed:
            thread, self._ending = self._thread, not self._running
            if thread is None or not self._ending:
                return
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._thread is not thread or not self._ending)
            ended = self._thread is not thread
        if ended:
            thread.join()

    def _run(self) -> None:
        pause = threading.Event()
        while running := self._present():
            pause.wait(LOOK)
            now = clock.monotonic()
            for each in running:
                try:
                    more = each.look(now)
                except Exception:
                    _log.exception("What is at work here could not be looked after.")
                    more = False
                if not more:
                    self.over(each)

    def _present(self) -> list[Running]:
        """Wait for something to look after; nothing when the thread is to end."""
        with self._changed:
            while not self._running:
                if self._ending or not (self._changed.wait(IDLE) or self._running):
                    self._thread = None
                    self._changed.notify_all()
                    return []
            return list(self._running)


_watch = _Watch()


def last_words() -> None:
    """Let all that is at work in this process, which is about to end, say what there is to say."""
    for running in _watch.at_work():
        running.leave()


def end_watch() -> None:
    """End the thread that looks after parcels in this process, if there are none."""
    _watch.end()
