"""What dflow costs beside raw Dask: ``python -m tests.benchmarks``, or ``make bench``.

Each line alternates dflow and raw Dask in one process, on clusters of the same shape (2 worker processes of
1 thread), several rounds, and prints medians. Read the ratios: absolute figures are of the
machine and the moment. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from dask.distributed import Client, LocalCluster

import dflow
import dflow.runs
from dflow import settings
from dflow.cache_policies import INPUTS
from dflow.core.events import TaskCreated
from dflow.engine import process, system
from dflow.journal import SqliteJournal
from dflow.ports import Batch, RunEntry
from dflow.results.fingerprints import content
from task_runners import DaskTaskRunner, ThreadPoolTaskRunner

WORKERS = {"n_workers": 2, "threads_per_worker": 1}


def plus_one(x: int) -> int:
    """Do next to nothing."""
    return x + 1


increment = dflow.task(plus_one)
remembered = dflow.task(plus_one, cache_policy=INPUTS)


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@dflow.flow
def empty() -> None:
    """Do nothing."""


@dflow.flow
def direct_calls(count: int) -> float:
    """Return the seconds that `count` direct calls take."""
    return seconds(lambda: [increment(i) for i in range(count)])


@dflow.flow(task_runner=DaskTaskRunner(cluster_kwargs=WORKERS))
def submits(count: int) -> float:
    """Return the seconds that a loop of submits takes, results included."""
    increment.submit(0).result()
    return seconds(
        lambda: [future.result() for future in [increment.submit(i) for i in range(count)]]
    )


@dflow.flow(task_runner=DaskTaskRunner(cluster_kwargs=WORKERS))
def mapped(count: int) -> float:
    """Return the seconds that a map takes, results included."""
    increment.submit(0).result()
    return seconds(lambda: increment.map(range(count)).result())


@dflow.flow(task_runner=DaskTaskRunner(cluster_kwargs=WORKERS))
def one_at_a_time(count: int) -> float:
    """Return the seconds that submits take when each waits for the one before."""
    increment.submit(0).result()
    return seconds(lambda: [increment.submit(-i).result() for i in range(1, count + 1)])


@dflow.flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def cached(count: int) -> float:
    """Return the seconds that a map of cached values takes."""
    return seconds(lambda: remembered.map(range(count)).wait())


class Stopped(KeyboardInterrupt):
    """A flow was interrupted."""


ASK: dict[str, Callable[[int], Any]] = {
    "a map": lambda count: increment.map(range(count)).result(),
    "submits": lambda count: [f.result() for f in [increment.submit(i) for i in range(count)]],
    "direct calls": lambda count: [increment(i) for i in range(count)],
}


@dflow.flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def stopping(how: str, count: int) -> None:
    """Ask for task runs in one of these ways, and be interrupted."""
    ASK[how](count)
    raise Stopped


def resumed(how: str, count: int) -> float:
    """Return the seconds that a run takes to resume which had finished all of its task runs."""
    with suppress(Stopped):
        stopping(how, count)
    run = dflow.runs.find("latest").entry.id

    def resume() -> None:
        with suppress(Stopped):
            stopping.resume(run)

    return seconds(resume)


def hashed() -> float:
    """Return how many bytes a second of an array are hashed for a key."""
    array = np.random.default_rng(0).random(2**24)
    return array.nbytes / seconds(lambda: content(array))


def raw_submits(client: Client, count: int) -> float:
    """Return what `submits` does, in raw Dask."""
    return seconds(
        lambda: client.gather([client.submit(plus_one, i, pure=False) for i in range(count)])
    )


def raw_mapped(client: Client, count: int) -> float:
    """Return what `mapped` does, in raw Dask."""
    return seconds(lambda: client.gather(client.map(plus_one, range(count), pure=False)))


def raw_one_at_a_time(client: Client, count: int) -> float:
    """Return what `one_at_a_time` does, in raw Dask."""
    return seconds(lambda: [client.submit(plus_one, i, pure=False).result() for i in range(count)])


def journal_rows(count: int) -> float:
    """Return how many events a second the journal takes, 100 in a transaction."""
    with tempfile.TemporaryDirectory() as home:
        journal = SqliteJournal(Path(home), is_alive=system.is_alive)
        journal.catalog.create(RunEntry("a" * 32, "bench", "bench", 0.0))
        run = journal.write("a" * 32, journal.catalog.claim("a" * 32, system.holder(), 0.0))
        batches = [
            Batch(
                events=[
                    TaskCreated(
                        at=0.0,
                        task_run_id=f"{start + i:032x}",
                        flow_run_id="a" * 32,
                        parent_id="a" * 32,
                        task_name="bench",
                        name=f"bench-{start + i}",
                    )
                    for i in range(100)
                ]
            )
            for start in range(0, count, 100)
        ]
        took = seconds(lambda: [run.append(batch) for batch in batches])
        run.close()
        journal.close()
    return len(batches) * 100 / took


def import_time(module: str) -> float:
    """Return the seconds that a fresh Python takes to import a module, without its own start."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def _home() -> Iterator[None]:
    """Keep the journal of the benchmarks apart."""
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(DFLOW_HOME=home, DFLOW_LOG_LEVEL="ERROR")
        try:
            yield
        finally:
            process.shutdown()


