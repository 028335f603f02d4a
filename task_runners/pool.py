"""Threads that run jobs, no more than so many at once; a job that waits makes room for another.

The threads are no daemons: a body is never cut off by the end of the interpreter. A thread that has
nothing to do ends by itself, so that the interpreter is not kept waiting either.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

LINGER = 0.5
"""Seconds that a thread waits for a job before it ends."""

_log = logging.getLogger("dflow.runners")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Something to run, told apart from others by being itself."""

    run: Callable[[], None]


class Pool:
    """At most `bound` jobs run at once. Those that wait in `slot` do not count, and so come beside them."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._changed = threading.Condition()
        self._jobs: dict[Job, None] = {}
        self._running = 0
        self._returning = 0
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

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Leave room for another job inside; come back when there is room again, before any new job."""
        with self._changed:
            self._running -= 1
            self._go_on()
        try:
            yield
        finally:
            with self._changed:
                self._returning += 1
                self._changed.wait_for(lambda: self._running < self._bound)
                self._returning -= 1
                self._running += 1
                self._go_on()

    def close(self) -> None:
        """Let threads that are idle end at once, and the others after their job."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._running + self._returning < self._bound

    def _go_on(self) -> None:
        """See to it that somebody takes the next job, if there is room for one."""
        self._changed.notify_all()
        if self._jobs and self._has_room() and not self._idle:
            name = f"dflow-thread-{next(_numbers)}"
            self._idle += 1
            threading.Thread(target=self._work, name=name, daemon=False).start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                # A context of its own: what the submitting thread has set is not the body's.
                contextvars.Context().run(job.run)
            except Exception:
                _log.exception("A job failed outside of its body.")
            finally:
                with self._changed:
                    self._running -= 1
                    self._idle += 1
                    self._go_on()
            del job

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
