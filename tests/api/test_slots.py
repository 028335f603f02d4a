"""Waiting in a body, in whatever thread: it never holds up what it waits for."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dflow import flow, task
from dflow.ports import TaskRunner
from task_runners import DaskTaskRunner, InlineTaskRunner, ThreadPoolTaskRunner
from tests.api.conftest import ONE_WORKER
from tests.api.test_flows_and_tasks import nested

ONE_SLOT: dict[str, TaskRunner] = {
    "threads": ThreadPoolTaskRunner(max_workers=1),
    "dask in this process": DaskTaskRunner(
        cluster_kwargs={"processes": False, "n_workers": 1, "threads_per_worker": 1}
    ),
    "dask processes": ONE_WORKER,
    "inline": InlineTaskRunner(),
}


@pytest.fixture(params=list(ONE_SLOT))
def single(request: pytest.FixtureRequest) -> TaskRunner:
    """Each runner, with one slot."""
    return ONE_SLOT[request.param]


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    """Close what only this module uses."""
    yield
    for name in ("threads", "dask in this process"):
        ONE_SLOT[name].shutdown()


@task
def square(x: int) -> int:
    """Return a square."""
    return x * x


@task
def sum_of_squares(count: int) -> int:
    """Submit and wait in threads, while the body itself waits for these."""

    def one(x: int) -> int:
        return square.submit(x).result()

    contexts = [contextvars.copy_context() for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(lambda copied, x: copied.run(one, x), contexts, range(count)))


@task
def through_another() -> int:
    """Call a task that submits and waits."""
    return sum_of_squares(3)


def test_threads_of_a_body_wait(single: TaskRunner) -> None:
    """Threads of a body submit and wait on the only slot there is, while the body waits for them."""

    @flow(task_runner=single)
    def main() -> list[int]:
        return [sum_of_squares.submit(5).result(), through_another.submit().result()]

    assert main() == [30, 5]


def test_fifty_levels(single: TaskRunner) -> None:
    """Fifty task runs, each waiting for the next, complete on one slot."""

    @flow(task_runner=single)
    def main() -> int:
        return nested.submit(50).result()

    assert main() == 50
