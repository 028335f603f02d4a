"""Task runs that share tasks of Dask, as users see them: each has its own state, retries and children."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dflow import as_completed, flow, get_run_logger, runs, task
from dflow.core.records import Ending
from dflow.ports import TaskRunner
from tests.api.conftest import RUNNERS
from tests.api.test_flows_and_tasks import add, big, record, size_of


@pytest.fixture(params=["dask in this process", "dask processes"])
def runner(request: pytest.FixtureRequest) -> TaskRunner:
    """Each runner that knows batches."""
    return RUNNERS[request.param]


@task(retries=1)
def shaky(folder: str, number: int) -> int:
    """Note the execution; every seventh raises in the first one."""
    with (Path(folder) / "log").open("a", encoding="utf-8") as file:
        file.write(f"{number}\n")
    marker = Path(folder) / f"tried-{number}"
    if number % 7 == 0 and not marker.exists():
        marker.touch()
        raise ValueError(f"not at once: {number}")
    return number


def test_a_failed_one_alone_is_retried(runner: TaskRunner, tmp_path: Path) -> None:
    """Of many that share tasks each that fails has a second attempt; nobody else runs twice."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        add.map(range(10)).result()
        return shaky.map(str(tmp_path), range(300)).result()

    assert main() == list(range(300))
    executions = Counter(map(int, (tmp_path / "log").read_text(encoding="utf-8").split()))
    assert executions == {n: 1 + (n % 7 == 0) for n in range(300)}
    task_runs, _ = record()
    endings = Counter(tuple(a.ending for a in run.attempts) for run in task_runs.values())
    assert endings[Ending.RAISED, Ending.SUCCEEDED] == 43
    assert endings[Ending.SUCCEEDED,] == 310 - 43


@task
def mother(number: int) -> int:
    """Submit a child, and wait for it."""
    get_run_logger().info("mother of %d", number)
    return add.submit(number).result() if number % 3 == 0 else number


def test_children_inside_batches(runner: TaskRunner) -> None:
    """Those that wait for task runs of their own do not hold up others that share a task with them."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        mother.submit(1).result()
        return mother.map(range(60)).result()

    assert main() == [n + (n % 3 == 0) for n in range(60)]
    _, logs = record()
    assert Counter(line.message for line in logs)["mother of 3"] == 1


def test_layers(runner: TaskRunner) -> None:
    """A map over a map over a map, and a loop of submits for what completes, all come out right."""

    @flow(task_runner=runner)
    def main() -> tuple[int, int]:
        mapped = add.map(add.map(add.map(range(300)))).result()
        later = [add.submit(f) for f in as_completed(add.map(range(100)))]
        return sum(mapped), sum(f.result() for f in later)

    assert main() == (sum(n + 3 for n in range(300)), sum(n + 2 for n in range(100)))


def test_large_values_between(runner: TaskRunner) -> None:
    """Large values pass from one to another, whether they were expected or not."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        size_of.map(big.map([10] * 10)).result()
        return size_of.map(big.map([10, 100_000] * 30)).result()

    assert main() == [10, 100_000] * 30


@task(max_worker_losses=1)
def ends_its_worker(number: int) -> int:
    """End the process without a word, if the number is 40."""
    if number == 40:
        os._exit(1)
    return number


def test_poison_in_a_batch(processes: TaskRunner) -> None:
    """It alone is charged, and ends Crashed; all that shared a task with it completes at no charge."""

    @flow(task_runner=processes)
    def main() -> Any:
        ends_its_worker.submit(1).result()
        futures = ends_its_worker.map(range(120))
        futures.wait()
        return [future.state.name for future in futures]

    names = main()
    assert names.pop(40) == "Crashed"
    assert set(names) == {"Completed"}
    task_runs, _ = record()
    lost = [r.name for r in task_runs.values() if Ending.LOST in {a.ending for a in r.attempts}]
    assert lost == ["ends_its_worker-41"]
    assert runs.find("latest").state_name == "Completed"
