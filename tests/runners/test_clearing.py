"""What waits on a worker is given back, or not: a worker as Dask keeps its records, and the time is given."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from dask.task_spec import Task
from distributed.worker_state_machine import TaskState

from task_runners.dask.clearing import IN_VAIN, Clearing
from task_runners.dask.execution import execute
from task_runners.dask.payload import Payload, encode
from task_runners.dask.station import Station

Key = tuple[str, int]


class Loop:
    """Calls at once what is to be called soon, and what is to be called later when it is told the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        """Return the time."""
        return self.now

    def add_callback(self, function: Callable[..., None], *args: Any) -> None:
        """Call it."""
        function(*args)

    def call_later(self, delay: float, function: Callable[[], None]) -> Any:
        """Note it."""
        self.later.append((self.now + delay, function))
        return self.later[-1]

    def remove_timeout(self, timer: Any) -> None:
        """Forget it."""
        self.later.remove(timer)

    def until(self, time: float) -> None:
        """Call all that is due until a time."""
        while self.later and min(self.later)[0] <= time:
            due = min(self.later, key=lambda each: each[0])
            self.later.remove(due)
            self.now, function = due
            function()
        self.now = time


class Worker:
    """The records of a worker with two threads."""

    address = "tcp://here"

    def __init__(self) -> None:
        self.loop = Loop()
        self.state = SimpleNamespace(
            ready=[], executing=[], nthreads=2, tasks=dict[Key, TaskState]()
        )
        self.present: Key | None = None
        self.logged: list[Any] = []

    def has(
        self, number: int, again: tuple[int, ...] | None = None, name: str = "add-batch"
    ) -> Any:
        """Let a parcel wait for a thread; return the record of it."""
        key = (f"{name}-0run", number)
        data = encode(Payload("run", number, False, 0.1, [], [], [], [], [], again))
        task = TaskState(key=key, run_spec=Task(key, execute, data), state="ready")
        self.state.ready.append(task)
        self.state.tasks[key] = task
        return task

    def get_current_task(self) -> Key | None:
        """Return what the calling thread runs."""
        return self.present

    def log_event(self, topic: str, message: Any) -> None:
        """Note a letter."""
        self.logged.append((topic, message))


class Body:
    """A body that takes its time."""

    def __init__(self, left: bool = False) -> None:
        self.left = left
        self.there = True

    def still(self) -> bool:
        """Tell whether it is at work."""
        return self.there


@pytest.fixture
def worker() -> Worker:
    """A worker on which nothing is."""
    return Worker()


@pytest.fixture
def back() -> list[Any]:
    """What is given back."""
    return []


@pytest.fixture
def clearing(worker: Worker, back: list[Any]) -> Clearing:
    """What looks after that worker."""
    return Clearing(worker, lambda run, task: back.append((run, task.key[1])))


def test_where_all_threads_are_held_nothing_waits(
    worker: Worker, clearing: Clearing, back: list[Any]
) -> None:
    """Once the bodies that take their time hold all threads, each parcel that waits is given back, once."""
    worker.has(1)
    worker.has(2, name="alone")
    first, second = Body(), Body()
    clearing.begin(first.still, first)
    assert back == []
    clearing.begin(second.still, second)
    assert back == [("run", 1)]
    worker.has(3)
    worker.loop.until(60.0)
    assert back == [("run", 1), ("run", 3)]
    first.there = second.there = False
    worker.loop.until(120.0)
    assert worker.loop.later == []


def test_where_a_thread_is_free_it_is_waited_for(
    worker: Worker, clearing: Clearing, back: list[Any]
) -> None:
    """While another thread serves what waits nothing is given back, but for what waits in vain."""
    body = Body()
    clearing.begin(body.still, body)
    for number in range(20):
        worker.state.ready = []
        worker.has(number)
        worker.loop.until(worker.loop.now + IN_VAIN / 2)
    assert back == []
    worker.loop.until(worker.loop.now + 2 * IN_VAIN)
    assert back == [("run", 19)]


def test_a_body_without_its_slot_holds_nobody_up(
    worker: Worker, clearing: Clearing, back: list[Any]
) -> None:
    """While a body has given its slot back nothing is given back for it; once it is back it is again."""
    worker.state.nthreads = 1
    body = Body(left=True)
    worker.has(1)
    clearing.begin(body.still, body)
    worker.loop.until(60.0)
    assert back == []
    body.left = False
    worker.loop.until(61.0)
    assert back == [("run", 1)]


def test_what_makes_lost_values_again_stays(
    worker: Worker, clearing: Clearing, back: list[Any]
) -> None:
    """A parcel that Dask runs again by itself is none that its driver would send again."""
    worker.state.nthreads = 1
    body = Body()
    for number, again in ((1, (0,)), (2, ()), (3, None)):
        worker.has(number, again)
    clearing.begin(body.still, body)
    assert back == [("run", 3)]


def test_a_parcel_is_taken_or_given_back(worker: Worker) -> None:
    """What was taken up is never given back, and what was given back is never taken up."""
    station = Station("run", worker)  # type: ignore[arg-type]  # the records of one
    taken, other = worker.has(1), worker.has(2)
    worker.present = taken.key
    assert station.take(1)
    station.give_back(taken)
    station.give_back(other)
    station.give_back(other)
    station.flush()
    assert len(worker.logged) == 1
    worker.present = other.key
    assert not station.take(2)
    assert not station.take(2)
    station.close()
