"""The fault campaigns: ``python -m tests.faults``, or ``make faults``.

Each injects its faults for real and prints what it tried and what broke; the exit code is 1 if anything did.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults import (
    corruption,
    disks,
    failing,
    killed,
    race,
    stops,
    sweeps,
    syncs,
    syscalls,
    writes,
)
from tests.faults.reports import Asked, Campaign, printed

CAMPAIGNS: dict[str, Campaign] = {
    "killed": Campaign(killed.campaign),
    "writes": Campaign(writes.campaign),
    "syscalls": Campaign(syscalls.campaign, short=False),
    "failing-calls": Campaign(failing.campaign, short=False),
    "syncs": Campaign(syncs.campaign),
    "disks": Campaign(disks.campaign),
    "stops": Campaign(stops.campaign),
    "sweeps": Campaign(sweeps.campaign),
    "corruption": Campaign(corruption.campaign),
    "race": Campaign(race.campaign),
    "killed-with-processes": Campaign(killed.with_processes, short=False),
}


def main() -> int:
    """Hold the campaigns that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, help="these campaigns only")
    parser.add_argument("--rounds", type=int, help="how often each case is tried")
    parser.add_argument("--seed", type=int, default=1, help="where luck begins")
    parser.add_argument("--short", action="store_true", help="the short form, as in the tests")
    given = parser.parse_args()
    asked = Asked(not given.short, given.seed, given.rounds, lambda line: print(f"  {line}"))
    reports = []
    for name in given.only or CAMPAIGNS:
        print(f"\n{name} …", flush=True)
        began = time.monotonic()
        report = CAMPAIGNS[name].hold(asked)
        report.notes.append(f"{time.monotonic() - began:.0f} s")
        reports.append(report)
        print(printed(report), flush=True)
    violations = sum(len(report.violations) for report in reports)
    print(f"\n{len(reports)} campaigns, {violations} violations, seed {asked.seed}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
