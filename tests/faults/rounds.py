"""One round: a flow is begun, its driver killed and resumed, perhaps again and again, until it has ended."""

from __future__ import annotations

import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults import oracle
from tests.faults.drivers import Order
from tests.faults.flows import CASES
from tests.faults.lanes import Ended, Fate, Lane, Place
from tests.faults.reports import Figures
from tests.faults.verdicts import Broken, Snapshot, examine, judge, look

ATTEMPTS = 400
"""How many drivers a round may take at most."""


def fates(drivers: Sequence[Fate]) -> Callable[[], Fate]:
    """Return what gives each of these drivers its fate, and lets those that follow go by."""
    left = list(drivers)
    return lambda: left.pop(0) if left else Fate()


@dataclass(slots=True)
class Tally:
    """What came of the rounds of one case."""

    rounds: int = 0
    kills: int = 0
    in_resumes: int = 0
    before_the_run: int = 0
    refused: int = 0
    held_up: int = 0
    broken: Broken = field(default_factory=Broken)
    violations: list[str] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)

    def figures(self, **about: object) -> Figures:
        """Return these as a row of a table."""
        broken = self.broken
        seldom = {"held up": self.held_up, "refused": self.refused}
        return {
            **about,
            "rounds": self.rounds,
            **{head: count for head, count in seldom.items() if count},
            "kills": self.kills,
            "in a resume": self.in_resumes,
            "before the run": self.before_the_run,
            "lost": len(broken.lost),
            "ran again": len(broken.ran_again),
            "doubled": len(broken.doubled),
            "broken": len(broken.invariants),
            "unfinished": len(broken.unfinished),
            "wrong": len(broken.wrong),
        }

    def add(self, other: Tally) -> None:
        """Take in what another one counted."""
        for name in self.__slots__:
            mine, its = getattr(self, name), getattr(other, name)
            if isinstance(mine, Broken):
                mine.add(its)
            else:
                setattr(self, name, mine + its)


def times(tally: Tally) -> list[str]:
    """Say how long resumes took."""
    said = []
    for name, seconds in (
        ("from the start of the process to the first new body", tally.loaded),
        ("from the call of resume to the first new body", tally.resumed),
    ):
        if seconds:
            middle, most = statistics.median(seconds), max(seconds)
            said.append(f"{name}: median {middle:.3f} s, most {most:.3f} s, of {len(seconds)}")
    return said


@dataclass(slots=True)
class Round:
    """A round in a folder of its own. `name` is what its violations are called by.

    `work` is under how many identities each piece of work began in a run that nothing disturbed; such a run
    sets it.
    """

    lane: Lane
    place: Place
    flow: str
    runner: str
    name: str
    work: Counter[str] | None = None
    sabotage: str = ""
    durability: str = "normal"
    tally: Tally = field(default_factory=Tally)
    snapshots: list[Snapshot] = field(default_factory=list)
    seconds: float = 0.0
    lines: int = 0
    transactions: int = 0

    def play(self, fates: Callable[[], Fate]) -> Tally:
        """Carry it out; `fates` says what becomes of each driver, and must let one go by in the end."""
        self.tally.rounds = 1
        for _ in range(ATTEMPTS):
            if not self._drive(fates()):
                break
        else:
            self._note(Broken(unfinished=[f"it has not ended after {ATTEMPTS} drivers"]))
        if self.tally.violations:
            self.tally.violations.append(f"  {self.name}: its files are in {self.place.folder}")
        else:
            shutil.rmtree(self.place.folder)
        return self.tally

    def _drive(self, fate: Fate) -> bool:
        """Let one driver run; return whether another one has to follow."""
        resumes = bool(self.snapshots)
        before = self._noted()
        order = self._order(fate, resumes)
        ended = self.lane.drive(order, self.place.said, fate)
        self.seconds = time.monotonic() - ended.began
        self.tally.held_up += ended.said.count("The run is held up") - self.tally.held_up
        noted = self._noted()
        self.lines = len(noted)
        if resumes:
            self._time(ended, noted[len(before) :])
        self.transactions = next((n["transactions"] for n in noted if n["what"] == "ends"), 0)
        now = self._look(noted)
        if ended.left:
            self._note(Broken(unfinished=[f"left behind: {', '.join(ended.left)}"]))
        if ended.killed and not ended.hung:
            self.tally.kills += 1
            self.tally.in_resumes += resumes
            self.tally.before_the_run += now is None
            return True
        if fate.may_fail and ended.code and "cannot be used" in ended.said:
            self.tally.refused += 1
            return True
        if ended.hung or ended.code:
            what = "hung" if ended.hung else f"ended with exit code {ended.code}"
            self._note(Broken(unfinished=[f"a driver {what}; it said:\n{ended.said[-6000:]}"]))
            return False
        if self.work is None:
            self.work = oracle.identities(noted)
        self._note(judge(now, CASES[self.flow].value, self.work))
        return False

    def _order(self, fate: Fate, resumes: bool) -> Order:
        return self.place.order(
            self.flow,
            self.runner,
            resumes=resumes,
            crash_at=fate.crash_at,
            place=fate.place,
            sabotage=self.sabotage,
            durability=self.durability,
        )

    def _noted(self) -> list[dict[str, Any]]:
        return oracle.lines(self.place.oracle)

    def _look(self, noted: list[dict[str, Any]]) -> Snapshot | None:
        broken = Broken()
        now = look(self.place.home, noted, self.place.folder / "copy", broken)
        self._note(broken)
        if now is not None:
            self._note(examine(now, self.snapshots[-1:]))
            self.snapshots.append(now)
        return now

    def _note(self, broken: Broken) -> None:
        self.tally.broken.add(broken)
        self.tally.violations += [f"{self.name}: {sentence}" for sentence in broken.all()]

    def _time(self, ended: Ended, noted: list[dict[str, Any]]) -> None:
        called = next(_at(noted, "resume"), None)
        first = next(_at(noted, "start"), None)
        if called is not None and first is not None:
            self.tally.loaded.append(first - ended.began)
            self.tally.resumed.append(first - called)


def _at(noted: list[dict[str, Any]], what: str) -> Iterator[float]:
    return (line["at"] for line in noted if line["what"] == what)
