"""The benchmarks run: their short form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import dflow
from tests.benchmarks import report
from tests.benchmarks.audit import audit
from tests.benchmarks.catalogue import LINES
from tests.benchmarks.results import Outcome, Result
from tests.runners.hosts import patiently


@pytest.mark.timeout(240)
def test_each_line_says_something() -> None:
    """A short run measures every line, and every invariant holds over what it has written."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--quick"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.split("\n\n")
    for line in LINES.values():
        lines = next(text for text in told if text.startswith(line.work)).splitlines()
        assert any(unit in lines[1] for unit in (" ms", " µs", " s", " kB", "/s")), lines
        assert lines[1].endswith(("met", "missed")) == bool(line.target), lines
        assert lines[-1].endswith(": 0 invariants broken"), lines
    assert told[-1].strip().endswith("0 FAILED, 0 BROKEN")


def test_it_ends_with_its_parent() -> None:
    """When the process that was asked for benchmarks is ended, nothing that it has started is left."""
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "latency", "--rounds", "1000"]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL) as asked:
        found = patiently(lambda: _workers_and_others(asked.pid), "the start of workers")
        asked.terminate()
        _, left = psutil.wait_procs(found, timeout=30)
        for each in left:
            each.kill()
    assert left == []


def _workers_and_others(pid: int) -> list[psutil.Process]:
    """Return all processes under one, once there are workers among them."""
    found = psutil.Process(pid).children(recursive=True)
    return found if len(found) > 3 else []


def test_what_is_broken_is_told(dflow_home: Path) -> None:
    """The audit counts a task run that has not completed, and says so."""

    @dflow.task
    def fails() -> None:
        raise ValueError("on purpose")

    @dflow.flow
    def failing() -> None:
        fails()

    with pytest.raises(ValueError, match="on purpose"):
        failing()
    found = audit(dflow_home)
    assert (found["runs"], found["task_runs"], len(found["broken"])) == (1, 1, 2)
    assert "'fails-0' is Failed" in found["broken"][0]


def test_the_page(tmp_path: Path) -> None:
    """A section of the page is replaced, and nothing else of it; the table tells verdicts."""
    page = tmp_path / "page.md"
    page.write_text("head\n<!-- benchmarks -->\nold\n<!-- end of benchmarks -->\ntail\n")
    outcomes = [
        Outcome("map", Result("1 ms", "30 ms", "30 ×", met=True), runs=3, task_runs=7),
        Outcome("chain", error="no"),
        Outcome("latency", Result("1 ms", met=True), broken=["a gap"]),
    ]
    report.replaced("benchmarks", report.section(outcomes, 3), page)
    text = page.read_text()
    assert text.startswith("head\n")
    assert text.endswith("\ntail\n")
    assert "old" not in text
    assert "| ≥ 25 × raw | 1 ms | 30 ms | 30 × | met |" in text
    assert "1 met, 0 missed, 1 FAILED, 1 BROKEN" in text
    with pytest.raises(ValueError, match="no section 'peers'"):
        report.replaced("peers", "", page)


@pytest.mark.timeout(240)
def test_peers(tmp_path: Path) -> None:
    """What runs here is measured; a peer that cannot be installed is named, with the reason."""
    cache = tmp_path / "no folder"
    cache.write_text("")
    what = ["--only", "dflow", "joblib", "--rounds", "1", "--share", "0.003"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.peers", *what, "--cache", str(cache)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    dflow_row, joblib_row = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    title, *rates, keeps, _ = dflow_row.split(" | ")
    assert (title, len(rates), keeps) == ("dflow", 3, "every state, on disk")
    assert all(int(rate.replace(",", "")) > 0 for rate in rates)
    assert joblib_row.startswith("joblib | – | – | – |")
    assert "| cannot be installed: " in joblib_row
    assert "no folder" in joblib_row