def _alternate(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> tuple[float, float]:
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    """Run all lines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="task runs in each line")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    asked = parser.parse_args()
    count, rounds = asked.count, asked.rounds
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {count} task runs, "
        f"{rounds} rounds, durability '{settings.load().durability}'"
    )
    with (
        _home(),
        LocalCluster(**WORKERS, dashboard_address=None) as cluster,
        Client(cluster) as raw,
    ):
        raw_mapped(raw, 10)
        lines = [
            ("map + results", mapped, raw_mapped, count),
            ("loop of submits + results", submits, raw_submits, count),
            (
                "one submit().result() at a time",
                one_at_a_time,
                raw_one_at_a_time,
                max(count // 10, 1),
            ),
        ]
        print(f"{'':34}{'dflow':>12}{'raw Dask':>12}{'raw / dflow':>13}")
        for title, ours, theirs, size in lines:
            a, b = _alternate(lambda: ours(size), lambda: theirs(raw, size), rounds)  # noqa: B023  (called at once)
            print(f"{title:34}{a / size * 1e3:>9.3f} ms{b / size * 1e3:>9.3f} ms{b / a:>12.2f}×")
        call = statistics.median(direct_calls(count) for _ in range(rounds)) / count
        print(f"{'direct call in a flow':34}{call * 1e3:>9.3f} ms")
        cached(10 * count)
        hits = statistics.median(cached(10 * count) for _ in range(rounds)) / (10 * count)
        print(f"{'cache hit in a map':34}{hits * 1e3:>9.3f} ms")
        for how in ASK:
            took = statistics.median(resumed(how, 10 * count) for _ in range(rounds))
            title = f"resume of {10 * count:,} by {how}"
            print(f"{title:34}{took:>9.3f} s")
        run = statistics.median(seconds(empty) for _ in range(max(rounds, 5)))
        print(f"{'empty flow run':34}{run * 1e3:>9.3f} ms")
    a, b = _alternate(
        lambda: import_time("dflow"), lambda: import_time("distributed"), max(rounds, 3)
    )
    print(f"{'import dflow / distributed':34}{a * 1e3:>9.3f} ms{b * 1e3:>9.3f} ms{b / a:>12.2f}×")
    speed = statistics.median(hashed() for _ in range(rounds))
    print(f"{'hashing an array for a key':34}{speed / 1e9:>9.2f} GB/s")
    rows = statistics.median(journal_rows(10 * count) for _ in range(rounds))
    print(f"{'journal, 100 events a transaction':34}{rows:>9,.0f} events/s")


if __name__ == "__main__":
    main()
