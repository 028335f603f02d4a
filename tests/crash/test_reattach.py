"""A driver is killed while its cluster lives: who resumes the run finds what is done, and what still runs."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, Scheduler

from dflow import runs
from task_runners.dask import feed
from tests.crash import together
from tests.foreign import foreign_cluster
from tests.records import sound

ROOT = Path(__file__).parents[2]
LASTING = Path(__file__).parent / "lasting.py"
TOGETHER = Path(__file__).parent / "together.py"
DEADLINE = 60.0
"""Seconds after which what a test waits for will not come any more."""
TOTAL = 100_000 + sum(range(4)) + 0 + 1 + sum((0, 1, 2, 4, 5))
"""What the flow returns."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster that is not ours: two workers with one thread each."""
    with foreign_cluster() as made:
        yield made


def until(reached: Callable[[], object], driver: subprocess.Popen[str] | None = None) -> None:
    """Wait for something. Fails when a driver ends before, or the deadline passes."""
    deadline = time.monotonic() + DEADLINE
    while not reached():
        assert driver is None or driver.poll() is None, f"it ended: {driver.communicate()}"
        assert time.monotonic() < deadline, "the deadline has passed"
        time.sleep(0.01)


def start(*arguments: str, script: Path = LASTING) -> subprocess.Popen[str]:
    """Start a driver."""
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def bodies(folder: Path) -> Counter[str]:
    """Return how often each body has begun and ended."""
    lines = (folder / "oracle").read_text().splitlines() if (folder / "oracle").exists() else []
    return Counter(" ".join(line.split()[:2]) for line in lines)


def owners(cluster: LocalCluster) -> list[feed.About]:
    """Return the owners that the scheduler knows."""
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        found: list[feed.About] = client.run_on_scheduler(feed.owners)
        return found


def interrupted(cluster: LocalCluster, folder: Path) -> None:
    """Begin the flow, and kill its driver while two bodies run and others wait behind them."""
    driver = start(cluster.scheduler_address, str(folder))
    until(
        lambda: (
            {"begin held0", "begin held1"} <= bodies(folder).keys()
            and (folder / "submitted").exists()
            and _recorded() >= 2
        ),
        driver,
    )
    driver.kill()
    driver.communicate()


def _recorded() -> int:
    """Return how many bodies are recorded as running."""
    with runs.opened(runs.find("latest")) as reader:
        return sum(run.state_name == "Running" for run in reader.task_runs())


def check(folder: Path, said: tuple[str, str], code: int, failed: int) -> None:
    """Check that the flow has completed, that no body has run twice, and the record is sound.

    One that had `failed` before is tried again, as in any run that is resumed.
    """
    assert code == 0, said
    assert said[0].split() == [str(TOTAL)], said
    ran = bodies(folder)
    assert ran.pop("begin flow") == 2
    assert ran.pop("begin behind3") == ran.pop("end behind3") == 1 + failed
    assert {name: times for name, times in ran.items() if times != 1} == {}
    assert len(ran) == 2 * (4 + 1 + 2 + 5 + 1)
    with runs.opened(runs.find("latest")) as reader:
        assert [flow_run.state_name for flow_run in reader.flow_runs()] == ["Completed"]
        table = sound(reader)
        for run in table.task_runs.values():
            assert len(run.attempts) == 1 + failed * (
                run.task_name == "behind" and run.state_name == "Failed"
            ), run
    assert not re.search("lost|Traceback", said[1]), said[1]


