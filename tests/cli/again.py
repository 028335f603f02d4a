"""Flows that end as a file says: for tests of resuming and running again, in processes of their own too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dflow import flow, task
from task_runners import ThreadPoolTaskRunner

FACTOR = 2


@task
def load(rows: int) -> list[int]:
    """Give numbers."""
    return list(range(rows))


@task
def scale(rows: list[int], by: float) -> list[float]:
    """Multiply numbers."""
    return [row * by for row in rows]


@task
def check(rows: list[float], gate: str) -> float:
    """Add up numbers, if the gate is there; one called 'kill' kills the driver."""
    if Path(gate).name == "kill":
        os._exit(9)
    if not Path(gate).exists():
        raise FileNotFoundError(gate)
    return sum(rows)


@flow(task_runner="threads")
def pipeline(gate: str, rows: int = 3, *, by: float = 2.0, plus=0) -> float:
    """Load, scale, check. Not every parameter is annotated."""
    checked = check.submit(scale.submit(load.submit(rows), by), gate)
    return float(checked.result() + plus)


@dataclass
class Trainer:
    """An object with a flow."""

    by: float

    @flow
    def train(self, gate: str) -> float:
        """Load, scale, check."""
        return check(scale(load(4), self.by), gate)


def inside(gate: str) -> float:
    """Call a flow that has no name in this file."""

    @flow
    def hidden(gate: str) -> float:
        return check([float(row) for row in load(2)], gate)

    return hidden(gate)


class Mode(Enum):
    """A way to count."""

    FAST = 1


@flow(task_runner="threads")
def mixed(
    rows: list[int], weights: dict[int, float], trainer: Trainer, mode: Mode, n=3, by: int = 2
):
    """Take what a command line knows little of."""
    return load(n), rows, weights, trainer.by, mode.name, by


if __name__ == "__main__":
    calls: dict[str, Callable[[str], object]] = {
        "pipeline": pipeline,
        "options": pipeline.with_options(
            name="special", task_runner=ThreadPoolTaskRunner(max_workers=3)
        ),
        "method": Trainer(10.0).train,
        "hidden": inside,
        "mixed": lambda _: mixed([1], {2: 0.5}, Trainer(3.0), Mode.FAST),
    }
    calls[sys.argv[1]](sys.argv[2])
