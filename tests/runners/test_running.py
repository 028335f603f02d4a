"""A parcel at work, and the thread that looks after it, without any cluster: the time is given."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from dflow.attempts import clock
from task_runners.dask.running import Running, _Watch

LATER = 60.0
"""Seconds after which any item has taken its time."""


class Start:
    """Counts how often a start is told."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def told(self) -> bool:
        """Whether it was."""
        return self.count > 0

    def begun(self) -> None:
        """Count."""
        self.count += 1


def parcel(count: int, slow: Callable[[Any], object] | None = None) -> Running:
    """Return a parcel of so many items that tells nobody anything."""
    return Running(count, lambda *_: None, 0.02, slow=slow)


def test_a_thread_that_is_late_is_waited_for() -> None:
    """An item whose thread lost its turn before the link was there is still found to take its time."""
    slow: list[Any] = []
    running, start = parcel(1, slow.append), Start()
    items = running.items()
    next(items)
    assert running.look(clock.monotonic() + LATER)
    running.begins(start)
    assert not running.look(clock.monotonic() + LATER)
    assert start.told
    assert len(slow) == 1
    running.ended((0,))
    assert list(items) == []


def test_what_is_known_to_have_begun_does_not_wait_to_be_heard() -> None:
    """Its outcome is sent at once, before the next body begins; other outcomes wait."""
    sent: list[tuple[int, bool]] = []
    running = Running(4, lambda rows, at_once: sent.append((len(rows), at_once)), 60.0)
    items, short, long = running.items(), Start(), Start()
    next(items)
    running.begins(short)
    running.ended((0,))
    next(items)
    running.begins(long)
    assert sent == []
    assert running.look(clock.monotonic() + 1.0)
    running.ended((1,))
    assert short.count == 0
    assert sent == [(1, False), (1, True)]
    assert list(items) == [2, 3]


class Stuck(Running):
    """A parcel that keeps the thread that looks after it."""

    def __init__(self) -> None:
        super().__init__(1, lambda *_: None, 0.02)
        self.looked, self.free = threading.Event(), threading.Event()

    def look(self, now: float) -> bool:  # noqa: ARG002  (of what it is instead of)
        """Say that it is looked at, and keep the thread."""
        self.looked.set()
        assert self.free.wait(LATER)
        return False


def test_who_ends_the_watch_does_not_wait_for_others() -> None:
    """Who wants it to end waits no longer once another run has something at work."""
    watch, stuck, other = _Watch(), Stuck(), parcel(1)
    watch.begin(stuck)
    assert stuck.looked.wait(LATER)
    watch.over(stuck)
    ending = threading.Thread(target=watch.end)
    with watch._changed:
        ending.start()
        assert watch._changed.wait_for(lambda: watch._ending, LATER)
    watch.begin(other)
    ending.join(LATER / 6)
    assert not ending.is_alive()
    assert watch._thread is not None
    watch.over(other)
    stuck.free.set()
    watch.end()
    assert watch._thread is None
