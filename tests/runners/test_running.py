"""A parcel at work, and the thread that looks after it, without any cluster: the time is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dflow.attempts import clock
from task_runners.dask.running import Running

LATER = 60.0
"""Seconds after which any item has taken its time."""


class Start:
    """Counts how often a start is told."""

    def __init__(self) -> None:
        self.told = 0

    def begun(self) -> None:
        """Count."""
        self.told += 1


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
