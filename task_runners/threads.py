"""Attempts in threads of this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dflow.attempts import body, clock
from dflow.attempts.slots import Slot
from dflow.core.events import AttemptSucceeded, DispatchVoided
from dflow.core.records import Cause
from dflow.errors import DefinitionError
from dflow.messages import Down, Key, Work
from dflow.ports import Host
from task_runners.pool import Job, Pool
from task_runners.sharing import Shared
from task_runners.values import Asked, Values, asked_here


@dataclass(frozen=True, slots=True)
class ThreadPoolTaskRunner:
    """Runs up to `max_workers` tasks at once, in threads of this process.

    Without a number it is that of the processors and four more, at most 32. A task that waits for others
    leaves its place to them. Runners with the same number share their threads.

    Example:
        >>> ThreadPoolTaskRunner(max_workers=4)
        ThreadPoolTaskRunner(max_workers=4)
    """

    max_workers: int | None = None

    def __post_init__(self) -> None:
        given = self.max_workers
        if given is not None and (type(given) is not int or given < 1):
            raise DefinitionError(
                f"max_workers={given!r} is not a number of threads: give 1 or more."
            )

    def open(self, host: Host) -> OpenThreads:
        """Start to work for a flow run."""
        return OpenThreads(host, _pools.get(self))

    def shutdown(self) -> None:
        """Let idle threads end now; those that run a body end after it."""
        _pools.close(self)

    def describe(self) -> Mapping[str, Any]:
        """Return the kind and the setting of this runner."""
        return {"kind": "threads", "max_workers": self.max_workers}


class OpenThreads:
    """Runs the bodies of one flow run in a pool that it may share."""

    shares_memory = True
    follows = False
    runs_here = False

    def __init__(self, host: Host, pool: Pool) -> None:
        self._host = host
        self._pool = pool
        self._values = Values()
        self._lock = threading.Lock()
        self._waiting: dict[Key, Job] = {}
        self._closed = False

    def pack(self, call: Any) -> Asked:
        """Return the call, and the context in which it was made: its variables are those of the body."""
        return asked_here(call)

    def dispatch(self, works: Sequence[Work]) -> None:
        """Queue the bodies."""
        for work in works:
            job = Job(partial(self._run, work))
            with self._lock:
                self._waiting[work.info.key] = job
            self._pool.submit(job)

    def _run(self, work: Work, slot: Slot) -> None:
        key = work.info.key
        with self._lock:
            if self._waiting.pop(key, None) is None:  # withdrawn, or all is over
                return
        asked: Asked = work.call
        link = self._host.link(work.info)
        outcome, value = asked.in_context(
            body.run,
            work.info,
            lambda: (asked.call, self._values.of(work, link)),
            link,
            worker=threading.current_thread().name,
            slot=slot,
        )
        with self._lock:
            if self._closed:
                return
            if isinstance(outcome, AttemptSucceeded):
                self._values.keep(key, value)
        self._host.news([outcome])

    def withdraw(self, keys: Sequence[Key]) -> None:
        """Take back what is still queued; what runs goes on."""
        with self._lock:
            taken = [(key, job) for key in keys if (job := self._waiting.pop(key, None))]
        self._pool.discard([job for _, job in taken])
        now = clock.now()
        voided = [
            DispatchVoided(at=now, task_run_id=key[0], dispatch=key[1], cause=Cause.WITHDRAWN)
            for key, _ in taken
        ]
        if voided:
            self._host.news(voided)

    def stop(self, keys: Sequence[Key]) -> None:
        """Do nothing: a thread cannot be stopped from outside."""

    def release(self, keys: Sequence[Key]) -> None:
        """Let go of values."""
        self._values.release(keys)

    def fetch(self, key: Key) -> Any:
        """Return a value. Raises `MissingResult`."""
        return self._values.fetch(key)

    def tell(self, key: Key, message: Down) -> None:
        """Do nothing: the link of an attempt in this process belongs to the engine, and hears it there."""

    def apply(self, function: Callable[[Any], Any], key: Key) -> Any:
        """Return what a function makes of a value. Raises `MissingResult`."""
        return function(self._values.fetch(key))

    def fetch_each(self, _keys: Sequence[Key]) -> Mapping[Key, Any]:
        """Return nothing: each value is at hand."""
        return {}

    def each_host(self, _function: Callable[..., Any], *_args: Any) -> Mapping[str, Any]:
        """Return nothing: bodies run in this process."""
        return {}

    def close(self) -> None:
        """Forget what is queued, and let go of all values. Bodies that run go on; nobody hears of them."""
        with self._lock:
            self._closed = True
            jobs = list(self._waiting.values())
            self._waiting.clear()
        self._pool.discard(jobs)
        self._values.clear()


def _pool(runner: ThreadPoolTaskRunner) -> Pool:
    return Pool(runner.max_workers or min(32, (os.cpu_count() or 1) + 4))


_pools: Shared[ThreadPoolTaskRunner, Pool] = Shared(_pool, lambda pool: True, Pool.close)
