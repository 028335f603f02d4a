"""Lines of how cost grows: with the number of task runs, and with retries."""

from __future__ import annotations

import gc
from typing import Any

from dask.distributed import Client

from tests.benchmarks.bench import Bench, Side, checked, in_flow, seconds
from tests.benchmarks.memory import Watch, resident
from tests.benchmarks.results import Line, Result, size_of, time_of
from tests.benchmarks.work import at_once_task, plus_one, plus_one_task, second_time_task

STEADY = 0.1
"""Of what a first large map takes: what a second one may add to it, for the memory to be flat."""


def held(count: int) -> dict[str, int]:
    """Return the resident bytes around two maps: with the futures held, let go, and the same again."""
    found = {"before": _collected()}
    for name in ("first", "second"):
        futures: Any = plus_one_task.map(range(count))
        futures.wait()
        found[name] = _collected()
        del futures
        found[f"after {name}"] = _collected()
    return found


def _collected() -> int:
    gc.collect()
    return resident()


def memory(bench: Bench) -> Result:
    """Measure what a task run takes in the driver, and whether it is given back."""
    count = bench.size(100_000, 100)
    sizes: dict[str, int] = {}

    def work() -> float:
        sizes.update(in_flow(lambda: held(count)))
        return 0.0

    watch = Watch({"scheduler": bench.scheduler})
    side = Side()
    bench.once(work, side, watch)
    each = (sizes["first"] - sizes["before"]) / count
    added = (sizes["second"] - sizes["first"]) / count
    return Result(
        dflow=f"{size_of(each)} a task run",
        figure=f"a second such map adds {size_of(added)} a task run",
        met=each <= 2_000 and added <= max(STEADY * each, 100.0),
        memory={
            "driver": " → ".join(f"{size / 1e6:.0f}" for size in sizes.values()),
            "scheduler": side.memory("scheduler"),
        },
    )


def _mapped(count: int) -> float:
    def work() -> int:
        return sum(plus_one_task.map(range(count)).result())

    return checked(work, sum(range(1, count + 1)))


def longer(bench: Bench) -> Result:
    """Measure maps of ever more items, as far as patience goes."""
    times: dict[int, float] = {}
    for count in (bench.size(n, n // 1_000) for n in (10_000, 100_000, 300_000)):
        last = max(times.values(), default=0.0)
        if last * count > bench.patience:
            break
        rounds = bench.rounds if count <= 10_000 else 1
        side = Side()
        for _ in range(rounds):
            bench.once(lambda: in_flow(lambda: _mapped(count)), side, Watch({}))  # noqa: B023  (called at once)
        times[count] = side.median / count
    told = ", ".join(f"{count:,}: {time_of(took)}" for count, took in times.items())
    ratio = max(times.values()) / next(iter(times.values()))
    whole = len(times) == 3
    return Result(
        dflow=f"{told} each",
        figure=f"{ratio:.2f} ×",
        met=whole and ratio <= 1.3,
        note="" if whole else f"more would take over {bench.patience:.0f} s: --patience",
    )


def retried(bench: Bench) -> Result:
    """Compare task runs that all fail once with such that do not."""
    count = bench.size(3_000, 10)
    expected = list(range(count))
    without, once = Side(), Side()
    _ = bench.scheduler
    for _ in range(bench.rounds):
        for task, side in ((at_once_task, without), (second_time_task, once)):
            bench.once(
                lambda: in_flow(
                    lambda: checked(lambda: list(task.map(range(count)).result()), expected)  # noqa: B023  (called at once)
                ),
                side,
                Watch({}),
            )
    ratio = once.median / without.median
    return Result(
        dflow=f"{time_of(without.median / count)}, with a retry {time_of(once.median / count)} each",
        figure=f"{ratio:.2f} ×",
        met=ratio <= 2.2,
    )


def raw_held(client: Client, count: int) -> tuple[int, float]:
    """Return the bytes that a map takes in raw Dask while its futures are held, and its seconds."""
    before = _collected()
    futures = client.map(plus_one, range(count), pure=False)
    took = seconds(lambda: client.gather(futures))
    return _collected() - before, took


def raw_memory(bench: Bench) -> Result:
    """Measure what a task takes in raw Dask's driver, its scheduler included."""
    count = bench.size(10_000, 100)
    size, took = bench.raw.call(raw_held, count)
    return Result(
        dflow="–",
        dask=f"{size_of(size / count)} a task",
        figure=f"{time_of(took / count)} each",
    )


LINES = [
    Line("memory", "driver memory at 100,000", "≤ 2 kB a task run; flat after release", memory),
    Line("raw-memory", "raw Dask's at 10,000, its scheduler included", "", raw_memory),
    Line("longer", "10,000 → 100,000 → 300,000 no-ops", "time per task run within 1.3 ×", longer),
    Line("retries", "3,000 task runs with a retry each", "≤ 2.2 × the time without", retried),
]
