"""The driver dies at every transaction that it writes: before it, in the middle of it, and right behind it.

All files count: the catalog and the record of the run. Behind a transaction means before anybody is shown it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.faults.crews import Ground, held
from tests.faults.flows import CASES
from tests.faults.lanes import Fate, Forks
from tests.faults.reports import Asked, Report
from tests.faults.rounds import Tally, fates

PLACES = ("before", "middle", "after")
SHORT = (("nested", "inline"),)
FULL = (
    *((flow, "inline") for flow, case in CASES.items() if "inline" in case.runners),
    *((flow, "threads") for flow in ("as completed", "cancels", "maps", "nested")),
    *((flow, "dask-in-process") for flow in ("maps", "not kept", "as completed")),
)


def campaign(asked: Asked) -> Report:
    """Kill a driver at each of its transactions; and again at each of those of the resume."""
    return held(
        Report("Drivers killed at each transaction of the journal"),
        FULL if asked.full else SHORT,
        Forks,
        _case,
        asked,
    )


def _case(ground: Ground) -> Tally:
    """Try every step-th transaction of a run, and of a resume of a run that was killed halfway."""
    asked = ground.asked
    tally = Tally()
    undisturbed = ground.round("undisturbed")
    tally.add(undisturbed.play(Fate))
    tally.rounds = 0
    count = undisturbed.transactions
    luck = random.Random(f"{asked.seed} {ground.name}")
    step = asked.rounds or (4 if asked.full else 20)  # no multiple of the places: each has its turn
    for number, place in _points(count, step, luck):
        one = ground.round(f"{place} transaction {number}", undisturbed)
        tally.add(one.play(fates([Fate(crash_at=number, place=place)])))
    for number, place in _points(count // 2 + 6, 2 * step, luck):
        first = Fate(crash_at=luck.randint(count // 4, count), place=luck.choice(PLACES))
        one = ground.round(f"{place} transaction {number} of the resume", undisturbed)
        tally.add(one.play(fates([first, Fate(crash_at=number, place=place)])))
    return tally


def _points(count: int, step: int, luck: random.Random) -> Iterator[tuple[int, str]]:
    """Yield transactions and places in them: with a step of 1 all there are."""
    points = [(number, place) for number in range(1, count + 1) for place in PLACES]
    yield from points[luck.randrange(step) :: step]
