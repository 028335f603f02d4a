"""``kill -9`` of the driver at random moments: while a flow runs, and while it is resumed."""

from __future__ import annotations

import random

from tests.faults.crews import Ground, held
from tests.faults.flows import CASES
from tests.faults.lanes import Fate, Forks, Programs
from tests.faults.reports import Asked, Report
from tests.faults.rounds import Round, Tally, fates

SHORT = (("maps", "dask-in-process"), ("nested", "threads"), ("retries", "inline"))
"""What the short form tries."""
PROCESSES = ("maps", "nested", "as completed", "retries", "subflows")
"""What is tried on worker processes, which take their time to start."""


def campaign(asked: Asked) -> Report:
    """Kill drivers at random moments, forked ones."""
    title = "Drivers killed at random moments, forked from a process that has loaded dflow"
    cases = [(flow, runner) for flow, case in CASES.items() for runner in case.runners]
    return held(Report(title), cases if asked.full else SHORT, Forks, _case, asked)


def with_processes(asked: Asked) -> Report:
    """Kill drivers at random moments that are programs of their own, with worker processes."""
    title = "Drivers killed at random moments, programs of their own with worker processes"
    cases = [(flow, "dask") for flow in PROCESSES]
    return held(Report(title), cases if asked.full else cases[:1], Programs, _case, asked)


def _case(ground: Ground) -> Tally:
    """Let a flow run once undisturbed, and then kill it in each round, as often as luck wants."""
    tally = Tally()
    undisturbed = ground.round("undisturbed")
    tally.add(undisturbed.play(Fate))
    tally.rounds = 0
    for number in range(ground.asked.count(1, 5)):
        luck = random.Random(f"{ground.asked.seed} {ground.name} {number}")
        tally.add(
            ground.round(f"round {number}", undisturbed).play(fates(_moments(luck, undisturbed)))
        )
    return tally


def _moments(luck: random.Random, undisturbed: Round) -> list[Fate]:
    """Return how one to four drivers end: after some time, or at some point of their work."""
    return [_moment(luck, undisturbed) for _ in range(luck.choice((1, 2, 2, 3, 4)))]


def _moment(luck: random.Random, undisturbed: Round) -> Fate:
    if luck.random() < 0.4:
        return Fate(kill_after=luck.uniform(0.0, 0.9 * undisturbed.seconds))
    lines = luck.randint(1, max(1, undisturbed.lines // 2))
    return Fate(kill_after=luck.choice((0.0, luck.uniform(0.0, 0.02))), after_lines=lines)
