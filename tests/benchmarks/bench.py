"""What the lines of the benchmarks measure with: both clusters, rounds that alternate, memory."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import psutil

import dflow
from task_runners.dask import clusters
from tests.benchmarks.memory import Use, Watch
from tests.benchmarks.raw import RawDask
from tests.benchmarks.work import TWO_WORKERS, warm_task

T = TypeVar("T")

QUIET = 0.35
"""Of one processor: what idle clusters use at the most, heartbeats of seven processes."""
GLANCE = 0.2
"""Seconds over which that is measured."""
PATIENCE = 10.0
"""Seconds that what is left of a piece of work may take to be cleared away."""


@dataclass(slots=True)
class Side:
    """The rounds of one side: seconds, and what memory each took by process."""

    seconds: list[float] = field(default_factory=list)
    uses: list[dict[str, Use]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    def grown(self, process: str) -> int:
        """Return the most that a process grew by in any round."""
        return max(use[process].grown for use in self.uses)

    def memory(self, process: str) -> str:
        """Return what a process had in the round in which it grew most: before → peak → after, in MB."""
        use = max((uses[process] for uses in self.uses), key=lambda one: one.grown)
        return " → ".join(f"{size / 1e6:.0f}" for size in (use.before, use.peak, use.after))


@dataclass(slots=True)
class Pair:
    """The rounds of dflow and of raw Dask, which alternated."""

    dflow: Side = field(default_factory=Side)
    dask: Side = field(default_factory=Side)

    @property
    def faster(self) -> float:
        """How many times faster dflow is, by the medians."""
        return self.dask.median / self.dflow.median

    @property
    def spread(self) -> str:
        """The lowest and the highest ratio of two rounds that followed each other."""
        ratios = [b / a for a, b in zip(self.dflow.seconds, self.dask.seconds, strict=True)]
        return f"{min(ratios):.3g}–{max(ratios):.3g}"

    @property
    def memory(self) -> dict[str, str]:
        """The memory of the processes of both sides."""
        return {
            "driver": self.dflow.memory("driver"),
            "scheduler": self.dflow.memory("scheduler"),
            "raw": self.dask.memory("driver"),
        }


class Bench:
    """A place to measure in. `quick` is for tests: small counts, one round."""

    def __init__(self, rounds: int, *, quick: bool = False, patience: float = 240.0) -> None:
        self.rounds = 1 if quick else rounds
        self.quick = quick
        self.patience = patience
        self._stack = ExitStack()

    def size(self, full: int, quick: int) -> int:
        """Return how much is to be done."""
        return quick if self.quick else full

    @cached_property
    def raw(self) -> RawDask:
        """Raw Dask, with a cluster of the same shape as ours."""
        return self._stack.enter_context(closing(RawDask()))

    @cached_property
    def scheduler(self) -> int:
        """The process of the scheduler of our cluster."""
        in_flow(lambda: None)
        cluster = clusters.shared.get(TWO_WORKERS)
        return int(getattr(cluster, "host_pid", os.getpid()))

    def rounds_of(self, action: Callable[[], float], watch: Watch | None = None) -> Side:
        """Return the rounds of an action, which tells its seconds."""
        side = Side()
        for _ in range(self.rounds):
            self.once(action, side, watch or Watch({}))
        return side

    def once(self, action: Callable[[], float], side: Side, watch: Watch) -> None:
        """Carry out an action in quiet, and note its seconds and its memory."""
        if not self.quick:
            settle()
        watch.begin()
        side.seconds.append(action())
        side.uses.append(watch.end())

    def alternate(
        self, ours: Callable[[], float], theirs: Callable[..., float], *args: Any
    ) -> Pair:
        """Return the rounds of two actions that tell their seconds, one after the other in turn.

        That of raw Dask, a function of a module, is called in its process with a client and `args`. The
        cluster of the other one is stopped meanwhile.
        """
        pair, raw = Pair(), self.raw
        mine = Watch({"driver": os.getpid(), "scheduler": self.scheduler})
        other = Watch({"driver": raw.pid})

        def one() -> float:
            with stopped(raw.pid):
                return ours()

        def the_other() -> float:
            with stopped(self.scheduler):
                return raw.call(theirs, *args)

        for _ in range(self.rounds):
            self.once(one, pair.dflow, mine)
            self.once(the_other, pair.dask, other)
        return pair

    def close(self) -> None:
        """Close raw Dask's cluster, and ours."""
        self._stack.close()
        dflow.shutdown()


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def checked(action: Callable[[], T], expected: T) -> float:
    """Return how long an action takes, which must give this value."""
    found: list[T] = []
    took = seconds(lambda: found.append(action()))
    if found[0] != expected:
        raise AssertionError(f"It gave {str(found[0])[:200]}, not {str(expected)[:200]}.")
    return took


def in_flow(action: Callable[[], Any], runner: Any = TWO_WORKERS) -> Any:
    """Return what an action gives as the body of a flow; its cluster runs, its client is connected.

    The task that sees to this is another one than those that are measured: of these nothing is known.
    """

    @dflow.flow(name="bench", task_runner=runner)
    def body() -> Any:
        warm_task.submit(0).result()
        return action()

    return body()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, and all that come from it: an idle cluster takes up to a tenth of two processors."""
    top = psutil.Process(pid)
    tree = [top, *top.children(recursive=True)]
    try:
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in reversed(tree):
            with suppress(psutil.NoSuchProcess):
                process.resume()


def settle() -> None:
    """Wait until the processes of this tree are quiet: what the work before left behind is cleared away."""
    gc.collect()
    me = psutil.Process()
    tree = [me, *me.children(recursive=True)]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        before = sum(map(_processor_time, tree))
        threading.Event().wait(GLANCE)
        if sum(map(_processor_time, tree)) - before <= QUIET * GLANCE:
            return


def _processor_time(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it has just ended
        return 0.0
    return float(times.user + times.system)
