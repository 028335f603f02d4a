"""A flow of large results that is killed: each execution of a body leaves a line in a file."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dflow import flow, task
from task_runners import DaskTaskRunner


@dataclass
class Model:
    """A large result whose class lives in the flow's own file."""

    number: int
    weights: np.ndarray[Any, Any]


def note(oracle: str, what: str) -> None:
    """Leave a line: what ran, and in which process."""
    with Path(oracle).open("a", encoding="utf-8") as file:
        file.write(f"{what} {os.getpid()}\n")


@task(persist_result=True)
def train(number: int, oracle: str) -> Model:
    """Return what does not fit into the record."""
    note(oracle, f"train-{number}")
    time.sleep(0.02)
    return Model(number, np.full(20_000, float(number)))


@task
def improve(model: Model, oracle: str) -> Model:
    """Return what is kept by itself, if that is set."""
    note(oracle, f"improve-{model.number}")
    time.sleep(0.02)
    return Model(model.number, model.weights + 1.0)


@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1}))
def sweep(oracle: str, count: int = 20) -> float:
    """Train, improve, add up."""
    models = [improve.submit(train.submit(n, oracle), oracle) for n in range(count)]
    return float(sum(model.result().weights[0] for model in models))


if __name__ == "__main__":
    import sys

    print(sweep(sys.argv[1], *map(int, sys.argv[2:])))
