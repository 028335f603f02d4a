"""Lines that need no cluster: direct calls, flow runs, the cache, resuming."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dflow
import dflow.runs
from tests.benchmarks.audit import INTERRUPTED
from tests.benchmarks.bench import Bench, checked, in_flow, seconds
from tests.benchmarks.results import Line, Result, time_of
from tests.benchmarks.work import TWO_THREADS, plus_one_task, remembered_task


@dflow.flow
def empty() -> None:
    """Do nothing."""


@dflow.flow
def direct_calls(count: int) -> float:
    """Return the seconds that `count` direct calls take."""
    expected = list(range(1, count + 1))
    return checked(lambda: [plus_one_task(i) for i in range(count)], expected)


def direct(bench: Bench) -> Result:
    """Measure direct calls in a flow."""
    count = bench.size(2_000, 20)
    took = bench.rounds_of(lambda: direct_calls(count)).median / count
    return Result(dflow=f"{time_of(took)} each", met=took <= 0.3e-3)


def nothing(bench: Bench) -> Result:
    """Measure empty flow runs."""
    count = bench.size(20, 2)
    empty()
    took = bench.rounds_of(lambda: seconds(lambda: [empty() for _ in range(count)])).median / count
    return Result(dflow=time_of(took), met=took <= 20e-3)


def cached(bench: Bench) -> Result:
    """Measure a map of which every value is in the cache."""
    count = bench.size(10_000, 40)

    def hits() -> Any:
        expected = list(range(1, count + 1))
        return in_flow(
            lambda: checked(lambda: list(remembered_task.map(range(count)).result()), expected),
            TWO_THREADS,
        )

    hits()
    took = bench.rounds_of(hits).median / count
    return Result(dflow=f"{time_of(took)} each")


# Resuming ------------------------------------------------------------------------------------------


class Stopped(KeyboardInterrupt):
    """A flow was interrupted."""


ASK: dict[str, Callable[[int], Any]] = {
    "map": lambda count: plus_one_task.map(range(count)).result(),
    "submits": lambda count: [f.result() for f in [plus_one_task.submit(i) for i in range(count)]],
    "calls": lambda count: [plus_one_task(i) for i in range(count)],
}


@dflow.flow(name=INTERRUPTED, task_runner=TWO_THREADS)
def stopping(how: str, count: int) -> None:
    """Ask for task runs in one of these ways, and be interrupted."""
    ASK[how](count)
    raise Stopped


def _resumed(how: str, count: int) -> float:
    """Return the seconds that a run takes to resume which had finished all of its task runs."""
    with suppress(Stopped):
        stopping(how, count)
    run = dflow.runs.find("latest").entry.id

    def resume() -> None:
        with suppress(Stopped):
            stopping.resume(run)

    return seconds(resume)


def _resume(how: str) -> Callable[[Bench], Result]:
    def run(bench: Bench) -> Result:
        count = bench.size(10_000, 40)
        return Result(dflow=time_of(bench.rounds_of(lambda: _resumed(how, count)).median))

    return run


LINES = [
    Line("direct", "direct calls in a flow", "≤ 0.3 ms each", direct),
    Line("empty", "an empty flow run", "≤ 20 ms", nothing),
    Line("cached", "map of 10,000, all in the cache", "", cached),
    Line("resume-map", "resume of 10,000 that had completed, by a map", "", _resume("map")),
    Line("resume-submits", "the same, by a loop of submits", "", _resume("submits")),
    Line("resume-calls", "the same, by direct calls", "", _resume("calls")),
]
