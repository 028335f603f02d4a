"""Where and when task runs go on Dask: resources, workers and priorities are kept, or it is said why not."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Nanny, Scheduler, SpecCluster, get_worker

from dflow import flow, task
from dflow.ports import TaskRunner
from task_runners import DaskTaskRunner, InlineTaskRunner, ThreadPoolTaskRunner
from tests.api.test_flows_and_tasks import add, record
from tests.runners.hosts import patiently

WORKER: dict[str, Any] = {"nthreads": 1, "dashboard": False, "silence_logs": logging.CRITICAL}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster that anybody may have: two worker processes, of which one has a GPU."""
    with SpecCluster(
        scheduler={
            "cls": Scheduler,
            "options": {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"},
        },
        workers={
            "cpu": {"cls": Nanny, "options": WORKER},
            "gpu": {"cls": Nanny, "options": {**WORKER, "resources": {"GPU": 1}}},
        },
        silence_logs=logging.CRITICAL,
    ) as made:
        yield made


@pytest.fixture
def runner(cluster: Any) -> Iterator[TaskRunner]:
    """A runner on it."""
    made = DaskTaskRunner(address=cluster.scheduler_address)
    yield made
    made.shutdown()


def address_of(cluster: Any, name: str) -> str:
    """Return the address of a worker."""
    found: str = cluster.scheduler.aliases[name]
    return found


def waits_for(path: str) -> None:
    """Wait until a file is there."""
    while not Path(path).exists():
        threading.Event().wait(0.01)


@task
def where(_: Any = None) -> str:
    """Return the name of the worker."""
    return str(get_worker().name)


@task
def hold(folder: str) -> None:
    """Say that it runs, and run until it is told to end."""
    (Path(folder) / "held").touch()
    waits_for(f"{folder}/go")


@task
def note(folder: str, name: str) -> None:
    """Add a name to a file."""
    with (Path(folder) / "order").open("a", encoding="utf-8") as file:
        file.write(name + "\n")


@task(resources={"GPU": 1}, retries=1)
def second_time(folder: str) -> str:
    """Fail the first time; then return the name of the worker."""
    first = Path(folder) / str(get_worker().name)
    if not first.exists():
        first.touch()
        raise ValueError
    return str(get_worker().name)


@task
def parent() -> list[str]:
    """Return where nested task runs go."""
    return [where.with_options(workers=name).submit(1).result() for name in ("cpu", "gpu")]


def test_bodies_run_where_they_must(cluster: Any, runner: TaskRunner) -> None:
    """Resources and workers, by name and by address, bind maps, dependents and nested task runs alike."""
    cpu = address_of(cluster, "cpu")

    @flow(task_runner=runner)
    def main() -> dict[str, Any]:
        upstream = add.submit(1)
        on_gpu = where.with_options(resources={"GPU": 1})
        return {
            "map": set(on_gpu.map(range(8)).result()),
            "dependent": on_gpu.submit(upstream).result(),
            "address": set(where.with_options(workers=cpu).map(range(4)).result()),
            "short": where.with_options(workers=cpu.rpartition("/")[2]).submit(5).result(),
            "either": where.with_options(workers=["nobody", "gpu"]).submit(6).result(),
            "nested": parent.submit().result(),
        }

    assert main() == {
        "map": {"gpu"},
        "dependent": "gpu",
        "address": {"cpu"},
        "short": "cpu",
        "either": "gpu",
        "nested": ["cpu", "gpu"],
    }


def test_a_retry_goes_there_too(runner: TaskRunner, tmp_path: Path) -> None:
    """The second attempt needs what the first needed."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        return [second_time.submit(str(tmp_path)).result() for _ in range(3)]

    assert main() == ["gpu"] * 3
    assert not (tmp_path / "cpu").exists()


def test_the_higher_goes_first(cluster: Any, runner: TaskRunner, tmp_path: Path) -> None:
    """Of what waits for the only slot that will do, the higher priority goes first."""
    folder = str(tmp_path)

    @flow(task_runner=runner)
    def main() -> None:
        hold.with_options(workers="gpu").submit(folder)
        waits_for(f"{folder}/held")
        for priority in (0, -2, 3, 1):
            note.with_options(workers="gpu", priority=priority).submit(folder, str(priority))
        known = cluster.scheduler.tasks
        patiently(lambda: sum(k[0].startswith("note") for k in list(known)) == 4, "their arrival")
        (tmp_path / "go").touch()

    main()
    assert (tmp_path / "order").read_text(encoding="utf-8").split() == ["3", "1", "0", "-2"]


def test_what_nobody_can_take_is_said_once(
    cluster: Any, runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """One line names the task run, its needs and the cluster; when such a worker comes, it runs."""

    def said() -> list[str]:
        return [r.getMessage() for r in caplog.records if "No worker can take" in r.getMessage()]

    @flow(task_runner=runner)
    def main() -> list[str]:
        wanted = where.with_options(workers="late", resources={"TPU": 2}).map(range(3))
        patiently(said, "the warning")
        options = {**WORKER, "resources": {"TPU": 2}}
        cluster.worker_spec["late"] = {"cls": Nanny, "options": options}
        cluster.sync(cluster._correct_state)
        return wanted.result()

    try:
        assert main() == ["late"] * 3
    finally:
        del cluster.worker_spec["late"]
        cluster.sync(cluster._correct_state)
    (line,) = said()
    assert "task run 'where-0'" in line
    assert "it needs TPU: 2, worker 'late'" in line
    assert "The cluster has 2 workers: " in line
    assert f"'gpu' at {address_of(cluster, 'gpu')} (GPU: 1)" in line


def test_a_worker_that_comes_back_is_the_same_one(
    cluster: Any, runner: TaskRunner, tmp_path: Path
) -> None:
    """Work that waits for a worker by its name goes to it at its new address, after it was started again."""

    @flow(task_runner=runner)
    def main() -> str:
        upstream = hold.with_options(workers="gpu").submit(str(tmp_path))
        waits_for(f"{tmp_path}/held")
        wanted = where.with_options(workers="cpu").submit(upstream)
        known = cluster.scheduler.tasks
        patiently(lambda: any(k[0].startswith("where") for k in list(known)), "its arrival")
        before = address_of(cluster, "cpu")
        os.kill(cluster.scheduler.workers[before].pid, signal.SIGKILL)
        aliases = cluster.scheduler.aliases
        patiently(lambda: aliases.get("cpu", before) != before, "its restart")
        (tmp_path / "go").touch()
        return wanted.result()

    assert main() == "cpu"


OWN: dict[str, TaskRunner] = {
    kind: DaskTaskRunner(
        cluster_kwargs={
            "processes": kind == "processes",
            "n_workers": 1,
            "threads_per_worker": 2,
            "resources": {"GPU": 1},
        }
    )
    for kind in ("in this process", "processes")
}


@task(resources={"GPU": 1})
def alone(folder: str) -> int:
    """Return how many of these run at once."""
    mine = Path(folder) / str(threading.get_ident())
    mine.touch()
    threading.Event().wait(0.02)
    count = len(list(Path(folder).glob("[0-9]*")))
    mine.unlink()
    return count


@pytest.mark.parametrize("kind", list(OWN))
def test_clusters_of_our_own_have_resources(kind: str, tmp_path: Path) -> None:
    """Each worker has what `cluster_kwargs` says, and no more runs at once than that is enough for."""

    @flow(task_runner=OWN[kind])
    def main() -> list[int]:
        return alone.map([str(tmp_path)] * 6).result()

    assert main() == [1] * 6
    OWN[kind].shutdown()


@pytest.mark.parametrize("other", [ThreadPoolTaskRunner(max_workers=2), InlineTaskRunner()])
def test_other_runners_take_no_notice(other: Any, tmp_path: Path) -> None:
    """They have no workers to choose from."""

    @flow(task_runner=other)
    def main() -> int:
        return (
            alone.with_options(workers="gpu", priority=3, batch=True).submit(str(tmp_path)).result()
        )

    assert main() == 1
    record()