@pytest.mark.parametrize("when", ["they still run", "they have ended"])
def test_nothing_runs_twice(
    cluster: LocalCluster, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had finished or was running is taken up by who resumes, whenever that is; no body runs again."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path / "home"))
    interrupted(cluster, tmp_path)
    if when == "they have ended":
        (tmp_path / "go").touch()
        until(lambda: sum(bodies(tmp_path)[f"end behind{n}"] for n in range(6)) == 6)
    until(lambda: [one["driven"] for one in owners(cluster)] == [False])
    (left,) = owners(cluster)
    told = subprocess.run(
        [sys.executable, "-m", "dflow.cli", "doctor", "latest"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name = runs.find("latest").entry.name
    assert re.search(
        rf"run '{name}': {left['keys']} keys \(.*\); without a driver for \d+ s",
        " ".join(told.split()),
    )
    assert left["keys"] >= 9
    (tmp_path / "submitted").unlink()
    driver = start(cluster.scheduler_address, str(tmp_path), "latest")
    if when == "they still run":
        until((tmp_path / "submitted").exists, driver)  # all is asked for again
        (tmp_path / "go").touch()
    said = driver.communicate(timeout=DEADLINE)
    check(tmp_path, said, driver.returncode, int(when == "they have ended"))
    assert owners(cluster) == []


def test_what_is_done_again(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is done again takes nothing up: what was left is let go, and nothing of it is left."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path / "home"))
    interrupted(cluster, tmp_path)
    (tmp_path / "go").touch()
    driver = start(cluster.scheduler_address, str(tmp_path), "latest", "again")
    said = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, said
    assert bodies(tmp_path)["begin small0"] == 2
    assert owners(cluster) == []
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        from task_runners.dask.internals import count_tasks

        until(lambda: client.run_on_scheduler(count_tasks) == 0)


@pytest.mark.parametrize(
    ("when", "ended"), [("they still run", 2), ("they still run", 40), ("they have ended", 12)]
)
def test_parcels_are_taken_up(
    cluster: LocalCluster, when: str, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What shares tasks of Dask, and runs or has ended, is taken up one by one; no body runs again."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path / "home"))
    driver = start(cluster.scheduler_address, str(tmp_path), script=TOGETHER)
    until(lambda: bodies(tmp_path).total() >= 2 * (4 + ended), driver)
    driver.kill()
    driver.communicate()
    before = bodies(tmp_path)
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        (owner,) = owners(cluster)
        left = client.run_on_scheduler(feed.inventory, owner["name"])
        assert max(len(pickle.loads(about)) for *_, about in left if about is not None) > 5
        if when == "they have ended":
            until(lambda: not client.run_on_scheduler(unfinished))
    driver = start(cluster.scheduler_address, str(tmp_path), "latest", script=TOGETHER)
    said = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, said
    ran = bodies(tmp_path)
    twice = {f"{what} {n}" for what in ("begin", "end") for n in together.RAISING}
    assert {what for what, times in ran.items() if times != 1} == twice
    assert {times for what, times in ran.items() if what in twice} == {2}
    assert ran.total() == 2 * (4 + together.COUNT + 10 + len(together.RAISING))
    assert before.total() < ran.total()
    with runs.opened(runs.find("latest")) as reader:
        table = sound(reader)
    attempts = Counter(len(run.attempts) for run in table.task_runs.values())
    assert attempts == {1: 4 + together.COUNT + 10 - 4, 2: 4}
    assert owners(cluster) == []
    assert not re.search("lost|Traceback", said[1]), said[1]


def unfinished(dask_scheduler: Scheduler) -> int:
    """Return how many tasks have not come to an end."""
    return sum(task.state not in ("memory", "erred") for task in dask_scheduler.tasks.values())


HELPED = """
import os
from dflow import flow, task
from task_runners import DaskTaskRunner


class Box:
    def __init__(self, x):
        self.x = x


def boxed(x):
    return Box(x)


@task
def open_again(x, box):
    assert isinstance(box, Box)
    return boxed(x).x + box.x


@flow(task_runner=DaskTaskRunner(address=os.environ["ADDRESS"]))
def main() -> int:
    return sum(open_again.map(range(3), box=Box(10)).result())
"""


def test_what_a_file_defines_goes_along(cluster: LocalCluster, tmp_path: Path) -> None:
    """A flow that is run by its file takes its helpers to workers that know nothing of that file."""
    script = tmp_path / "helped.py"
    script.write_text(HELPED)
    done = subprocess.run(
        [sys.executable, "-m", "dflow.cli", "run", f"{script}:main"],
        check=False,
        env={**os.environ, "ADDRESS": cluster.scheduler_address, "DFLOW_HOME": str(tmp_path / "h")},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert "33" in done.stdout + done.stderr
