"""The runners over which what users see is tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dflow
from dflow.ports import TaskRunner
from task_runners import DaskTaskRunner, InlineTaskRunner, ThreadPoolTaskRunner

RUNNERS: dict[str, TaskRunner] = {
    "inline": InlineTaskRunner(),
    "threads": ThreadPoolTaskRunner(max_workers=2),
    "dask in this process": DaskTaskRunner(
        cluster_kwargs={"processes": False, "n_workers": 1, "threads_per_worker": 2}
    ),
    "dask processes": DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1}),
}

ONE_WORKER = DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1})


@pytest.fixture(params=list(RUNNERS))
def runner(request: pytest.FixtureRequest) -> TaskRunner:
    """Each runner in turn; the clusters are shared by all tests."""
    return RUNNERS[request.param]


@pytest.fixture(params=["dask processes"])
def processes(request: pytest.FixtureRequest) -> TaskRunner:
    """Worker processes."""
    return RUNNERS[request.param]


@pytest.fixture(scope="package", autouse=True)
def _closed() -> Iterator[None]:
    """Close the clusters after the last test."""
    yield
    dflow.shutdown()
    for one in (*RUNNERS.values(), ONE_WORKER):
        one.shutdown()
