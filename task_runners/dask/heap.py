"""The heap of a worker process of ours: what one body has freed is at hand for the next one.

Dask has the C library give back every larger block at once, so that a worker never seems to need more than it
does. Then a body that makes an array pays for all its pages anew, which takes longer than to compute it.
Here such blocks stay with the process for a while, and are given back now and then; when memory gets
tight Dask's way is taken, as Dask reads from the size of the process when to spill and when to pause.
"""

# distributed has types in places only.
# mypy: disallow-subclassing-any=False

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from distributed import Worker, WorkerPlugin
from distributed.system import MEMORY_LIMIT

from dflow.attempts import clock
from task_runners.dask.forks import DEFAULTS

REUSED = 32 << 20
"""Bytes of the largest block that is used again: the most that the C library can be told."""
HEAP = 64 << 20
"""Bytes of a heap of a thread that is not the main one: so much of one is kept, though nothing is in it."""
KEPT = 1 << 30
"""Bytes at the end of the main heap that are kept until the next time that what is free goes back."""
TIGHT = 0.4
"""The share of its memory from which on a process keeps nothing: Dask spills from 0.6 on."""
LOOK = 0.2
"""Seconds between two looks."""
REST = 2.0
"""Seconds that what is free stays at least, while there is plenty."""
WORK = 0.1
"""Seconds that a process must have computed before anything can have become free that is worth it."""
SHARE = 20
"""How many times what a look took goes by before the next one."""

TRIM = "MALLOC_TRIM_THRESHOLD_"
_OTHERS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_DEFAULT = 128 << 10

_log = logging.getLogger("dflow.runners")


class Allocator(Protocol):
    """What keeps memory that is free, or gives it back."""

    def reuse(self, wanted: bool) -> None:
        """Keep larger blocks that are freed from now on, or give them back at once."""

    def give_back(self) -> None:
        """Give back what is free."""


class Glibc:
    """The allocator of the GNU C library. Raises `AttributeError` or `OSError` where that is not there."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._set: Callable[[int, int], int] = library.mallopt
        self._trim: Callable[[int], int] = library.malloc_trim

    def reuse(self, wanted: bool) -> None:
        """Keep larger blocks that are freed from now on, or give them back at once."""
        self._set(_M_MMAP_THRESHOLD, REUSED if wanted else _DEFAULT)
        self._set(_M_TOP_PAD, HEAP if wanted else _DEFAULT)
        self._set(_M_TRIM_THRESHOLD, KEPT if wanted else int(DEFAULTS[TRIM]))

    def give_back(self) -> None:
        """Give back what is free."""
        self._trim(0)


class Keeper:
    """Decides what becomes of what is free in a process that may have `limit` bytes."""

    def __init__(self, allocator: Allocator, limit: int) -> None:
        self._allocator = allocator
        self._limit = limit
        self._tight = False
        self._at = self._busy = 0.0
        allocator.reuse(True)

    def look(self, now: float, busy: float, resident: int) -> None:
        """See how things stand: the time, for how many seconds the process has computed, its bytes."""
        tight = resident > TIGHT * self._limit
        if tight != self._tight:
            self._tight = tight
            self._allocator.reuse(not tight)
        rested = tight or now - self._at >= REST
        if rested and busy - self._busy >= WORK:
            self._at, self._busy = now, busy
            self._allocator.give_back()


def is_free_to_choose(environment: Mapping[str, str]) -> bool:
    """Tell whether nobody but Dask has said how memory is to be kept."""
    asked = environment.get(TRIM, DEFAULTS[TRIM]) != DEFAULTS[TRIM]
    return not asked and not any(name in environment for name in _OTHERS)


class Heap(WorkerPlugin):
    """Looks after the heap of a worker process, in a thread of its own."""

    name = "dflow-heap"

    def setup(self, worker: Worker) -> None:
        """Begin, where this is the C library that can do it, and nobody has said otherwise."""
        self._ended = threading.Event()
        if not is_free_to_choose(os.environ):
            return
        try:
            allocator = Glibc()
        except (AttributeError, OSError):
            return
        manager: Any = worker.memory_manager
        keeper = Keeper(allocator, manager.memory_limit or MEMORY_LIMIT)
        threading.Thread(target=self._run, args=(keeper,), name=self.name, daemon=True).start()

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002  (of distributed)
        """End."""
        self._ended.set()

    def _run(self, keeper: Keeper) -> None:
        took = 0.0
        while not self._ended.wait(max(LOOK, SHARE * took)):
            began = clock.monotonic()
            try:
                keeper.look(began, sum(os.times()[:2]), resident())
            except Exception:
                _log.exception("The memory of a worker is not looked after any more.")
                return
            took = clock.monotonic() - began


def resident() -> int:
    """Return how many bytes this process has, where the C library is the one that is asked for above."""
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(100).split()[1]) * os.sysconf("SC_PAGE_SIZE")
