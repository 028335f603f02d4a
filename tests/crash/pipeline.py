"""A flow that is killed: each execution of a body leaves a line in a file outside of the journal."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from dflow import flow, task, unmapped
from task_runners import DaskTaskRunner


@dataclass
class Score:
    """A result whose class lives in the flow's own file."""

    number: int
    value: float


def note(oracle: str, what: str) -> None:
    """Leave a line: what ran, and in which process."""
    with Path(oracle).open("a", encoding="utf-8") as file:
        file.write(f"{what} {os.getpid()}\n")


@task
def prepare(number: int, oracle: str) -> Score:
    """The first layer."""
    note(oracle, f"prepare-{number}")
    time.sleep(0.03)
    return Score(number, float(number))


@task(retries=1)
def score(given: Score, oracle: str) -> Score:
    """The second layer; some raise in their first execution."""
    lines = Path(oracle).read_text(encoding="utf-8")
    note(oracle, f"score-{given.number}")
    if given.number % 5 == 0 and f"score-{given.number} " not in lines:
        raise ValueError("not at once")
    time.sleep(0.03)
    if not isinstance(given, Score):
        raise TypeError(f"{type(given)} is not the class of this file")
    return Score(given.number, given.value * 2)


@task
def best(scores: list[Score], oracle: str) -> Score:
    """The last layer."""
    note(oracle, "best-0")
    return max(scores, key=lambda each: each.value)


@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1}))
def pipeline(oracle: str, count: int = 40) -> Score:
    """Prepare, score, choose."""
    prepared = prepare.map(range(count), unmapped(oracle))
    scores = score.map(list(prepared), unmapped(oracle))
    chosen = best.submit(scores, oracle).result()
    if not isinstance(chosen, Score):
        raise TypeError(f"{type(chosen)} is not the class of this file")
    return chosen


if __name__ == "__main__":
    import sys

    print(pipeline(sys.argv[1], *map(int, sys.argv[2:])))
