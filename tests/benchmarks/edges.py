"""Lines of beginnings and ends: a script from its start to its first result, and to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.benchmarks.bench import Bench, settle
from tests.benchmarks.machine import ROOT
from tests.benchmarks.results import Line, Result, time_of

OURS = """
import json, sys, time
began = time.perf_counter()
from dflow import flow, task
from task_runners import DaskTaskRunner

@task
def plus_one(x: int) -> int:
    return x + 1

@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1}))
def first() -> float:
    assert plus_one.submit(1).result() == 2
    return time.perf_counter() - began

if __name__ == "__main__":
    print(json.dumps([first(), time.time()]))
"""

THEIRS = """
import json, sys, time
began = time.perf_counter()
from dask.distributed import Client, LocalCluster

def plus_one(x: int) -> int:
    return x + 1

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        with Client(cluster) as client:
            assert client.submit(plus_one, 1).result() == 2
            took = time.perf_counter() - began
            print(json.dumps([took, time.time()]))
"""


@dataclass(slots=True)
class Script:
    """A script, run several times: seconds to its first result, and from there to its end."""

    path: Path
    quick: bool
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run it once."""
        if not self.quick:
            settle()
        done = subprocess.run(
            [sys.executable, str(self.path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        ended = time.time()
        if done.returncode:
            raise AssertionError(f"'{self.path.name}' failed:\n{done.stderr}")
        took, printed = json.loads(done.stdout.splitlines()[-1])
        self.starts.append(took)
        self.ends.append(ended - printed)


def scripts(bench: Bench) -> Result:
    """Compare scripts that start a cluster of two worker processes, take one result, and end."""
    with tempfile.TemporaryDirectory() as folder:
        pair = []
        for name, text in (("ours", OURS), ("theirs", THEIRS)):
            path = Path(folder, f"{name}.py")
            path.write_text(text, encoding="utf-8")
            pair.append(Script(path, bench.quick))
        for _ in range(bench.rounds):
            for script in pair:
                script.run()
    ours, theirs = pair
    start, end = median(ours.starts), median(ours.ends)
    raw_start, raw_end = median(theirs.starts), median(theirs.ends)
    return Result(
        dflow=f"{time_of(start)}, end {time_of(end)}",
        dask=f"{time_of(raw_start)}, end {time_of(raw_end)}",
        figure=f"{start / raw_start:.2f} × to the first result, {end / raw_end:.2f} × to the end",
    )


LINES = [Line("script", "a script: cluster started, first result; its end", "", scripts)]
