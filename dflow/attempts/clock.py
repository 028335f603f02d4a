"""The clock, and the luck, of the machine on which an attempt runs."""

from __future__ import annotations

import random
import time


def now() -> float:
    """Return seconds since 1970 in UTC."""
    return time.time()


def monotonic() -> float:
    """Return seconds that never go backwards, from some start."""
    return time.perf_counter()


def thread_time() -> float:
    """Return seconds that processors have been busy with this thread."""
    return time.thread_time()


def luck() -> float:
    """Return a number in [0, 1)."""
    return random.random()
