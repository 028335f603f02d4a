"""A cluster that is not ours gets and loses workers, as planned, while a flow runs on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from distributed import Client, LocalCluster

from dflow import flow, runs, task
from task_runners import DaskTaskRunner
from tests.foreign import foreign_cluster
from tests.records import sound
from tests.runners.hosts import patiently

MANY = 160
"""How many are asked for at a time: more than goes to one worker at once."""


@pytest.fixture
def growing() -> Iterator[LocalCluster]:
    """A cluster with one worker of one thread, so far."""
    with foreign_cluster(n_workers=1) as made:
        yield made


def body(path: str, n: int, size: int = 0) -> tuple[int, bytes]:
    """Take a moment, and tell a file when it begins and ends, and where."""
    for what in ("begin", "end"):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{what} {n} {os.getpid()}\n".encode())
        os.close(file)
        if what == "begin":
            time.sleep(0.025)
    return n, bytes(size)


def lines(path: str) -> list[list[str]]:
    """Return what bodies have told."""
    return (
        [line.split() for line in Path(path).read_text().splitlines()]
        if Path(path).exists()
        else []
    )


def go_and_come(cluster: LocalCluster, log: str, retires: bool) -> None:
    """Have three workers, once there is work, then one, and then some more work done."""

    def ended() -> int:
        return sum(line[0] == "end" for line in lines(log))

    patiently(lambda: ended() > 20, "the first ends")
    cluster.scale(3)
    here = str(os.getpid())  # where the first of them ran, as a direct call
    used = "the use of three workers"
    patiently(lambda: len({line[2] for line in lines(log)} - {here}) == 3, used, deadline=60.0)
    if retires:
        with Client(cluster.scheduler_address, set_as_default=False) as client:
            client.retire_workers(list(client.scheduler_info(n_workers=-1)["workers"])[:2])
    else:
        cluster.scale(1)
    before = ended()
    patiently(lambda: ended() > before + 50, "more ends")


@pytest.mark.parametrize(
    ("how", "batch", "size"),
    [
        ("retires", True, 30_000),
        ("retires", False, 0),
        ("closes", True, 0),
        ("closes", False, 30_000),
    ],
)
def test_workers_come_and_go(
    growing: LocalCluster,
    how: str,
    batch: bool,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All workers are used; those that are sent away cost nothing, and no body runs that is not recorded."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path / "home"))
    log = str(tmp_path / "log")
    step = task(body, name="step", batch=batch, persist_result=False)
    runner = DaskTaskRunner(address=growing.scheduler_address)
    changes = Thread(target=go_and_come, args=(growing, log, how == "retires"))

    @flow(task_runner=runner)
    def many() -> int:
        step(log, -1)
        changes.start()
        count = 0
        while changes.is_alive():
            found = step.map(log, range(count, count + MANY), size).result()
            assert [n for n, _ in found] == list(range(count, count + MANY))
            count += MANY
        return count

    count = many()
    runner.shutdown()
    with runs.opened(runs.find("latest")) as reader:
        table = sound(reader)
    assert {run.losses for run in table.task_runs.values()} == {0}
    begun = sum(line[0] == "begin" for line in lines(log))
    attempts = sum(len(run.attempts) for run in table.task_runs.values())
    if not (batch and size):  # what lay in a parcel that was under way is made again
        assert attempts <= 1 + count + 2  # each of the two that were sent away had a body to run
    if how == "closes" and size:
        assert begun >= attempts  # values that lay on the workers alone were made again
    else:
        assert begun == attempts
