"""Lines of single pieces: the journal, hashing, imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dflow.core.events import TaskCreated
from dflow.engine import system
from dflow.journal import SqliteJournal
from dflow.ports import Batch, RunEntry
from dflow.results.fingerprints import content
from tests.benchmarks.bench import Bench, seconds
from tests.benchmarks.results import Line, Result, time_of

RUN = "a" * 32


def _created(number: int) -> TaskCreated:
    return TaskCreated(
        at=0.0,
        task_run_id=f"{number:032x}",
        flow_run_id=RUN,
        parent_id=RUN,
        task_name="bench",
        name=f"bench-{number}",
    )


def journal_rows(count: int) -> float:
    """Return how many events a second the journal takes, 100 in a transaction."""
    with tempfile.TemporaryDirectory() as home:
        journal = SqliteJournal(Path(home), is_alive=system.is_alive)
        journal.catalog.create(RunEntry(RUN, "bench", "bench", 0.0))
        run = journal.write(RUN, journal.catalog.claim(RUN, system.holder(), 0.0))
        batches = [
            Batch(events=[_created(start + i) for i in range(100)])
            for start in range(0, count, 100)
        ]
        took = seconds(lambda: [run.append(batch) for batch in batches])
        run.close()
        journal.close()
    return len(batches) * 100 / took


def journal(bench: Bench) -> Result:
    """Measure the journal by itself."""
    count = bench.size(10_000, 200)
    rows = statistics.median(journal_rows(count) for _ in range(bench.rounds))
    return Result(dflow=f"{rows:,.0f} events/s")


def hashing(bench: Bench) -> Result:
    """Measure how fast an array is hashed for a key."""
    array = np.random.default_rng(0).random(bench.size(2**24, 2**16))
    took = statistics.median(seconds(lambda: content(array)) for _ in range(bench.rounds))
    return Result(dflow=f"{array.nbytes / took / 1e9:.2f} GB/s")


def import_time(module: str) -> float:
    """Return the seconds that a fresh Python takes to import a module, without its own start."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def imports(bench: Bench) -> Result:
    """Compare the imports of dflow and of distributed."""
    pairs = [(import_time("dflow"), import_time("distributed")) for _ in range(bench.rounds)]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Result(
        dflow=time_of(ours), dask=time_of(theirs), figure=f"{theirs / ours:.3g} × as fast"
    )


LINES = [
    Line("imports", "`import dflow`, `import distributed`", "", imports),
    Line("journal", "journal by itself, 100 events a transaction", "", journal),
    Line("hashing", "hashing an array for a key", "", hashing),
]
