"""The driver dies in front of single system calls: writes, syncs, and whatever gives files their names.

strace counts the calls of each thread by itself: the first thread to come to the k-th dies with its process.
"""

from __future__ import annotations

import random

from tests.faults.crews import Ground, held
from tests.faults.lanes import Fate, Traced
from tests.faults.reports import Asked, Report
from tests.faults.rounds import Tally, fates
from tests.faults.tools import no_strace

CALLS = {"pwrite64": 600, "fdatasync": 18, "unlink": 12, "ftruncate": 3, "link": 2}
"""About how many there are in one thread of a driver of the flow that is tried."""
POINTS = 14
"""How many of each are tried at most."""


def campaign(asked: Asked) -> Report:
    """Kill a driver at system calls."""
    report = Report("Drivers killed in front of a system call (strace)")
    report.skipped = no_strace()
    cases = [("nested", "inline"), ("subflows", "threads")]
    return report if report.skipped else held(report, cases, Traced, _case, asked)


def _case(ground: Ground) -> Tally:
    tally = Tally()
    undisturbed = ground.round("undisturbed")
    tally.add(undisturbed.play(Fate))
    tally.rounds = 0
    luck = random.Random(f"{ground.asked.seed} {ground.name}")
    for call, count in CALLS.items():
        most = ground.asked.count(1, POINTS)
        for number in sorted(luck.sample(range(1, count + 1), min(most, count))):
            one = ground.round(f"{call} {number}", undisturbed)
            tally.add(one.play(fates([Fate(inject=f"{call}:signal=KILL:when={number}")])))
    return tally
