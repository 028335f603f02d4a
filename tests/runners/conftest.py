"""Runners of every kind, their clusters shared by all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from task_runners import DaskTaskRunner, InlineTaskRunner, ThreadPoolTaskRunner
from task_runners.dask.connection import FORCE
from tests.runners.hosts import FakeHost
from tests.runners.scripts import Script

PROCESSES = DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1})
ONE_PROCESS = DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1})
RUNNERS: dict[str, Any] = {
    "inline": InlineTaskRunner(),
    "threads": ThreadPoolTaskRunner(max_workers=2),
    "dask-in-process": DaskTaskRunner(cluster_kwargs={"processes": False, "threads_per_worker": 2}),
    "dask-processes": PROCESSES,
}
PLAIN = {"dask-in-process-plain": "dask-in-process", "dask-processes-plain": "dask-processes"}
"""The same by Dask's public interface alone."""


@pytest.fixture(scope="session", autouse=True)
def clusters() -> Iterator[None]:
    """Close what was started once the last test of this folder is done."""
    yield
    for runner in (*RUNNERS.values(), ONE_PROCESS):
        runner.shutdown()


@pytest.fixture
def host() -> FakeHost:
    """A driver that listens."""
    return FakeHost()


@pytest.fixture(params=[*RUNNERS, *PLAIN])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of runner, those on Dask in both ways."""
    chosen: str = request.param
    if chosen in PLAIN:
        monkeypatch.setenv(FORCE, "plain")
    return PLAIN.get(chosen, chosen)


@pytest.fixture
def opened(kind: str, host: FakeHost) -> Iterator[Any]:
    """A runner of this kind at work."""
    runner = RUNNERS[kind].open(host)
    connection = getattr(runner, "_connection", None)
    if connection is not None:
        assert type(connection._way).__name__ == ("Plain" if os.environ.get(FORCE) else "Owned")
    yield runner
    runner.close()


@pytest.fixture
def processes(host: FakeHost) -> Iterator[Any]:
    """A runner with worker processes at work."""
    runner = PROCESSES.open(host)
    yield runner
    runner.close()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """A place for scripts."""
    made = Script(tmp_path)
    yield made
    made.close()
