"""For tests: flows without a cluster, without files, and with a clock that moves when you say so.

>>> import dflow
>>> from dflow import testing
>>> @dflow.task(retries=1, retry_delay_seconds=3600)
... def double(x):
...     return 2 * x
>>> @dflow.flow
... def main():
...     return double(4)
>>> with testing.in_memory():
...     main()
8
"""

from __future__ import annotations

import random  # noqa: TID251  (seeded: the same luck in every run)
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dflow import settings
from dflow.attempts.capture import capture
from dflow.core import events as ev
from dflow.core.records import Cause, Held
from dflow.engine import process, system
from dflow.errors import MissingResult
from dflow.journal import MemoryJournal
from dflow.messages import Down, Key, Work
from dflow.ports import Host, Journal
from dflow.results.files import RUNS
from dflow.results.pickling import dumps
from dflow.results.stores import store

__all__ = [
    "START",
    "FakeClock",
    "ScriptedRunner",
    "SeededIds",
    "in_memory",
]

START = 1_700_000_000.0
"""The time at which a `FakeClock` begins, in seconds since 1970."""


class FakeClock:
    """A clock that stands still until it is moved.

    >>> clock = FakeClock()
    >>> clock.advance(60)
    >>> clock.now() - START
    60.0
    """

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time go by, and let the flows that run see it: a retry that has become due goes out."""
        self._now += seconds
        self._monotonic += seconds
        process.wake()

    def jump(self, seconds: float) -> None:
        """Set the time of day forward or back, as a wrong clock that is put right does."""
        self._now += seconds
        process.wake()


class SeededIds:
    """Ids and luck that are the same in every test run.

    >>> SeededIds(seed=1).run_name()
    'test-run-0'
    >>> SeededIds(seed=1).luck() == SeededIds(seed=1).luck()
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._count = 0

    def run_id(self) -> str:
        """Return 32 hexadecimal digits that sort by the order in which they were made."""
        self._count += 1
        return f"{self._count:012x}{self._random.getrandbits(80):020x}"

    def run_name(self) -> str:
        """Return a name with a number."""
        return f"test-run-{self._count}"

    def luck(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()


@contextmanager
def in_memory(
    *, journal: Journal | None = None, clock: Any = None, task_runner: str = "inline", seed: int = 0
) -> Iterator[process.Process]:
    """Run flows inside without files and without a cluster, on `task_runner` where they name none.

    Larger results are kept in memory too, as long as the journal, where nothing says otherwise. Yields what
    the sessions share: ``.journal`` holds the record, ``.clock`` the clock that was given.

    >>> from dflow import flow
    >>> @flow
    ... def main() -> int:
    ...     return 5
    >>> with in_memory() as shared:
    ...     main(), [entry.flow_name for entry in shared.journal.catalog.list()]
    (5, ['main'])
    """
    kept = journal if journal is not None else MemoryJournal(is_alive=lambda holder: True)
    storage = f"memory://dflow-{id(kept):x}"
    chosen = settings.load().model_copy(
        update={"task_runner": task_runner, "result_storage": storage}
    )
    shared = process.Process(
        settings=chosen,
        journal=kept,
        clock=clock if clock is not None else system.SystemClock(),
        ids=SeededIds(seed),
    )
    try:
        with process.replaced(shared) as replaced:
            yield replaced
    finally:
        if journal is None and "fsspec" in sys.modules:
            store(storage).delete_folder(RUNS)


@dataclass(eq=False)
class ScriptedRunner:
    """A runner that runs nothing: the test says what becomes of each dispatch.

    `works` holds what was dispatched, in order; `withdrawn`, `stopped`, `released` and `told` what else was
    asked of it.

    >>> from dflow import flow, task
    >>> @task(retries=1)
    ... def load() -> int:
    ...     raise NotImplementedError("It never runs: the test says what becomes of it.")
    >>> runner = ScriptedRunner()
    >>> @flow(task_runner=runner)
    ... def main() -> int:
    ...     return load.submit().result()
    >>> with in_memory():
    ...     run = main.start()
    ...     runner.fail(runner.expect(1)[0], OSError("The network is down."))
    ...     runner.succeed(runner.expect(2)[1], 5)
    ...     run.result(timeout=60)
    5
    """

    follows: bool = False
    works: list[Work] = field(default_factory=list)
    withdrawn: list[Key] = field(default_factory=list)
    stopped: list[Key] = field(default_factory=list)
    released: list[Key] = field(default_factory=list)
    told: list[tuple[Key, Down]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing dispatched."""
        self._values: dict[Key, Any] = {}
        self._hosts: list[Host] = []
        self._changed = threading.Condition()

    shares_memory = True
    runs_here = False

    def open(self, host: Host) -> ScriptedRunner:
        """Return itself, at work."""
        self._hosts.append(host)
        return self

    def pack(self, call: Any) -> Any:
        """Return the call as it is."""
        return call

    def dispatch(self, works: Sequence[Work]) -> None:
        """Note what was dispatched."""
        with self._changed:
            self.works.extend(works)
            self._changed.notify_all()

    def withdraw(self, keys: Sequence[Key]) -> None:
        """Note what was withdrawn."""
        self._note(self.withdrawn, keys)

    def stop(self, keys: Sequence[Key]) -> None:
        """Note what was asked to stop."""
        self._note(self.stopped, keys)

    def release(self, keys: Sequence[Key]) -> None:
        """Let go of values."""
        for key in keys:
            self._values.pop(key, None)
        self._note(self.released, keys)

    def tell(self, key: Key, message: Down) -> None:
        """Note what was said to an attempt."""
        self._note(self.told, [(key, message)])

    def fetch(self, key: Key) -> Any:
        """Return the value that a dispatch was given."""
        if key not in self._values:
            raise MissingResult(f"{key} has no value.")
        return self._values[key]

    def apply(self, function: Callable[[Any], Any], key: Key) -> Any:
        """Return what a function makes of a value."""
        return function(self.fetch(key))

    def fetch_each(self, _keys: Sequence[Key]) -> Mapping[Key, Any]:
        """Return nothing: each value is at hand."""
        return {}

    def each_host(self, _function: Callable[..., Any], *_args: Any) -> Mapping[str, Any]:
        """Return nothing: bodies run in this process."""
        return {}

    def close(self) -> None:
        """Take no more."""

    def shutdown(self) -> None:
        """Nothing is shared."""

    def describe(self) -> Mapping[str, Any]:
        """Return its kind."""
        return {"kind": "scripted"}

    def _note(self, where: list[Any], items: Sequence[Any]) -> None:
        with self._changed:
            where.extend(items)
            self._changed.notify_all()

    # What the test says -----------------------------------------------------------------------------

    def expect(self, count: int, timeout: float = 10.0) -> list[Work]:
        """Return the works dispatched so far, once there are `count`. Raises TimeoutError."""
        if not self.until(lambda: len(self.works) >= count, timeout):
            raise TimeoutError(f"{len(self.works)} dispatches instead of {count}.")
        return list(self.works)

    def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Wait until what was asked of this runner fits a condition; return whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def report(self, *events: ev.Event) -> None:
        """Report events to the driver."""
        self._hosts[-1].news(events)

    def start(self, work: Work, at: float = START, worker: str = "worker-1") -> None:
        """Report that a body has started."""
        run_id, dispatch = work.info.key
        self.report(ev.AttemptStarted(at=at, task_run_id=run_id, dispatch=dispatch, worker=worker))

    def succeed(
        self, work: Work, value: Any = None, at: float = START, *, kept: bool = True
    ) -> None:
        """Report that a body returned `value`, which is `kept` in the journal or stays here."""
        self._values[work.info.key] = value
        self.report(
            ev.AttemptSucceeded(
                **_times(work, at),
                held=Held.JOURNAL if kept else Held.RUNNER,
                value=dumps(value) if kept else None,
            )
        )

    def fail(self, work: Work, error: Exception, at: float = START) -> None:
        """Report that a body raised `error`."""
        self.report(ev.AttemptRaised(**_times(work, at), error=capture(error)))

    def lose(self, work: Work, cause: Cause = Cause.WORKER_DIED, at: float = START) -> None:
        """Report that the worker is gone."""
        run_id, dispatch = work.info.key
        self.report(ev.WorkerLost(at=at, task_run_id=run_id, dispatch=dispatch, cause=cause))

    def void(self, work: Work, cause: Cause = Cause.UPSTREAM, at: float = START) -> None:
        """Report that a dispatch came back before its body started."""
        run_id, dispatch = work.info.key
        self.report(ev.DispatchVoided(at=at, task_run_id=run_id, dispatch=dispatch, cause=cause))


def _times(work: Work, at: float) -> dict[str, Any]:
    run_id, dispatch = work.info.key
    return {
        "at": at,
        "task_run_id": run_id,
        "dispatch": dispatch,
        "started_at": at,
        "seconds": 0.0,
        "worker": "worker-1",
    }
