"""Threads that run jobs, no more than so many at once; a job that waits makes room for another.

A thread that has nothing to do ends by itself. The threads are daemons: a flow waits for all its work
before it ends, so what still runs at the end of the interpreter was cancelled, or interrupted, and may hang.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from dflow.attempts.slots import Slot

LINGER = 0.5
"""Seconds that a thread waits for a job before it ends."""

_log = logging.getLogger("dflow.runners")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Something to run, told apart from others by being itself. It is given its slot."""

    run: Callable[[Slot], None]


@dataclass(slots=True, eq=False)
class Seat:
    """What a job has of its pool's bound; once it is `over`, never anything again."""

    taken: bool = True
    over: bool = False


class Pool:
    """At most `bound` jobs run at once. Those that wait in their slot do not count: they come beside them."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._changed = threading.Condition()
        self._jobs: dict[Job, None] = {}
        self._running = 0
        self._asking: dict[Seat, threading.Event] = {}
        self._idle = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Queue a job."""
        with self._changed:
            self._jobs[job] = None
            self._go_on()

    def discard(self, jobs: Sequence[Job]) -> None:
        """Forget jobs that have not begun."""
        with self._changed:
            for job in jobs:
                self._jobs.pop(job, None)

    def close(self) -> None:
        """Let threads that are idle end at once, and the others after their job."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._running < self._bound

    def _go_on(self) -> None:
        """Seat those who ask; if there is room left, see to it that somebody takes the next job."""
        while self._asking and self._has_room():
            seat = next(iter(self._asking))
            there = self._asking.pop(seat)
            self._running += 1
            seat.taken = True
            there.set()
        self._changed.notify_all()
        if self._jobs and self._has_room() and not self._idle:
            name = f"dflow-thread-{next(_numbers)}"
            self._idle += 1
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            seat = Seat()
            slot = Slot(partial(self._leave, seat), partial(self._come_back, seat))
            try:
                # A context of its own: what the submitting thread has set is not the body's.
                contextvars.Context().run(job.run, slot)
            except Exception:
                _log.exception("A job failed outside of its body.")
            finally:
                with self._changed:
                    self._idle += 1
                    seat.over = True
                    self._leave(seat)
            del job, slot

    def _next(self) -> Job | None:
        """Wait for a job and take it; None when it is time to end."""
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._closed or (self._jobs and self._has_room()), LINGER
                )
                if self._jobs and self._has_room():
                    job = next(iter(self._jobs))
                    del self._jobs[job]
                    self._idle -= 1
                    self._running += 1
                    self._go_on()
                    return job
                if self._closed or not self._jobs:
                    self._idle -= 1
                    return None

    # Seats, for any thread of a job --------------------------------------------------------------------

    def _leave(self, seat: Seat) -> None:
        """Make room for others, or do not ask for a seat any more."""
        with self._changed:
            there = self._asking.pop(seat, None)
            if there is not None:
                there.set()
            elif seat.taken:
                seat.taken = False
                self._running -= 1
            self._go_on()

    def _come_back(self, seat: Seat) -> Callable[[], object]:
        """Ask for a seat; return what waits until it is there, or not asked for any more."""
        there = threading.Event()
        with self._changed:
            if seat.over or seat.taken:
                there.set()
            else:
                self._asking[seat] = there
                self._go_on()
        return there.wait
