"""Lines of large data: it goes from worker to worker, and neither driver nor scheduler grow with it."""

from __future__ import annotations

import numpy as np
from dask.distributed import Client

from dflow import unmapped
from tests.benchmarks.bench import Bench, Pair, checked, in_flow
from tests.benchmarks.results import Line, Result, size_of, time_of
from tests.benchmarks.work import (
    Array,
    add_task,
    add_to,
    make,
    make_task,
    reduce,
    reduce_task,
    total,
    total_task,
    transform,
    transform_task,
)

MEGABYTE = 1_000_000


def _beside(pair: Pair, most: float, memory: int) -> Result:
    """Return the result of a line that has a target for its time, and one for the driver's memory."""
    ratio, grown = pair.dflow.median / pair.dask.median, pair.dflow.grown("driver")
    return Result(
        dflow=f"{time_of(pair.dflow.median)}, driver + {size_of(grown)}",
        dask=f"{time_of(pair.dask.median)}, driver + {size_of(pair.dask.grown('driver'))}",
        figure=f"{ratio:.3f} × raw's time",
        met=ratio <= most and grown <= memory,
        memory=pair.memory,
    )


# A large argument ----------------------------------------------------------------------------------


def large() -> Array:
    """Return 10 MB that nobody has seen before."""
    return np.random.default_rng().random(10 * MEGABYTE // 8)


def shared(count: int, array: Array) -> float:
    """Map with a large argument that is the same for all."""
    expected = [n + float(array[n]) for n in range(count)]
    return checked(lambda: list(add_task.map(range(count), unmapped(array)).result()), expected)


def raw_shared(client: Client, count: int) -> float:
    """Do the same, with the array scattered."""
    array = large()
    expected = [n + float(array[n]) for n in range(count)]

    def work() -> list[float]:
        there = client.scatter(array, broadcast=True, hash=False)
        found: list[float] = client.gather(
            [client.submit(add_to, n, there, pure=False) for n in range(count)]
        )
        return found

    return checked(work, expected)


def argument(bench: Bench) -> Result:
    """Compare 1,000 tasks with an argument of 10 MB; each round has an array of its own.

    That is there before. Raw Dask's is made in its process, and counts among what its driver takes.
    """
    count = bench.size(1_000, 10)
    arrays = [large() for _ in range(bench.rounds)]
    pair = bench.alternate(lambda: in_flow(lambda: shared(count, arrays.pop())), raw_shared, count)
    return _beside(pair, 1.0, 40 * MEGABYTE)


# Chunks --------------------------------------------------------------------------------------------


def _expected(chunks: int) -> float:
    return float(sum(2.0 * n + 1.0 for n in range(chunks)))


def chunked(chunks: int, items: int) -> float:
    """Make chunks on workers, make others of them, and reduce these to one number."""

    def work() -> float:
        # Nothing holds the chunks, here as in raw Dask: what holds a future keeps its value.
        reduced = reduce_task.map(transform_task.map(make_task.map(range(chunks), unmapped(items))))
        return total_task.submit(reduced).result()

    return checked(work, _expected(chunks))


def raw_chunked(client: Client, chunks: int, items: int) -> float:
    """Do the same."""

    def work() -> float:
        made = client.map(make, range(chunks), items=items, pure=False)
        reduced = client.map(reduce, client.map(transform, made, pure=False), pure=False)
        del made  # or raw Dask would keep all chunks to the end
        found: float = client.submit(total, reduced, pure=False).result()
        return found

    return checked(work, _expected(chunks))


def chunks(bench: Bench) -> Result:
    """Compare 2 GB that are made, transformed and reduced on workers."""
    count, items = bench.size(100, 4), bench.size(20 * MEGABYTE // 8, 10_000)
    pair = bench.alternate(
        lambda: in_flow(lambda: chunked(count, items)),
        raw_chunked,
        count,
        items,
    )
    return _beside(pair, 1.05, 50 * MEGABYTE)


LINES = [
    Line(
        "argument",
        "1,000 tasks with a 10 MB `unmapped` argument",
        "≤ 1 × raw with the array scattered; driver + ≤ 40 MB",
        argument,
    ),
    Line(
        "chunks",
        "2 GB made, transformed and reduced on workers",
        "≤ 1.05 × raw; driver + ≤ 50 MB",
        chunks,
    ),
]
