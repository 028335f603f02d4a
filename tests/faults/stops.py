"""Ctrl-C and SIGTERM, once and twice: the program ends in time, nothing is left of it, the run is resumed."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults import oracle, programs
from tests.faults.lanes import Place
from tests.faults.programs import Program, TooLate
from tests.faults.reports import Asked, Figures, Report
from tests.faults.verdicts import Broken, examine, judge, look
from tests.faults.waits import FLOWS

FIRST = 10.0
"""Seconds within which a program must end after it was asked to."""
SECOND = 1.0
"""Seconds within which it must end after it was asked to again, on a machine that has nothing else to do."""
LEFT = 5.0
"""Seconds after its end in which its processes must have ended too."""
BEYOND_REACH = (("swallowing", "inline"), ("asynchronous", "inline"))
"""A body in the main thread that swallows Ctrl-C; and one that holds up the loop that Ctrl-C would end."""
STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of what was interrupted: of the command, of a script, of either behind the end of its flow."""
WAYS: dict[str, tuple[signal.Signals, ...]] = {
    "Ctrl-C": (signal.SIGINT,),
    "SIGTERM": (signal.SIGTERM,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM twice": (signal.SIGTERM, signal.SIGTERM),
}
RUNNERS = ("inline", "threads", "dask-in-process", "dask")
SHORT = (("submitted", "dask-in-process", "Ctrl-C"), ("swallowing", "threads", "SIGTERM twice"))

Case = tuple[str, str, str]
"""A flow, a runner, and how it is stopped."""


@dataclass(slots=True)
class Stop:
    """One program that is stopped."""

    place: Place
    case: Case
    luck: random.Random
    script: bool
    first: float = 0.0
    second: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What its faults are called by."""
        return f"{' on '.join(self.case[:2])}, {self.case[2]}{', a script' if self.script else ''}"

    def play(self) -> None:
        """Start it, stop it, look at what is left, and resume it."""
        flow, runner, way = self.case
        gate = str(self.place.folder / "gate")
        start = programs.script if self.script else programs.run
        driver = start(self.place, runner, flow, gate)
        try:
            driver.until(lambda: any(n["what"] == "waits" for n in oracle.lines(self.place.oracle)))
            family = driver.family()
            self._stop(driver, WAYS[way])
        finally:
            driver.kill()
        self._left(family)
        self._examine()
        Path(gate).touch()
        resumed = programs.resume(self.place, runner)
        try:
            code, _ = resumed.ended()
        finally:
            resumed.kill()
        if code:
            self.faults.append(f"resume ended with {code}; it said:\n{resumed.said()[-3000:]}")
        self._examine(ended=True)

    def _stop(self, driver: Program, signals: Sequence[signal.Signals]) -> None:
        driver.signal(signals[0])
        if len(signals) == 1:
            code, self.first = driver.ended(FIRST)
        else:
            with contextlib.suppress(TooLate):  # then it is still there
                driver.until(lambda: False, self.luck.uniform(0.02, 0.6))
            driver.signal(signals[1])
            code, self.second = driver.ended(FIRST)
            if self.second > SECOND * _busy():
                self.faults.append(f"it ended {self.second:.1f} s after the second signal")
        expected = (*STOPPED, 1) if self.script and signals[0] is signal.SIGTERM else STOPPED
        if code not in expected:
            self.faults.append(f"exit code {code}; it said:\n{driver.said()[-3000:]}")
        once = len(signals) == 1
        if once and not self.script and "Traceback" in driver.said():
            self.faults.append(f"it showed a traceback:\n{driver.said()[-3000:]}")

    def _left(self, family: list[psutil.Process]) -> None:
        _, alive = psutil.wait_procs(family, timeout=LEFT)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.faults.append(f"left behind: {' '.join(process.cmdline())}")
                process.kill()

    def _examine(self, *, ended: bool = False) -> None:
        broken = Broken()
        now = look(
            self.place.home, oracle.lines(self.place.oracle), self.place.folder / "copy", broken
        )
        if now is not None:
            broken.add(examine(now, ()))
        if ended:
            broken.add(judge(now, 1, Counter()))
        self.faults += broken.all()


def _busy() -> float:
    """Return how many times as long as on an idle machine things take at the moment."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def campaign(asked: Asked) -> Report:
    """Stop programs."""
    report = Report("Ctrl-C and SIGTERM, once and twice, while a flow waits")
    report.notes.append(f"seed {asked.seed}")
    cases = list(_cases(asked))
    with ThreadPoolExecutor(2) as pool:
        stops = [
            stop for stops in pool.map(lambda case: _tried(asked, *case), cases) for stop in stops
        ]
    for way in WAYS:
        mine = [stop for stop in stops if stop.case[2] == way]
        if mine:
            report.rows.append(_row(way, mine))
    report.violations += [f"{stop.name}: {fault}" for stop in stops for fault in stop.faults]
    return report


def _cases(asked: Asked) -> Iterator[tuple[Case, bool]]:
    if not asked.full:
        yield from ((case, False) for case in SHORT)
        return
    flows = [flow.fn.__name__ for flow in FLOWS]
    cases = itertools.product(flows, RUNNERS, WAYS)
    for number, case in enumerate(case for case in cases if case[:2] not in BEYOND_REACH):
        yield case, number % 3 == 0


def _tried(asked: Asked, case: Case, script: bool) -> list[Stop]:
    stops = []
    for number in range(asked.count(1, 1)):
        with tempfile.TemporaryDirectory(prefix="dflow-faults-") as folder:
            luck = random.Random(f"{asked.seed} {case} {number}")
            stop = Stop(Place(Path(folder) / "stopped"), case, luck, script)
            try:
                stop.play()
            except TooLate as error:
                stop.faults.append(str(error))
            stops.append(stop)
    return stops


def _row(way: str, stops: Sequence[Stop]) -> Figures:
    return {
        "stopped by": way,
        "programs": len(stops),
        "failed": sum(bool(stop.faults) for stop in stops),
        "ended after (most)": max(stop.first for stop in stops) or "",
        "after the second (most)": max(stop.second for stop in stops) or "",
    }
