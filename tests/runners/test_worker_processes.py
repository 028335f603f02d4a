"""What becomes of dispatches when worker processes, or what they hold, are lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from dflow.core.events import (
    AttemptRaised,
    AttemptStarted,
    AttemptSucceeded,
    DispatchVoided,
    ResultLost,
    ResultRecomputed,
    WorkerLost,
)
from dflow.core.records import Cause
from dflow.errors import MissingResult, SerializationError
from dflow.messages import StartConfirmed, Work
from task_runners import DaskTaskRunner
from task_runners.dask import clusters
from task_runners.dask.internals import count_tasks
from tests.runners import bodies
from tests.runners.conftest import PROCESSES
from tests.runners.hosts import FakeHost, patiently, work, workers_of


def pid_in(path: Path) -> int:
    """Wait for a process id to be written."""
    patiently(path.exists, f"the file {path.name}")
    return int(path.read_text())


def test_a_killed_worker(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """Its body is lost, with the signal named; what waited is lost or void, or runs; later work runs."""
    file = tmp_path / "pid"
    sitting = work(processes, bodies.sit, str(file))
    after = work(processes, bodies.add, sitting)
    others = [work(processes, bodies.add, n) for n in range(10)]
    processes.dispatch([sitting, after, *others])
    host.started(sitting)
    os.kill(pid_in(file), signal.SIGKILL)
    lost = host.end(sitting)
    assert isinstance(lost, WorkerLost)
    assert lost.cause is Cause.WORKER_DIED
    assert host.started(sitting).worker in lost.message
    assert "signal 9 (SIGKILL)" in lost.message
    void = host.end(after)
    assert isinstance(void, DispatchVoided)
    assert void.cause is Cause.UPSTREAM
    for one in others:
        end = host.end(one)
        assert isinstance(end, AttemptSucceeded) or not host.about(one)[:-1]
    later = [work(processes, bodies.add, n) for n in range(10)]
    processes.dispatch(later)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in later)


def test_poison(processes: Any, host: FakeHost) -> None:
    """A body that ends its process at once is lost, with the exit code; whoever was near it can go again."""
    poison = work(processes, bodies.die)
    processes.dispatch([poison])
    lost = host.end(poison)
    assert isinstance(lost, WorkerLost)
    assert "exit code 1" in lost.message


def test_a_segfault(processes: Any, host: FakeHost) -> None:
    """A body that crashes the interpreter is lost, and the message names the signal."""
    one = work(processes, bodies.crash)
    processes.dispatch([one])
    assert "SIGSEGV" in host.end(one).message


def test_segfaults_in_a_row(processes: Any, host: FakeHost) -> None:
    """Also of a body that runs as soon as its worker process has been started again."""
    works = [work(processes, bodies.crash) for _ in range(6)]
    processes.dispatch(works)
    assert all("SIGSEGV" in host.end(one).message for one in works)


def test_last_words(processes: Any, host: FakeHost) -> None:
    """What a body said shortly before its process was killed has arrived, and so has its start."""
    one = work(processes, bodies.last_words)
    processes.dispatch([one])
    assert isinstance(host.end(one), WorkerLost)
    assert [line.message for line in host.lines(one)] == ["last words"]
    assert [type(report) for report in host.about(one)] == [AttemptStarted, WorkerLost]


def test_a_start_that_must_be_confirmed(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """The body begins only when the driver has said that it knows of the start."""
    file = tmp_path / "pid"
    one = work(processes, bodies.write_pid, str(file), confirm_start=True)
    other = work(processes, bodies.add, 1)
    processes.dispatch([one])
    host.started(one)
    processes.dispatch([other])
    host.end(other)
    assert not file.exists()
    processes.tell(one.info.key, StartConfirmed(one.info.key))
    assert isinstance(host.end(one), AttemptSucceeded)
    assert file.exists()


def test_each_dispatch_ends_once(processes: Any, host: FakeHost) -> None:
    """While workers are killed at random moments, every dispatch of random graphs has exactly one end."""
    luck = random.Random(7)
    cluster: Any = clusters.shared.get(PROCESSES)
    done = threading.Event()

    def kill() -> None:
        while not done.wait(luck.uniform(0.1, 0.5)):
            found = workers_of(cluster.host_pid)
            if found:
                luck.choice(found).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    works: list[Work] = []
    for _ in range(5):
        group: list[Work] = []
        for _ in range(40):
            ups = luck.sample(group, min(len(group), luck.randrange(3)))
            body = bodies.fail if luck.random() < 0.1 else bodies.add
            group.append(work(processes, body, *ups))
        processes.dispatch(group)
        processes.withdraw([one.info.key for one in luck.sample(group, 5)])
        for one in group:
            host.end(one)
        works += group
    done.set()
    killer.join()
    assert all(len(host.ends(one)) == 1 for one in works)


def test_a_value_is_computed_again(processes: Any, host: FakeHost) -> None:
    """When the holder of a value dies Dask makes it again: it is no second outcome of the dispatch."""
    one = work(processes, bodies.pid_and_more)
    processes.dispatch([one])
    host.end(one)
    first, _ = processes.fetch(one.info.key)
    os.kill(first, signal.SIGKILL)
    host.wait(
        lambda: [r for r in host.about(one) if isinstance(r, ResultRecomputed)], "the recompute"
    )
    again, _ = processes.fetch(one.info.key)
    assert again != first
    assert len(host.ends(one)) == 1


def test_a_value_is_lost(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """When it cannot be made again it is reported lost, and what needs it is void."""
    one = work(processes, bodies.once, str(tmp_path / "marker"))
    processes.dispatch([one])
    host.end(one)
    holder, _ = processes.fetch(one.info.key)
    os.kill(holder, signal.SIGKILL)
    book = processes._book
    patiently(lambda: book.dead(book.find(one.info.key)), "the failure of the recompute")
    after = work(processes, bodies.size_of, one)
    processes.dispatch([after])
    void = host.end(after)
    assert isinstance(void, DispatchVoided)
    assert void.cause is Cause.UPSTREAM
    assert any(isinstance(report, ResultLost) for report in host.about(one))
    assert len(host.ends(one)) == 1
    with pytest.raises(MissingResult):
        processes.fetch(one.info.key)


@pytest.mark.parametrize("body", [bodies.make_mute, bodies.make_unreadable])
def test_a_large_value_that_cannot_travel(processes: Any, host: FakeHost, body: Any) -> None:
    """It can be used where it is; fetching it says what it is, instead of trying for ever."""
    one = work(processes, body)
    processes.dispatch([one])
    assert isinstance(host.end(one), AttemptSucceeded)
    with pytest.raises(SerializationError):
        processes.fetch(one.info.key)


def test_a_module_is_shared(processes: Any, host: FakeHost) -> None:
    """Two tasks of one module that run on one worker see the same globals, as written in the module."""
    works = [work(processes, bodies.remember, n) for n in range(6)]
    for one in works:
        processes.dispatch([one])
        host.end(one)
    longest = max((processes.fetch(one.info.key) for one in works), key=len)
    assert len(longest) >= 3


def test_closures_travel(processes: Any, host: FakeHost) -> None:
    """A function that no worker can import goes by value, and is the same one for all of its calls there."""
    seen: list[int] = []
    big = bytes(100_000)

    def closure(number: int) -> int:
        seen.append(number)
        return len(seen) + len(big)

    works = [work(processes, closure, n) for n in range(8)]
    processes.dispatch(works)
    found = [host.end(one) and processes.fetch(one.info.key) for one in works]
    assert max(found) - len(big) >= 4
    assert seen == []


def test_babbling_is_capped(processes: Any, host: FakeHost) -> None:
    """Of an attempt that logs without end so many lines arrive, and the number of the others."""
    one = work(processes, bodies.babble, 10_123)
    processes.dispatch([one])
    host.end(one)
    lines = host.lines(one)
    assert len(lines) == 10_001
    assert lines[-1].message.startswith("123 more lines were dropped")


def test_nothing_is_left_on_the_scheduler(processes: Any, host: FakeHost) -> None:
    """It knows large values and parts only; once a runner is closed, nothing of its flow run."""
    works = [work(processes, bodies.large, 100_000) for _ in range(4)]
    shared = [work(processes, bodies.size_of, shared={"data": bytes(100_000)}) for _ in range(4)]
    processes.dispatch([*works, *shared])
    for one in (*works, *shared):
        host.end(one)
    client = clusters.shared.get(PROCESSES).connect()
    patiently(lambda: client.run_on_scheduler(count_tasks) == 5, "the release of small values")
    processes.close()
    patiently(lambda: client.run_on_scheduler(count_tasks) == 0, "the release of all tasks")
    client.close()


def test_a_scheduler_is_lost(host: FakeHost, tmp_path: Path) -> None:
    """When its process is killed no worker stays and work is lost at no charge; more starts a new cluster."""
    runner = DaskTaskRunner(
        cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "memory_limit": 0}
    )
    opened = runner.open(host)
    done = work(opened, bodies.large, 100_000)
    sitting = work(opened, bodies.sit, str(tmp_path / "pid"))
    after = work(opened, bodies.add, sitting)
    opened.dispatch([done])
    host.end(done)
    opened.dispatch([sitting, after])
    worker = psutil.Process(pid_in(tmp_path / "pid"))
    cluster: Any = clusters.shared.get(runner)
    os.kill(cluster.host_pid, signal.SIGKILL)
    for one in (sitting, after):
        lost = host.end(one)
        assert isinstance(lost, WorkerLost)
        assert lost.cause is Cause.SCHEDULER_LOST
    host.wait(
        lambda: any(isinstance(r, ResultLost) for r in host.about(done)), "the loss of values"
    )
    patiently(lambda: not worker.is_running(), "the end of the worker")
    again = work(opened, bodies.add, 1)
    opened.dispatch([again])
    assert isinstance(host.end(again), AttemptSucceeded)
    opened.close()
    runner.shutdown()


@pytest.mark.parametrize("tag", [bodies.Unreadable(), threading.Lock()], ids=["there", "here"])
def test_what_dask_cannot_run(processes: Any, host: FakeHost, tag: Any) -> None:
    """What goes wrong outside of the body, there or here, is one failure that is not tried again."""
    one = work(processes, bodies.add, 1, tags=(tag,))
    after = work(processes, bodies.add, one)
    processes.dispatch([one, after])
    end = host.end(one)
    assert isinstance(end, AttemptRaised)
    assert (end.retriable, end.error.type_name) == (False, "dflow.errors.SerializationError")
    assert isinstance(host.end(after), DispatchVoided)


def test_threads_end(processes: Any) -> None:
    """A closed runner leaves no thread of ours behind."""
    processes.close()
    patiently(
        lambda: not [t for t in threading.enumerate() if t.name == "dflow-dask"],
        "the end of its thread",
    )
