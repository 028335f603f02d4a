"""A cluster that is not ours, with Dask's own settings, known only by its address."""

from __future__ import annotations

import os
import pkgutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from dflow import flow, task
from dflow.core.events import AttemptSucceeded, DispatchVoided, WorkerLost
from dflow.core.records import Cause
from dflow.errors import ClusterError
from task_runners import DaskTaskRunner
from task_runners.dask import clusters, owned, versions
from task_runners.dask.station import PROTOCOL
from tests.foreign import foreign_cluster
from tests.runners import bodies
from tests.runners.hosts import FakeHost, patiently, work


@pytest.fixture(scope="module")
def foreign() -> Iterator[LocalCluster]:
    """A cluster as anybody starts it, two workers with one thread each."""
    with foreign_cluster() as cluster:
        yield cluster


@pytest.fixture
def opened(foreign: LocalCluster, host: FakeHost) -> Iterator[Any]:
    """A runner at work on it."""
    runner = DaskTaskRunner(address=foreign.scheduler_address)
    made = runner.open(host)
    yield made
    made.close()
    runner.shutdown()


def test_it_runs_tasks(opened: Any, host: FakeHost) -> None:
    """Functions that its workers can import go by reference, others by value."""
    first = work(opened, bodies.add, 1, 2)
    second = work(opened, lambda number: number * 10, first)
    opened.dispatch([first, second])
    assert isinstance(host.end(second), AttemptSucceeded)
    assert opened.fetch(second.info.key) == 30
    assert type(first.call.function).__name__ == "ByReference"
    assert type(second.call.function).__name__ == "ByValue"


def test_a_worker_is_killed(opened: Any, host: FakeHost, tmp_path: Path) -> None:
    """Dask does not run the body again by itself: the attempt is lost, and the dispatch ends once."""
    file = tmp_path / "pid"
    sitting = work(opened, bodies.sit_once, str(file))
    after = work(opened, bodies.add, sitting)
    opened.dispatch([sitting, after])
    host.started(sitting)
    patiently(file.exists, "the file")
    os.kill(int(file.read_text()), signal.SIGKILL)
    lost, void = host.end(sitting), host.end(after)
    assert isinstance(lost, WorkerLost)
    assert lost.cause is Cause.WORKER_DIED
    assert isinstance(void, DispatchVoided)
    assert void.cause is Cause.UPSTREAM
    again = [work(opened, bodies.add, n) for n in range(4)]
    opened.dispatch(again)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in again)
    assert len(host.ends(sitting)) == len(host.ends(after)) == 1


def move(key: Any, dask_scheduler: Any = None) -> None:
    """Have a task that waits on a worker moved to the other one, as Dask does by itself."""
    task = dask_scheduler.tasks[key]
    (other,) = (each for each in dask_scheduler.workers.values() if each is not task.processing_on)
    stealing = dask_scheduler.extensions["stealing"]
    assert stealing.move_task_request(task, task.processing_on, other) != "in-flight"


def state_of(key: Any, dask_scheduler: Any = None) -> str:
    """Return how a task stands."""
    return str(dask_scheduler.tasks[key].state)


def test_what_was_given_back_runs_nowhere_else(
    opened: Any, host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parcel that a worker gave back does not run where Dask moves it before it is let go."""
    monkeypatch.setattr(owned, "UNRECORDED", 60.0)
    log, go = tmp_path / "log", str(tmp_path / "go")
    client = opened._connection._client
    for _ in range(2):
        first = work(opened, bodies.note, str(log), "first")
        opened.dispatch([first])
        host.end(first)
    slow = [work(opened, bodies.touch_and_wait, str(tmp_path / f"b{n}"), go) for n in (1, 2)]
    opened.dispatch(slow)
    for one in slow:
        host.started(one)
    small = work(opened, bodies.note, str(log), "small")
    opened.dispatch([small])
    sent = opened._book.find(small.info.key).parcel
    patiently(lambda: sent.ticket not in opened._book._parcels, "the giving back")
    client.run_on_scheduler(move, sent.dask_key)
    Path(go).touch()
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in (*slow, small))
    ended = ("memory", "erred")
    patiently(lambda: client.run_on_scheduler(state_of, sent.dask_key) in ended, "its end")
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["first"] * 2 + ["small"]


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address at which nobody listens is an error that names it."""
    monkeypatch.setattr(clusters, "CONNECT", 0.5)
    with pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:9"):
        DaskTaskRunner(address="tcp://127.0.0.1:9").open(FakeHost())


class Client:
    """Answers as the client of a cluster on which everything is wrong."""

    def get_versions(self) -> Any:
        """Return three Pythons."""

        def python(version: str) -> Any:
            return {"packages": {"python": version}}

        return {
            "client": python("3.11.7.final.0"),
            "scheduler": python("3.11.2.final.0"),
            "workers": {"tcp://a": python("3.12.1.final.0"), "tcp://b": python("3.11.9.final.0")},
        }

    def run(self, function: Any, *_: Any, on_error: str) -> Any:
        """Return what two workers answer."""
        assert (function, on_error) == (pkgutil.resolve_name, "return")
        return {"tcp://a": ModuleNotFoundError("No module named 'task_runners'"), "tcp://b": -1}

    def run_on_scheduler(self, function: Any, *args: Any) -> Any:
        """Fail as a scheduler does that lacks dflow."""
        assert function(*args) == PROTOCOL
        raise ModuleNotFoundError("No module named 'task_runners'")


def test_what_does_not_fit_is_one_error() -> None:
    """Another Python, and a dflow that is missing or another one, are listed together, with what to do."""
    client: Any = Client()
    with pytest.raises(ClusterError) as caught:
        versions.check(client, "tcp://x:1")
    assert str(caught.value).split("\n") == [
        "The cluster at 'tcp://x:1' cannot run tasks of this driver:",
        "  worker tcp://a: Python 3.12, here it is 3.11",
        "  worker tcp://a: dflow-dask cannot be imported (No module named 'task_runners')",
        "  worker tcp://b: another version of dflow-dask",
        "  the scheduler: dflow-dask cannot be imported (No module named 'task_runners')",
        "Install the same version of dflow-dask, and the same minor version of Python, on all of them.",
    ]


@task(max_worker_losses=1)
def poisoned(folder: str, n: int) -> int:
    """End the worker, if it is the one."""
    (Path(folder) / f"{n}-{time.monotonic_ns()}").touch()
    if n == 17:
        os._exit(1)
    return n


def test_poison(foreign: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that kills its workers ends as crashed after its budget, all others complete."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path / "home"))
    runner = DaskTaskRunner(address=foreign.scheduler_address)

    @flow(task_runner=runner)
    def many() -> list[str]:
        ended = poisoned.map(str(tmp_path), range(60), return_state=True)
        return [state.name for state in ended]

    assert many() == ["Completed"] * 17 + ["Crashed"] + ["Completed"] * 42
    begun = [name for name in os.listdir(tmp_path) if name.startswith("17-")]
    assert 2 <= len(begun) <= 6
    runner.shutdown()
