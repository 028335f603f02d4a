"""Flow runs that go on beside the main thread, and what becomes of them when the program ends.

A program that comes to its end waits for them. One that is ended by Ctrl-C does not: they are recorded as
interrupted, to be resumed.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from functools import cache

_going: dict[threading.Thread, Callable[[], None]] = {}


@cache
def _end_at_exit() -> None:
    """Let `end` run when the main thread has ended, before executors do, which flows may still need.

    ``threading`` keeps a list for that, the last entry first, which has no public name; and executors that
    are first used after that moment are refused.
    """
    import concurrent.futures.process  # lazy: only where flows go on beside their callers
    import concurrent.futures.thread  # lazy: as above; both only for what they register  # noqa: F401

    register: Callable[[Callable[[], None]], object] = getattr(
        threading, "_register_atexit", atexit.register
    )
    register(end)


def go(work: Callable[[], None], interrupt: Callable[[], None], name: str) -> None:
    """Do some work in a thread of its own; `interrupt` records that it was cut short."""

    def run() -> None:
        try:
            work()
        finally:
            _going.pop(threading.current_thread(), None)

    _end_at_exit()
    thread = threading.Thread(target=run, name=name, daemon=True)
    _going[thread] = interrupt
    thread.start()


def end() -> None:
    """Wait for all of it; after Ctrl-C, or when Ctrl-C comes meanwhile, interrupt it instead."""
    stopped = getattr(sys, "last_type", None)
    try:
        if stopped is not None and issubclass(stopped, KeyboardInterrupt):
            raise KeyboardInterrupt
        for thread in list(_going):
            thread.join()
    except KeyboardInterrupt:
        for interrupt in list(_going.values()):
            interrupt()
