"""System calls that fail for a while, or take long: writes, syncs, and whatever gives files their names.

A transaction that could not be synced is not acknowledged: it is written again, with every page of it, and
counts when the sync behind that has succeeded. Where the driver cannot even begin, it says so and ends.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.faults.crews import Ground, held
from tests.faults.lanes import Fate, Traced
from tests.faults.reports import Asked, Report
from tests.faults.rounds import Tally, fates
from tests.faults.tools import no_strace

FAILURES = {
    "pwrite64": (("ENOSPC", "EIO"), 250),
    "fdatasync": (("EIO", "ENOSPC"), 34),
    "ftruncate": (("EIO",), 3),
    "unlink": (("EIO",), 12),
    "link": (("ENOSPC",), 2),
}
"""Which errors each call fails with, and about how many calls there are in a thread of the driver."""


def campaign(asked: Asked) -> Report:
    """Let system calls fail, or take long, in drivers that sync each transaction and in those that do not."""
    report = Report("System calls that fail for a while or take long (strace)")
    report.skipped = no_strace()
    cases = [("calls", "inline"), ("nested", "threads")]
    return report if report.skipped else held(report, cases, Traced, _case, asked)


def _case(ground: Ground) -> Tally:
    tally = Tally()
    undisturbed = ground.round("undisturbed")
    tally.add(undisturbed.play(Fate))
    tally.rounds = 0
    luck = random.Random(f"{ground.asked.seed} {ground.name}")
    for durability in ("normal", "full"):
        for what, drivers in _faults(luck, ground.asked.count(1, 6)):
            one = ground.round(f"{what} {durability}", undisturbed, durability)
            tally.add(one.play(fates(drivers)))
    return tally


def _faults(luck: random.Random, rounds: int) -> Iterator[tuple[str, list[Fate]]]:
    """Yield what happens to the drivers of each round: a call fails once or some times, or is slow."""
    for number in range(rounds):
        for call, (errors, count) in FAILURES.items():
            first = luck.randint(1, count)
            last = first + luck.choice((0, 1, 4))
            failing = f"{call}:error={luck.choice(errors)}:when={first}..{last}"
            yield f"{number} {failing}", [Fate(inject=failing, may_fail=True)]
            killed = Fate(
                inject=failing, may_fail=True, after_lines=luck.randint(1, 30), kill_after=0.3
            )
            yield f"{number} {failing} killed", [killed]
        slow = f"fdatasync:delay_enter=300000:when={luck.randint(1, 40)}..{luck.randint(41, 60)}"
        moment = Fate(
            inject=slow, after_lines=luck.randint(1, 20), kill_after=luck.uniform(0.0, 0.4)
        )
        yield f"{number} {slow}", [moment]
