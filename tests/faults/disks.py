"""A disk that is full while a run is driven: it is said, nothing false is shown, and the run goes on or ends.

On a small file system of its own, which takes root; the short form limits the size of the driver's files.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import oracle, programs
from tests.faults.flows import CASES
from tests.faults.lanes import Place
from tests.faults.programs import Program, TooLate
from tests.faults.reports import Asked, Figures, Report
from tests.faults.rooms import Room, SmallFiles, small_disk
from tests.faults.tools import no_mounts
from tests.faults.verdicts import Broken, Snapshot, examine, judge, look

FLOW = "steady"
HELD_UP = "The run is held up"
GOES_ON = "The journal can be written again"
SAID_WITHIN = 2.0
"""Seconds in which it must be said that a run is held up."""
STOPPED_WITHIN = 10.0
"""Seconds in which Ctrl-C must end a run that is held up."""


@dataclass(slots=True)
class Trial:
    """One driver, one full disk."""

    room: Room
    place: Place
    runner: str
    luck: random.Random
    said_after: list[float] = field(default_factory=list)
    ended_after: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    before: list[Snapshot] = field(default_factory=list)
    drivers: list[Program] = field(default_factory=list)

    def run(self) -> Program:
        """Start the flow."""
        self.drivers.append(programs.run(self.place, self.runner, FLOW))
        return self.drivers[-1]

    def held_up(self) -> Program:
        """Start the flow, take the room away at some moment, and wait until that is said."""
        driver = self.run()
        driver.until_noted(self.luck.randint(5, 60))
        self.room.take(driver)
        self.said_after.append(driver.until_said(HELD_UP, SAID_WITHIN + 3.0))
        if self.said_after[-1] > SAID_WITHIN:
            self.faults.append(f"it said so after {self.said_after[-1]:.1f} s only")
        self.examine()
        return driver

    def examine(self) -> None:
        """Hold the record against what was shown up to now."""
        now = self.now()
        if now is not None:
            self._note(examine(now, self.before[-1:]))
            self.before.append(now)

    def expect(self, driver: Program, code: int, seconds: float = programs.DEADLINE) -> None:
        """Wait for the end of a driver, which must be this one."""
        found, after = driver.ended(seconds)
        self.ended_after.append(after)
        if found != code:
            self.faults.append(f"exit code {found}, not {code}; it said:\n{driver.said()[-3000:]}")
        if "Traceback" in driver.said():
            self.faults.append(f"it showed a traceback:\n{driver.said()[-3000:]}")

    def finish(self) -> None:
        """Resume the run until it has ended, and judge it."""
        self.expect(programs.resume(self.place, self.runner), 0)
        self.judge()

    def judge(self, value: object = CASES[FLOW].value) -> None:
        """Hold the end of the run against what must be."""
        self.examine()
        self._note(judge(self.now(), value, Counter()))

    def end(self) -> None:
        """Leave no driver behind."""
        for driver in self.drivers:
            driver.kill()

    def now(self) -> Snapshot | None:
        """Return the record as it lies on the disk."""
        broken = Broken()
        noted = oracle.lines(self.place.oracle)
        copy = self.place.folder / "copy"
        now = look(self.place.home, noted, copy, broken, driven=True)
        self._note(broken)
        return now

    def _note(self, broken: Broken) -> None:
        self.faults += broken.all()


def freed(trial: Trial) -> None:
    """The run goes on, and ends as if nothing had been."""
    driver = trial.held_up()
    trial.room.give(driver)
    driver.until_said(GOES_ON)
    trial.expect(driver, 0)
    trial.judge()


def freed_twice(trial: Trial) -> None:
    """It happens again, and is said again."""
    driver = trial.held_up()
    trial.room.give(driver)
    driver.until_said(GOES_ON)
    trial.room.take(driver)
    driver.until(lambda: driver.said().count(HELD_UP) == 2)
    trial.room.give(driver)
    trial.expect(driver, 0)
    trial.judge()


def _stopped(trial: Trial, number: signal.Signals) -> None:
    driver = trial.held_up()
    driver.signal(number)
    trial.expect(driver, 130, STOPPED_WITHIN)
    for text in ("is not recorded", "Interrupted. Resume with: dflow resume"):
        if text not in driver.said():
            trial.faults.append(f"it did not say '{text}' but:\n{driver.said()[-3000:]}")
    trial.examine()
    trial.room.give()
    trial.finish()


def stopped(trial: Trial) -> None:
    """Ctrl-C ends it, and it is resumed."""
    _stopped(trial, signal.SIGINT)


def terminated(trial: Trial) -> None:
    """SIGTERM ends it, and it is resumed."""
    _stopped(trial, signal.SIGTERM)


def killed(trial: Trial) -> None:
    """It is killed while it is held up, and resumed."""
    driver = trial.held_up()
    driver.signal(signal.SIGKILL)
    driver.ended()
    trial.room.give()
    trial.examine()
    trial.finish()


def full_at_the_end(trial: Trial) -> None:
    """All its work is done when the disk is full: it ends when there is room."""
    gate = trial.place.folder / "gate"
    driver = programs.run(trial.place, trial.runner, "polling", str(gate))
    trial.drivers.append(driver)
    driver.until(lambda: any(n["what"] == "waits" for n in oracle.lines(trial.place.oracle)))
    trial.room.take(driver)
    gate.touch()
    trial.said_after.append(driver.until_said(HELD_UP, SAID_WITHIN))
    trial.examine()
    trial.room.give(driver)
    trial.expect(driver, 0)
    trial.judge(1)


def full_at_first(trial: Trial) -> None:
    """There is hardly any room when it begins: it is refused, or held up; with room it goes on, or again."""
    trial.room.take(leaving=1 + trial.luck.randrange(280) * 1024)
    driver = trial.run()
    try:
        driver.until_said(HELD_UP, 15.0)
    except TooLate:
        if driver.process.poll() is None:
            trial.faults.append("it neither ended nor said that it is held up")
    trial.room.give()
    code, _ = driver.ended()
    if "Traceback" in driver.said() or code not in (0, 1, 2):
        trial.faults.append(f"exit code {code}; it said:\n{driver.said()[-3000:]}")
    if code == 0:
        trial.judge()
        return
    if "cannot be used" not in driver.said():
        trial.faults.append(f"it did not say what is wrong:\n{driver.said()[-3000:]}")
    if trial.now() is None:
        trial.expect(trial.run(), 0)
        trial.judge()
    else:
        trial.finish()


Scenario = Callable[[Trial], None]
SCENARIOS: tuple[Scenario, ...] = (
    freed,
    freed_twice,
    stopped,
    terminated,
    killed,
    full_at_the_end,
    full_at_first,
)
SHORT: tuple[Scenario, ...] = (freed, stopped)
RUNNERS = ("inline", "dask-in-process")


def campaign(asked: Asked) -> Report:
    """Fill disks, or in the short form forbid files to grow."""
    if asked.full:
        report = Report("Full disk: the journal on a file system of 8 MB that is filled, and freed")
        report.skipped = no_mounts()
    else:
        report = Report("Full disk: the files of the journal may not grow (a limit on their size)")
        report.skipped = "" if sys.platform == "linux" else "limits are set on Linux only"
    if not report.skipped:
        report.notes.append(f"seed {asked.seed}")
        for scenario in SCENARIOS if asked.full else SHORT:
            report.rows.append(_tried(report, asked, scenario))
    return report


def _tried(report: Report, asked: Asked, scenario: Scenario) -> Figures:
    """Play a scenario on several runners, and return its row."""
    trials = []
    rounds = asked.count(1, 20 if scenario is full_at_first else 3)
    for runner in RUNNERS if asked.full else RUNNERS[:1]:
        for number in range(rounds):
            name = f"{scenario.__name__} on {runner} {number}"
            luck = random.Random(f"{asked.seed} {name}")
            with _room(asked) as (folder, home, room):
                trial = Trial(room, Place(folder, home), runner, luck)
                try:
                    scenario(trial)
                except TooLate as error:
                    trial.faults.append(str(error))
                finally:
                    trial.end()
            report.violations += [f"{name}: {fault}" for fault in trial.faults]
            trials.append(trial)
    said = [seconds for trial in trials for seconds in trial.said_after]
    ended = [seconds for trial in trials for seconds in trial.ended_after]
    asked.say(f"{scenario.__name__}: {len(trials)} trials")
    return {
        "scenario": scenario.__name__.replace("_", " "),
        "trials": len(trials),
        "failed": sum(bool(trial.faults) for trial in trials),
        "said after (most)": max(said, default=""),
        "ended after (most)": max(ended, default=""),
    }


@contextmanager
def _room(asked: Asked) -> Iterator[tuple[Path, Path, Room]]:
    """Give a folder, a home and the room for it."""
    with tempfile.TemporaryDirectory(prefix="dflow-faults-") as name:
        folder = Path(name) / "trial"
        if not asked.full:
            yield folder, folder / "home", SmallFiles()
            return
        with small_disk() as (disk, room):
            yield folder, disk / "home", room
