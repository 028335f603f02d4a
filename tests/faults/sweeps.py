"""How long it takes to resume a sweep of many finished task runs that was interrupted at its end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from os import environ

from dflow import flow, task
from tests.faults.lanes import ROOT
from tests.faults.reports import Asked, Figures, Report

MANY = 10_000
LIMIT = 3.0
"""Seconds in which a sweep of so many finished task runs must be resumed."""
CASES = (
    ("mapped", "inline"),
    ("mapped", "threads"),
    ("mapped", "dask-in-process"),
    ("submitted", "threads"),
    ("submitted", "dask-in-process"),
    ("called", "threads"),
)


@task
def score(n: int, rate: float) -> float:
    """Do next to nothing."""
    return n * rate


def _mapped(count: int) -> list[float]:
    return score.map(range(count), [0.5] * count).result()


def _submitted(count: int) -> list[float]:
    return [future.result() for future in [score.submit(n, 0.5) for n in range(count)]]


def _called(count: int) -> list[float]:
    return [score(n, 0.5) for n in range(count)]


HOW: dict[str, Callable[[int], list[float]]] = {
    "mapped": _mapped,
    "submitted": _submitted,
    "called": _called,
}


def campaign(asked: Asked) -> Report:
    """Measure, each case in a process of its own."""
    count = MANY if asked.full else MANY // 10
    report = Report(f"A sweep of {count:,} finished task runs, interrupted at its end, is resumed")
    for how, runner in CASES if asked.full else CASES[:2]:
        figures = _measured(how, runner, count)
        report.rows.append(figures)
        # On a machine that is busy with something else only the time that it got counts.
        seconds = min(float(str(figures["resumed (s)"])), float(str(figures["of a processor (s)"])))
        if seconds > LIMIT and how != "called":
            report.violations.append(f"{how} on {runner}: {seconds:.1f} s, more than {LIMIT} s")
    return report


def _measured(how: str, runner: str, count: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="dflow-faults-") as home:
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.sweeps", how, str(count)],
            cwd=ROOT,
            env={
                **environ,
                "DFLOW_HOME": home,
                "DFLOW_TASK_RUNNER": runner,
                "DFLOW_LOG_LEVEL": "ERROR",
            },
            check=True,
            capture_output=True,
            text=True,
        )
    took = json.loads(done.stdout)
    return {"task runs": how, "runner": runner, **took}


def _measure(how: str, count: int) -> Figures:
    interrupts = [True]

    @flow
    def sweep(count: int) -> float:
        scores = HOW[how](count)
        if interrupts:
            interrupts.clear()
            raise KeyboardInterrupt
        return max(scores)

    begun = time.perf_counter()
    try:
        sweep(count)
    except KeyboardInterrupt:
        first = time.perf_counter() - begun
    begun, busy = time.perf_counter(), time.process_time()
    best = sweep.resume("latest")
    took, busy = time.perf_counter() - begun, time.process_time() - busy
    if best != (count - 1) * 0.5:
        raise AssertionError(best)
    return {"run (s)": first, "resumed (s)": took, "of a processor (s)": busy}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))))
