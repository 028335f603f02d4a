"""The place of a task in its worker's pool of threads, left and taken again by any thread of its body.

`distributed.secede` and `rejoin` do this for the calling thread only. Doing it for another one needs pieces
of distributed that are not public; this module and `internals` are the only ones that use such. What it
relies on is checked when a task begins; where that is not as it was, only the task's own thread gives its
place back, by public means, and other threads wait without doing so.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

from distributed import get_worker, rejoin, secede, threadpoolexecutor, worker, worker_state_machine
from distributed.metrics import time
from distributed.utils import set_thread_state

from dflow.attempts.slots import Slot

LOOK = 1.0
"""Seconds between two looks at whether a pool that is asked for a place has ended."""


class Place(Protocol):
    """What the task of the present thread has of its worker."""

    @property
    def slot(self) -> Callable[[], AbstractContextManager[Any]]:
        """Gives the place back while something waits inside."""

    def adopted(self) -> AbstractContextManager[Any]:
        """Make the calling thread one of the task's, inside."""

    @property
    def left(self) -> bool:
        """Whether the task's thread has left the pool, for good or for as long as something waits."""

    def end(self) -> None:
        """Settle everything: the task is over."""


@contextmanager
def taken() -> Iterator[Place]:
    """Yield the place of the task that this thread runs; settle it at the end."""
    place: Place = PoolPlace() if can_stand_in() else OwnPlace()
    try:
        yield place
    finally:
        place.end()


def can_stand_in() -> bool:
    """Tell whether distributed has all that is needed to leave its pool for the present thread."""
    pool = getattr(threadpoolexecutor.thread_state, "executor", None)
    task = getattr(worker, "thread_state", None)
    return (
        threading.current_thread() in getattr(pool, "_threads", ())
        and isinstance(getattr(pool, "_rejoin_list", None), list)
        and callable(getattr(pool, "_adjust_thread_count", None))
        and all(hasattr(pool, name) for name in ("_rejoin_lock", "_shutdown_lock", "_shutdown"))
        and hasattr(threadpoolexecutor, "threads_lock")
        and hasattr(worker_state_machine, "SecedeEvent")
        and hasattr(worker, "_worker_cvar")
        and all(hasattr(task, name) for name in ("key", "start_time"))
    )


