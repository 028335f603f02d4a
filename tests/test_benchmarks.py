"""The benchmarks run: their short form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_each_line_is_printed() -> None:
    """A short run prints every line with its figures, dflow beside raw Dask."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--count", "20", "--rounds", "1"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in ("map + results", "loop of submits", "one submit()", "import dflow"):
        assert any(row.startswith(line) and row.endswith("×") for row in done.stdout.splitlines())
    for line in (
        "direct call in a flow", "cache hit", "hashing", "empty flow run", "journal", "resume of 200",
    ):  # fmt: skip
        assert any(row.startswith(line) for row in done.stdout.splitlines())
