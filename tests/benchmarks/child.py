"""A process that measures lines, and prints what came of each as a line of JSON: ``python -m`` this module.

Each line has such a process to itself (``--quick``: all share one), so that none meets what another has
left in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.audit import audit, audited
from tests.benchmarks.bench import Bench
from tests.benchmarks.catalogue import LINES
from tests.benchmarks.ending import end_after
from tests.benchmarks.results import Outcome


def measured(name: str, bench: Bench, home: Path) -> Outcome:
    """Measure a line, in a home of its own, whose journals are examined afterwards."""
    began = time.monotonic()
    os.environ.update(DFLOW_HOME=str(home), DFLOW_LOG_LEVEL="ERROR")
    try:
        result = LINES[name].run(bench)
    except Exception:
        return Outcome(name, error=traceback.format_exc())
    look = audit if bench.quick else audited
    return Outcome(name, result, seconds=time.monotonic() - began, **look(home))


def main() -> None:
    """Measure the lines that are named."""
    end_after(sys.stdin.read)  # it ends with the parent
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.child")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--patience", type=float, required=True)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    bench = Bench(asked.rounds, quick=asked.quick, patience=asked.patience)
    with tempfile.TemporaryDirectory() as homes:
        try:
            for name in asked.names:
                outcome = measured(name, bench, Path(homes, name))
                print(json.dumps(asdict(outcome)), flush=True)
        finally:
            bench.close()


if __name__ == "__main__":
    main()
