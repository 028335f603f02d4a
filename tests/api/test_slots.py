"""Waiting in a body, in whatever thread: it never holds up what it waits for."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from distributed import get_worker, worker_client

from dflow import current_run, flow, task
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
def _closed_here() -> Iterator[None]:
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


@task
def in_time(count: int) -> int:
    """Do the same within a time limit, that is in a thread of its own, and in threads that are bound."""
    run = current_run()
    with ThreadPoolExecutor(count) as pool:
        bound = [run.bind(lambda x: square.submit(x).result()) for _ in range(count)]
        futures = [pool.submit(one, x) for x, one in enumerate(bound)]
        return sum(future.result() for future in futures)


@task
async def together(count: int) -> int:
    """Submit and wait in coroutines of one thread."""
    return sum(await asyncio.gather(*(square.submit(x).aresult() for x in range(count))))


@task
def in_time_here() -> int:
    """Call a task with a time limit directly."""
    return in_time.with_options(timeout_seconds=60)(4)


def test_timed_and_async_bodies_wait(single: TaskRunner) -> None:
    """Bodies with a time limit, bound threads and coroutines wait on the only slot without holding it."""

    @flow(task_runner=single)
    def main() -> list[int]:
        return [
            in_time.with_options(timeout_seconds=60).submit(5).result(),
            together.submit(5).result(),
            in_time_here.submit().result(),
        ]

    assert main() == [30, 30, 14]


@task
def timed_worker() -> tuple[str, int]:
    """Use Dask's own means in a body with a time limit."""
    with worker_client() as client:
        number: int = client.submit(int, "7", pure=False).result()
    return get_worker().address, number


@task
def timed_worker_here() -> bool:
    """Call it directly."""
    timed = timed_worker.with_options(timeout_seconds=60)
    return timed() == (get_worker().address, 7)


def test_timed_bodies_know_their_worker() -> None:
    """`get_worker` and `worker_client` work in the thread of a body with a time limit, on the only slot."""

    @flow(task_runner=ONE_WORKER)
    def main() -> tuple[int, bool]:
        timed = timed_worker.with_options(timeout_seconds=60)
        return timed.submit().result()[1], timed_worker_here.submit().result()

    assert main() == (7, True)


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
