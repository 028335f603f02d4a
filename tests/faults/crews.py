"""Several drivers at a time: the cases of a campaign are dealt out to lanes, and come into one table."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults.lanes import Lane, Place, lane
from tests.faults.reports import Asked, Report
from tests.faults.rounds import Round, Tally, times

LANES = 2
"""How many drivers run at a time."""

Case = tuple[str, str]
"""A flow and the runner that it is tried on."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where one case is tried: its lane, and a folder for its rounds."""

    asked: Asked
    lane: Lane
    folder: Path
    flow: str
    runner: str

    @property
    def name(self) -> str:
        """What violations call it."""
        return f"{self.flow} on {self.runner}"

    def round(
        self, what: str, undisturbed: Round | None = None, durability: str = "normal"
    ) -> Round:
        """Return a round in a folder of its own."""
        work = None if undisturbed is None else undisturbed.work
        folder = self.folder / f"{self.name}, {what}".replace(" ", "-").replace(",", "")
        return Round(
            self.lane,
            Place(folder),
            self.flow,
            self.runner,
            f"{self.name}, {what}",
            work,
            durability=durability,
        )


def held(
    report: Report,
    cases: Sequence[Case],
    kind: type[Lane],
    play: Callable[[Ground], Tally],
    asked: Asked,
) -> Report:
    """Play all cases, and put what comes of them into the report; files are left where something broke."""
    folder = Path(tempfile.mkdtemp(prefix="dflow-faults-"))

    def in_lane(number: int) -> list[tuple[Case, Tally]]:
        with lane(kind) as opened:
            return [
                (case, _said(play, asked, opened, folder, case)) for case in cases[number::LANES]
            ]

    with ThreadPoolExecutor(LANES) as pool:
        found = [
            pair for pairs in pool.map(in_lane, range(min(LANES, len(cases)))) for pair in pairs
        ]
    total = Tally()
    for (flow, runner), tally in sorted(found, key=lambda pair: pair[0]):
        report.rows.append(tally.figures(flow=flow, runner=runner))
        total.add(tally)
    if len(found) > 1:
        report.rows.append(total.figures(flow="all", runner=""))
    report.violations += total.violations
    report.notes += times(total)
    if not total.violations:
        shutil.rmtree(folder)
    return report


def _said(
    play: Callable[[Ground], Tally], asked: Asked, opened: Lane, folder: Path, case: Case
) -> Tally:
    ground = Ground(asked, opened, folder, *case)
    tally = play(ground)
    asked.say(f"{ground.name}: {tally.kills} kills, {len(tally.violations)} violations")
    return tally
