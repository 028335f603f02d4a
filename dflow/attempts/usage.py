"""What an attempt takes of its machine: time of processors, and memory of its process.

Measuring must cost next to nothing, as most bodies take microseconds.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import cache
from typing import Any, NamedTuple

from dflow.attempts import clock

try:
    _resource: Any = importlib.import_module("resource")
except ImportError:  # it is not there on every system: then peaks are not known
    _resource = None

LOOK = 0.01
"""Seconds between two looks at the memory of this process."""
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of the unit in which the system tells the peak."""


class Memory(NamedTuple):
    """How many bytes a process has resident, and had at most in its life, seen at a time on its clock."""

    at: float
    resident: int | None
    peak: int | None


class Usage:
    """What is used from now on by this thread, and by this process.

    A thread's time counts from here, and what other threads of the body `add`. Where others use the thread
    too (`shared`), as on an event loop, nobody can tell.
    """

    __slots__ = ("_before", "_began", "_elsewhere", "shared")

    def __init__(self) -> None:
        self.shared = False
        self._elsewhere = 0.0
        self._before = looked()
        self._began = clock.thread_time()

    def add(self, seconds: float) -> None:
        """Count what another thread of the body has taken."""
        self._elsewhere += seconds

    def cpu(self) -> float | None:
        """Return how many seconds processors were busy with it; to be asked in the thread that began."""
        return None if self.shared else clock.thread_time() - self._began + self._elsewhere

    def memory(self) -> int | None:
        """Return the highest known number of bytes that the process had resident meanwhile.

        That is the peak of its life if it is a new one, and otherwise what was seen before or after.
        """
        before, after = self._before, looked()
        if before.peak is not None and after.peak is not None and after.peak > before.peak:
            return after.peak
        if before.resident is None or after.resident is None:
            return after.resident
        return max(before.resident, after.resident)


_last = Memory(float("-inf"), None, None)


def looked() -> Memory:
    """Return what is known of the memory of this process, from a look that is not older than `LOOK`."""
    global _last  # noqa: PLW0603  (one per process, as its memory is)
    now = clock.monotonic()
    if now - _last.at >= LOOK:
        process = _process(os.getpid())
        peak = None if _resource is None else _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss
        _last = Memory(
            now,
            None if process is None else process.memory_info().rss,
            None if peak is None else peak * UNIT,
        )
    return _last


@cache
def _process(pid: int) -> Any:
    try:
        import psutil  # lazy: it takes longer to import than the first tasks take to run
    except ImportError:  # a worker may lack it
        return None
    return psutil.Process(pid)
