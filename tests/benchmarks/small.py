"""Lines of small work: thousands of task runs that do next to nothing."""

from __future__ import annotations

from collections.abc import Callable

from dask.distributed import Client
from dask.distributed import as_completed as raw_as_completed

from dflow import as_completed
from tests.benchmarks.bench import Bench, Pair, checked, in_flow
from tests.benchmarks.results import Line, Result, time_of
from tests.benchmarks.work import plus_one, plus_one_task, total, total_task


def compared(pair: Pair, count: int, least: float) -> Result:
    """Return the result of a line whose target is to be so many times faster than raw Dask."""
    return Result(
        dflow=f"{time_of(pair.dflow.median / count)} each",
        dask=f"{time_of(pair.dask.median / count)} each",
        figure=f"{pair.faster:.3g} × ({pair.spread})",
        met=pair.faster >= least,
        memory=pair.memory,
    )


def _line(
    name: str,
    work: str,
    least: float,
    sizes: tuple[int, int],
    ours: Callable[[int], float],
    theirs: Callable[[Client, int], float],
) -> Line:
    def run(bench: Bench) -> Result:
        count = bench.size(*sizes)
        pair = bench.alternate(lambda: in_flow(lambda: ours(count)), theirs, count)
        return compared(pair, count, least)

    return Line(name, work, f"≥ {least:g} × raw", run)


# A map ---------------------------------------------------------------------------------------------


def mapped(count: int) -> float:
    """Map, and take all results."""
    expected = list(range(1, count + 1))
    return checked(lambda: list(plus_one_task.map(range(count)).result()), expected)


def raw_mapped(client: Client, count: int) -> float:
    """Do the same."""
    expected = list(range(1, count + 1))
    return checked(lambda: client.gather(client.map(plus_one, range(count), pure=False)), expected)


# A loop of submits ---------------------------------------------------------------------------------


def submitted(count: int) -> float:
    """Submit in a loop, and take all results."""
    return checked(
        lambda: [f.result() for f in [plus_one_task.submit(i) for i in range(count)]],
        list(range(1, count + 1)),
    )


def raw_submitted(client: Client, count: int) -> float:
    """Do the same."""
    return checked(
        lambda: client.gather([client.submit(plus_one, i, pure=False) for i in range(count)]),
        list(range(1, count + 1)),
    )


# A chain -------------------------------------------------------------------------------------------


def chained(count: int) -> float:
    """Submit a chain, and take the last result."""

    def chain() -> int:
        last = plus_one_task.submit(0)
        for _ in range(count - 1):
            last = plus_one_task.submit(last)
        return last.result()

    return checked(chain, count)


def raw_chained(client: Client, count: int) -> float:
    """Do the same."""

    def chain() -> int:
        last = client.submit(plus_one, 0, pure=False)
        for _ in range(count - 1):
            last = client.submit(plus_one, last, pure=False)
        found: int = last.result()
        return found

    return checked(chain, count)


# Layers --------------------------------------------------------------------------------------------


def layered(count: int) -> float:
    """Map over a map over a map, a third of `count` each, and reduce."""
    width = count // 3

    def layers() -> int:
        first = plus_one_task.map(range(width))
        third = plus_one_task.map(plus_one_task.map(first))
        return total_task.submit(third).result()

    return checked(layers, sum(range(3, width + 3)))


def raw_layered(client: Client, count: int) -> float:
    """Do the same."""
    width = count // 3

    def layers() -> int:
        first = client.map(plus_one, range(width), pure=False)
        second = client.map(plus_one, first, pure=False)
        third = client.map(plus_one, second, pure=False)
        found: int = client.submit(total, third, pure=False).result()
        return found

    return checked(layers, sum(range(3, width + 3)))


# As completed --------------------------------------------------------------------------------------


def followed(count: int) -> float:
    """Submit one more for each that has completed, in that order, and take what these give."""

    def follow() -> int:
        more = [plus_one_task.submit(f) for f in as_completed(plus_one_task.map(range(count)))]
        return sum(future.result() for future in more)

    return checked(follow, sum(range(2, count + 2)))


def raw_followed(client: Client, count: int) -> float:
    """Do the same."""

    def follow() -> int:
        futures = client.map(plus_one, range(count), pure=False)
        more = [client.submit(plus_one, f, pure=False) for f in raw_as_completed(futures)]
        return sum(client.gather(more))

    return checked(follow, sum(range(2, count + 2)))


# One at a time -------------------------------------------------------------------------------------


def one_at_a_time(count: int) -> float:
    """Submit one, take its result, and only then submit the next."""
    return checked(
        lambda: [plus_one_task.submit(i).result() for i in range(count)],
        list(range(1, count + 1)),
    )


def raw_one_at_a_time(client: Client, count: int) -> float:
    """Do the same."""
    return checked(
        lambda: [client.submit(plus_one, i, pure=False).result() for i in range(count)],
        list(range(1, count + 1)),
    )


def latency(bench: Bench) -> Result:
    """Compare the time of one `.submit().result()`."""
    count = bench.size(200, 5)
    pair = bench.alternate(lambda: in_flow(lambda: one_at_a_time(count)), raw_one_at_a_time, count)
    ratio = 1 / pair.faster
    return Result(
        dflow=time_of(pair.dflow.median / count),
        dask=time_of(pair.dask.median / count),
        figure=f"{ratio:.2f} × the latency",
        met=ratio <= 1.3,
        memory=pair.memory,
    )


LINES = [
    _line("map", "map of 10,000 no-ops, results gathered", 25, (10_000, 40), mapped, raw_mapped),
    _line("submits", "loop of 2,000 `.submit` no-ops", 20, (2_000, 20), submitted, raw_submitted),
    _line("chain", "chain of 1,000", 30, (1_000, 20), chained, raw_chained),
    _line(
        "layers",
        "map over a map over a map, 3,000 each, and reduce",
        20,
        (9_000, 30),
        layered,
        raw_layered,
    ),
    _line(
        "as-completed",
        "`as_completed` over 1,000 with a submit for each",
        8,
        (1_000, 10),
        followed,
        raw_followed,
    ),
    Line("latency", "one `.submit().result()` at a time", "≤ 1.3 × raw latency", latency),
]
