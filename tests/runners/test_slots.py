"""Slots given back by any thread of a body: whatever a body does, its runner has all of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow.core.events import AttemptSucceeded
from task_runners import DaskTaskRunner, ThreadPoolTaskRunner
from tests.runners import waiting
from tests.runners.conftest import ONE_PROCESS, RUNNERS
from tests.runners.hosts import FakeHost, patiently, work

ONE: dict[str, Any] = {
    "threads": ThreadPoolTaskRunner(max_workers=1),
    "dask-in-process": DaskTaskRunner(
        cluster_kwargs={"processes": False, "n_workers": 1, "threads_per_worker": 1}
    ),
    "dask-processes": ONE_PROCESS,
}
TWO: dict[str, Any] = {name: RUNNERS[name] for name in ("threads", "dask-in-process")}


@pytest.fixture(scope="module", autouse=True)
def pools() -> Iterator[None]:
    """Close what only this module uses."""
    yield
    for name in ("threads", "dask-in-process"):
        ONE[name].shutdown()


@pytest.fixture(params=list(ONE))
def single(request: pytest.FixtureRequest, host: FakeHost) -> Iterator[Any]:
    """A runner with one slot."""
    runner = ONE[request.param].open(host)
    yield runner
    runner.close()


@pytest.fixture(params=list(TWO))
def double(request: pytest.FixtureRequest, host: FakeHost) -> Iterator[Any]:
    """A runner with two slots in one worker."""
    runner = TWO[request.param].open(host)
    yield runner
    runner.close()


def most_at_once(opened: Any, host: FakeHost, tmp_path: Path) -> int:
    """Return how many of many bodies run at the same time."""
    folder = tmp_path / "running"
    folder.mkdir(exist_ok=True)
    works = [work(opened, waiting.at_once, str(folder)) for _ in range(8)]
    opened.dispatch(works)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)
    counts: list[int] = [opened.fetch(one.info.key) for one in works]
    return max(counts)


def value(opened: Any, host: FakeHost, function: Any, *args: Any) -> Any:
    """Return what a body returns."""
    one = work(opened, function, *args)
    opened.dispatch([one])
    assert isinstance(host.end(one), AttemptSucceeded)
    return opened.fetch(one.info.key)


def end_before_thread(opened: Any, host: FakeHost, tmp_path: Path) -> tuple[int, int]:
    """Return how many run at once before and after a thread of an ended body stops waiting."""
    value(opened, host, waiting.end_before_its_thread, str(tmp_path))
    before = most_at_once(opened, host, tmp_path)
    (tmp_path / "go").touch()
    patiently((tmp_path / "gone").exists, "the end of the thread's waiting")
    return before, most_at_once(opened, host, tmp_path)


def test_a_body_ends_while_its_thread_waits(single: Any, host: FakeHost, tmp_path: Path) -> None:
    """The slot stays the runner's: it is neither lost nor doubled, now or when the thread goes on."""
    assert end_before_thread(single, host, tmp_path) == (1, 1)


def test_the_same_with_two_slots(double: Any, host: FakeHost, tmp_path: Path) -> None:
    """A worker with two threads has two slots again, and the thread makes no third."""
    assert end_before_thread(double, host, tmp_path) == (2, 2)


def test_a_body_ends_while_its_thread_asks(single: Any, host: FakeHost, tmp_path: Path) -> None:
    """A thread that waits for the slot to be free again is let go when its body has ended."""
    asks = work(single, waiting.end_while_its_thread_asks, str(tmp_path))
    single.dispatch([asks])
    patiently((tmp_path / "waits").exists, "the thread's waiting")
    other = work(single, waiting.take_slot, str(tmp_path))
    single.dispatch([other])
    assert isinstance(host.end(asks), AttemptSucceeded)
    assert single.fetch(asks.info.key) is True
    patiently((tmp_path / "gone").exists, "the end of the thread's waiting")
    (tmp_path / "enough").touch()
    assert isinstance(host.end(other), AttemptSucceeded)
    assert most_at_once(single, host, tmp_path) == 1


def test_many_come_and_go(double: Any, host: FakeHost, tmp_path: Path) -> None:
    """Bodies whose threads wait all the time leave exactly as many slots as there were."""
    works = [work(double, waiting.come_and_go, 30) for _ in range(6)]
    double.dispatch(works)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)
    assert most_at_once(double, host, tmp_path) == 2


# Dask ------------------------------------------------------------------------------------------------


@pytest.fixture
def process(host: FakeHost) -> Iterator[Any]:
    """A worker process with one thread."""
    runner = ONE_PROCESS.open(host)
    yield runner
    runner.close()


def test_distributed_is_as_places_need_it(process: Any, host: FakeHost) -> None:
    """The release that is installed has what is not public, so that any thread can give a slot back."""
    assert value(process, host, waiting.can_stand_in) is True


def test_an_adopted_thread_is_the_tasks(process: Any, host: FakeHost) -> None:
    """A thread without any context has the body's worker, client and key once it is adopted."""
    mine, bodys, same_key = value(process, host, waiting.worker_of_thread)
    assert mine == bodys
    assert same_key


def test_an_adopted_thread_may_wait_for_dask(process: Any, host: FakeHost, tmp_path: Path) -> None:
    """`worker_client` in an adopted thread gives the only slot back, and the slot is there afterwards."""
    assert value(process, host, waiting.work_of_thread) == 7
    assert most_at_once(process, host, tmp_path) == 1
