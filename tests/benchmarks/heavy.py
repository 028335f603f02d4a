"""Lines of work that takes time: there dflow must add nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from dask.distributed import Client
from dask.distributed import wait as raw_wait

from tests.benchmarks.bench import Bench, Pair, checked, in_flow
from tests.benchmarks.results import Line, Result, time_of
from tests.benchmarks.small import mapped
from tests.benchmarks.work import (
    SLOTS,
    compute,
    compute_task,
    plus_one,
    plus_one_task,
    rest,
    rest_task,
)


def _beside(pair: Pair, most: float) -> Result:
    ratio = pair.dflow.median / pair.dask.median
    return Result(
        dflow=time_of(pair.dflow.median),
        dask=time_of(pair.dask.median),
        figure=f"{ratio:.3f} × raw's time",
        met=ratio <= most,
        memory=pair.memory,
    )


def raw_given(client: Client, body: Callable[[float], float], given: list[float]) -> float:
    """Map a body over the seconds that each takes."""
    return checked(lambda: client.gather(client.map(body, given, pure=False)), given)


def waiting(bench: Bench) -> Result:
    """Compare tasks of 100 ms that need no processor."""
    given = [0.1] * bench.size(100, 4)
    pair = bench.alternate(
        lambda: in_flow(lambda: checked(lambda: list(rest_task.map(given).result()), given)),
        raw_given,
        rest,
        given,
    )
    return _beside(pair, 1.05)


def computing(bench: Bench) -> Result:
    """Compare tasks of 100 ms that need one: whatever the driver does is taken from them."""
    given = [0.1] * bench.size(100, 4)
    pair = bench.alternate(
        lambda: in_flow(lambda: checked(lambda: list(compute_task.map(given).result()), given)),
        raw_given,
        compute,
        given,
    )
    return _beside(pair, 1.05)


# Mixed ---------------------------------------------------------------------------------------------


def interleaved(short: int, long: int) -> list[float]:
    """Return the seconds of many short tasks, with long ones at equal distances between them."""
    found = [0.001] * short
    for n in range(long):
        found.insert(n * (short // long + 1), 0.5)
    return found


def raw_interleaved(client: Client, given: list[float]) -> float:
    """Submit them one by one."""
    return checked(
        lambda: client.gather([client.submit(rest, s, pure=False) for s in given]), given
    )


def mixed(bench: Bench) -> Result:
    """Compare the time of a mixture with what it would take if nothing but bodies took time."""
    given = interleaved(bench.size(1_000, 20), bench.size(20, 2))
    pair = bench.alternate(
        lambda: in_flow(
            lambda: checked(lambda: [f.result() for f in [*map(rest_task.submit, given)]], given)
        ),
        raw_interleaved,
        given,
    )
    least = sum(given) / SLOTS
    ratio = pair.dflow.median / least
    return Result(
        dflow=time_of(pair.dflow.median),
        dask=time_of(pair.dask.median),
        figure=f"{ratio:.3f} × (work / slots), raw {pair.dask.median / least:.3f} ×",
        met=ratio <= 1.2,
        memory=pair.memory,
    )


# A busy body ---------------------------------------------------------------------------------------


def until(wait: Callable[[], object]) -> float:
    """Compute in pure Python until something has been waited for; return the seconds."""
    done = threading.Event()

    def watch() -> None:
        wait()
        done.set()

    start = time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    while not done.is_set():
        sum(n * n for n in range(1_000))
    took = time.perf_counter() - start
    watcher.join()
    return took


def busy_mapped(count: int) -> float:
    """Map, and compute until all have completed."""
    start = time.perf_counter()
    futures = plus_one_task.map(range(count))
    called = time.perf_counter() - start
    return called + until(futures.wait)


def raw_busy_mapped(client: Client, count: int) -> float:
    """Do the same."""
    start = time.perf_counter()
    futures: Sequence[object] = client.map(plus_one, range(count), pure=False)
    called = time.perf_counter() - start
    return called + until(lambda: raw_wait(futures))


def busy(bench: Bench) -> Result:
    """Compare the rate of a map while the body computes with its rate while the body waits.

    Raw Dask, for which 10,000 take minutes then, has a tenth of them to do.
    """
    count, fewer = bench.size(10_000, 40), bench.size(1_000, 40)
    waits = bench.rounds_of(lambda: in_flow(lambda: mapped(count)))
    pair = bench.alternate(lambda: in_flow(lambda: busy_mapped(count)), raw_busy_mapped, fewer)
    ratio = waits.median / pair.dflow.median
    each, raw_each = pair.dflow.median / count, pair.dask.median / fewer
    return Result(
        dflow=f"{time_of(each)} each",
        dask=f"{time_of(raw_each)} each, of {fewer:,}",
        figure=f"{ratio:.2f} × its rate when it waits, {raw_each / each:.3g} × raw",
        met=ratio >= 0.5,
        memory=pair.memory,
    )


LINES = [
    Line("waiting", "100 tasks of 100 ms", "≤ 1.05 × raw Dask's time", waiting),
    Line("computing", "the same, computing in pure Python", "≤ 1.05 × raw Dask's time", computing),
    Line(
        "mixed",
        "mixed: 1,000 of 1 ms, 20 of 500 ms, interleaved",
        "≤ 1.2 × (work / slots)",
        mixed,
    ),
    Line(
        "busy-body",
        "map of 10,000 while the flow's body computes in pure Python",
        "≥ 0.5 × the rate when it waits",
        busy,
    ),
]
