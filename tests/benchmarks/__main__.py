"""What dflow costs beside raw Dask: ``python -m tests.benchmarks``, or ``make bench``.

For each line rounds of dflow and of raw Dask alternate, each driven by a process of its own, on clusters of
the same shape: 2 worker processes of 1 thread. Medians count. Read the ratios: absolute figures are of the
machine and the moment. After each line every invariant is asserted over all journals that it has written.
The exit code is 1 when one is broken or a line could not be measured; a target that is missed is only told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.benchmarks import report
from tests.benchmarks.catalogue import LINES
from tests.benchmarks.machine import ROOT, described
from tests.benchmarks.results import Outcome, parsed


def main() -> int:
    """Measure the lines that are asked for; return the exit code."""
    asked = _parser().parse_args()
    if asked.write and (asked.only or asked.quick):
        sys.exit("--write is for the whole table: without --only and --quick.")
    names = asked.only or list(LINES)
    print("\n".join(described()), flush=True)
    options = ["--rounds", str(asked.rounds), "--patience", str(asked.patience)]
    groups = [names] if asked.quick else [[name] for name in names]
    if asked.quick:
        options.append("--quick")
    outcomes = []
    for outcome in (one for group in groups for one in _measured(group, options)):
        outcomes.append(outcome)
        print(f"\n{report.printed(outcome)}", flush=True)
    print(f"\n{report.summary(outcomes)}")
    if asked.write:
        report.replaced("benchmarks", report.section(outcomes, asked.rounds))
        print(f"Written to '{report.PAGE.name}'.")
    return 0 if all(outcome.sound for outcome in outcomes) else 1


def _measured(names: Sequence[str], options: Sequence[str]) -> Iterator[Outcome]:
    """Yield what a process of their own finds for lines. It ends when its input does: with this one."""
    command = [sys.executable, "-m", "tests.benchmarks.child", *options, *names]
    left = list(names)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as child:
        for text in child.stdout or ():
            try:
                outcome = parsed(json.loads(text))
            except ValueError:  # something else was printed
                print(text, end="")
                continue
            left.remove(outcome.name)
            yield outcome
    for name in left:
        yield Outcome(name, error=f"Its process ended with exit code {child.returncode}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=LINES, metavar="NAME", help=", ".join(LINES))
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    parser.add_argument(
        "--quick", action="store_true", help="small counts, one round: does it run?"
    )
    parser.add_argument("--write", action="store_true", help="write the table of BENCHMARKS.md")
    parser.add_argument(
        "--patience", type=float, default=240.0, help="seconds that the longest map may take"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