class OwnPlace:
    """The place of a task that only its own thread can give back, once at a time; else nothing happens."""

    def __init__(self) -> None:
        self._owner = threading.get_ident()
        self._away = False

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Give the place back inside."""
        can = hasattr(threadpoolexecutor.thread_state, "executor")
        if self._away or threading.get_ident() != self._owner or not can:
            yield
            return
        secede()
        self._away = True
        try:
            yield
        finally:
            self._away = False
            rejoin()

    def adopted(self) -> AbstractContextManager[Any]:
        """Do nothing."""
        return contextlib.nullcontext()

    @property
    def left(self) -> bool:
        """Whether a thread waits now; what the body does to its pool by itself is not known."""
        return self._away

    def end(self) -> None:
        """Do nothing: the thread that waited has come back."""


class PoolPlace:
    """The place of a task, for all threads of its body. Made and ended in the task's own thread."""

    def __init__(self) -> None:
        self.slot = Slot(self._leave, self._come_back)
        self._thread = threading.current_thread()
        self._pool: Any = threadpoolexecutor.thread_state.executor
        self._worker = get_worker()
        state = getattr(worker, "thread_state", None)
        names = ("key", "start_time", "execution_state", "actor")
        self._state = {name: getattr(state, name) for name in names if hasattr(state, name)}
        self._lock = threading.RLock()
        # Kept: a thread that has left its slot for good shall not be taken for one that comes back.
        self._stand_ins: list[StandIn] = []
        self._asked: tuple[threading.Thread, threading.Event] | None = None
        self._away = False
        self._told = False
        self._over = False

    @property
    def left(self) -> bool:
        """Whether the task's thread is none of its pool's now: a body may have made it leave, too."""
        return self._thread not in self._pool._threads

    # Leaving and coming back ------------------------------------------------------------------------

    def _leave(self) -> None:
        with self._lock:
            if self._over or self._pool._shutdown or self._unasked():
                return
            # The lock in which the pool counts its threads too, when it gets a new task.
            with threadpoolexecutor.threads_lock, self._pool._shutdown_lock:
                if self._thread not in self._pool._threads:
                    return  # left before, or by the body itself with `distributed.secede`
                self._pool._threads.remove(self._thread)
                self._pool._adjust_thread_count()
            self._away = True
            self._tell()

    def _tell(self) -> None:
        """Let worker and scheduler send tasks that this one makes room for; it stays so until its end."""
        if self._told:
            return
        self._told = True
        event = worker_state_machine.SecedeEvent(
            key=self._state["key"],
            compute_duration=time() - self._state["start_time"],
            stimulus_id=f"dflow-secede-{time()}",
        )
        self._worker.loop.add_callback(self._worker.handle_stimulus, event)

    def _come_back(self) -> Callable[[], object]:
        """Ask for a place. A thread of the pool that has done its task gives its own to the one that asks."""
        with self._lock:
            if self._over or not self._away or self._asked is not None:
                return _nothing
            event = threading.Event()
            self._asked = (self._thread, event)
            with self._pool._rejoin_lock:
                self._pool._rejoin_list.append(self._asked)
            try:
                self._pool.submit(_nothing)  # wakes a thread that has nothing to do
            except RuntimeError:  # the worker closes: there are no places any more
                self._unasked()
                return _nothing

        def until_there() -> None:
            while not event.wait(LOOK) and not self._pool._shutdown:
                pass

        return until_there

    def _unasked(self) -> bool:
        """Take back what was asked for. Return False if it is there already, or was not asked for."""
        asked, self._asked = self._asked, None
        if asked is None:
            return False
        with self._pool._rejoin_lock:
            waiting = asked in self._pool._rejoin_list
            if waiting:
                self._pool._rejoin_list.remove(asked)
        asked[1].set()
        self._away = waiting
        return waiting

    def end(self) -> None:
        """Settle everything: the thread goes on to the next task if it is one of the pool's, else it ends."""
        with self._lock:
            self._unasked()
            self._over = True
            threadpoolexecutor.thread_state.proceed = self._thread in self._pool._threads

    # Other threads ----------------------------------------------------------------------------------

    @contextmanager
    def adopted(self) -> Iterator[None]:
        """Make the calling thread one of the task's: `get_worker`, `worker_client`, `secede` work in it."""
        if threading.current_thread() is self._thread:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(set_thread_state(**self._state))
            stack.enter_context(_named_in(self._worker, self._state["key"]))
            stand_in = StandIn(self.slot)
            self._stand_ins.append(stand_in)
            stack.enter_context(_pool_of_thread(stand_in))
            token = worker._worker_cvar.set(self._worker)
            try:
                yield
            finally:
                worker._worker_cvar.reset(token)


class StandIn:
    """What `distributed.secede` and `rejoin` find as the pool of an adopted thread: its body's slot.

    They take the thread out of `_threads`, and put it into `_rejoin_list` and wait.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._waits: AbstractContextManager[Any] | None = None
        self._threads = self
        self._rejoin_list: list[tuple[threading.Thread, threading.Event]] = []
        self._rejoin_lock = threading.Lock()

    def remove(self, thread: threading.Thread) -> None:
        """Leave the slot. Raises KeyError when that was done before, as a set does."""
        if self._waits is not None:
            raise KeyError(thread)
        self._waits = self._slot()
        # `secede` holds the lock that leaving takes, and has done nothing yet that it would guard.
        threadpoolexecutor.threads_lock.release()
        try:
            self._waits.__enter__()
        finally:
            threadpoolexecutor.threads_lock.acquire()

    def _adjust_thread_count(self) -> None:
        """Do nothing: leaving the slot has done it."""

    def submit(self, *_: Any) -> None:
        """Come back to the slot, and let the one who asked go on."""
        waits, self._waits = self._waits, None
        if waits is not None:
            waits.__exit__(None, None, None)
        while self._rejoin_list:
            self._rejoin_list.pop()[1].set()


@contextmanager
def _pool_of_thread(pool: Any) -> Iterator[None]:
    """Let the calling thread have a pool, inside."""
    state: Any = threadpoolexecutor.thread_state
    before = dict(vars(state))
    state.executor, state.proceed = pool, True
    try:
        yield
    finally:
        vars(state).clear()
        vars(state).update(before)


@contextmanager
def _named_in(on: Any, key: Any) -> Iterator[None]:
    """Let a worker know that the calling thread works for a key."""
    ident = threading.get_ident()
    with on.active_threads_lock:
        before = on.active_threads.get(ident)
        on.active_threads[ident] = key
    try:
        yield
    finally:
        with on.active_threads_lock:
            if before is None:
                on.active_threads.pop(ident, None)
            else:
                on.active_threads[ident] = before


def _nothing() -> None:
    """Do nothing."""
