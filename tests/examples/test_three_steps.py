"""The smallest example."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_script_prints_its_lines() -> None:
    """Run as a script, each of its three steps prints a line."""
    ran = subprocess.run(
        [sys.executable, ROOT / "dflow/examples/three_steps.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.splitlines() == [
        "preprocess: 100 points",
        "train: slope 1.007",
        "evaluate: mean error 0.020",
    ]
