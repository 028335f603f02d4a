"""Worker processes that are forks of one which has loaded Dask, and when they are new ones instead."""

from __future__ import annotations

import os
import sys
from typing import Any

import psutil
import pytest

from task_runners.dask import clusters, forked, hosting
from task_runners.dask.forks import method
from task_runners.dask.runner import OwnCluster
from tests.runners import bodies
from tests.runners.conftest import PROCESSES
from tests.runners.hosts import FakeHost, patiently, workers_of
from tests.runners.scripts import Script

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")


@ON_LINUX
def test_forks_are_like_new_processes() -> None:
    """They have luck of their own, equal hashes, and the driver's environment with what Dask adds to it."""
    opened = PROCESSES.open(FakeHost())
    cluster: Any = clusters.shared.get(PROCESSES)
    client = cluster.connect()
    try:
        first, second = client.run(bodies.surroundings).values()
    finally:
        client.close()
        opened.close()
    servers = {worker.ppid() for worker in workers_of(cluster.host_pid)}
    assert len(servers) == 1
    assert servers != {cluster.host_pid}
    assert all(mine != other for mine, other in zip(first["luck"], second["luck"], strict=True))
    assert first["hash"] == second["hash"]
    for there in (first, second):
        found = there["environment"]
        assert found.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
        assert "PYTHONSAFEPATH" not in found
        assert forked.ORDERS not in found
        assert found["OMP_NUM_THREADS"] == "1" or os.cpu_count() != 2
        assert found["MALLOC_TRIM_THRESHOLD_"] == "65536"


ASK = """
from task_runners.dask import clusters
from tests.runners.hosts import workers_of

def speak(name):
    return os.environ.get(name)

if __name__ == "__main__":
    host = FakeHost()
    opened = RUNNER.open(host)
    one = work(opened, speak, "something")
    opened.dispatch([one])
    host.end(one)
    cluster = clusters.shared.get(RUNNER)
    [worker] = workers_of(cluster.host_pid)
    print(worker.ppid() == cluster.host_pid, opened.fetch(one.info.key))
"""


@ON_LINUX
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD", "spawn", "True None\n"),
        ("DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__SOMETHING", "7", "False 7\n"),
    ],
)
def test_the_users_dask_settings_count(
    script: Script, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    """Who wants new processes gets them, and what new ones are to have forks have, too."""
    monkeypatch.setenv(variable, value)
    assert script.run(ASK) == (0, said, "")


def test_when_workers_are_forks() -> None:
    """Only where the fork server was begun, with all that Dask wants for new processes."""
    given = {"PYTHONHASHSEED": "6640", "A": "1"}
    assert method(None, given, {"PYTHONHASHSEED": "6640"}) == "forkserver"
    assert method(None, given, {"PYTHONHASHSEED": "6640", "A": "2"}) == "spawn"
    assert method(None, given, {"B": "1"}) == "spawn"
    assert method(None, {}, {}) == "spawn"
    assert method("fork", {}, {}) == "fork"


@ON_LINUX
def test_a_fork_server_that_died(script: Script) -> None:
    """Nobody can tell any more how its workers end, so they are replaced, from a new fork server."""
    assert script.run(DYING) == (0, "5 True\n", "")


DYING = """
import psutil
from dflow.core.events import AttemptSucceeded
from task_runners.dask import clusters
from tests.runners.hosts import workers_of

def add(*numbers):
    return sum(numbers)

def do(*numbers):
    while True:  # what was sent to a worker that has just died is lost
        one = work(opened, add, *numbers)
        opened.dispatch([one])
        if isinstance(host.end(one), AttemptSucceeded):
            return opened.fetch(one.info.key)

if __name__ == "__main__":
    host = FakeHost()
    opened = RUNNER.open(host)
    cluster = clusters.shared.get(RUNNER)
    [worker] = workers_of(cluster.host_pid)
    worker.parent().kill()
    psutil.wait_procs([worker], timeout=30)
    print(do(2, 3), workers_of(cluster.host_pid) != [worker])
"""


def test_a_cluster_that_is_not_wanted_any_more() -> None:
    """One that has begun to start, while this process loads Dask, ends without a trace when that fails."""
    before = psutil.Process().children(recursive=True)
    hosting.begin(OwnCluster(n_workers=1, threads_per_worker=1))
    [host] = [one for one in psutil.Process().children() if one not in before]
    hosting.give_up()
    assert not host.is_running() or host.status() == psutil.STATUS_ZOMBIE
    patiently(
        lambda: not [p for p in psutil.Process().children(recursive=True) if p not in before],
        "the end of what it had started",
    )
