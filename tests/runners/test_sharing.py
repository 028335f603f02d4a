"""What runners share: made once, and ended when nobody has used it for a time."""

from __future__ import annotations

import logging
import threading
from typing import Any

from task_runners import DaskTaskRunner
from task_runners.dask import clusters
from task_runners.sharing import Shared
from tests.runners import bodies
from tests.runners.hosts import FakeHost, patiently, work


class Thing:
    """Something that can be in use, and ends."""

    def __init__(self) -> None:
        self.used = True
        self.ended = threading.Event()


def things(patience: float | None) -> Shared[str, Thing]:
    """Return things for which there is so much patience."""
    return Shared(
        lambda _: Thing(),
        lambda thing: not thing.ended.is_set(),
        lambda thing: thing.ended.set(),
        in_use=lambda thing: thing.used,
        patience=lambda _: patience,
    )


def watchers() -> list[threading.Thread]:
    """Return the threads that look for what nobody uses."""
    return [thread for thread in threading.enumerate() if thread.name == "dflow-idle"]


def test_what_nobody_uses_ends() -> None:
    """It ends when it has not been used for its time, the others stay; who asks later gets a new one."""
    before = len(watchers())
    shared = things(0.1)
    idle, used = shared.get("idle"), shared.get("used")
    assert shared.get("idle") is idle
    idle.used = False
    assert idle.ended.wait(10.0)
    assert not used.ended.wait(0.3)
    again = shared.get("idle")
    assert again is not idle
    shared.close_all()
    assert again.ended.is_set()
    assert used.ended.is_set()
    assert len(watchers()) == before


def test_patience_without_end() -> None:
    """What is kept for ever needs no thread that looks; what is kept for an infinite time stays."""
    before = len(watchers())
    for patience, threads in ((None, 0), (float("inf"), 1)):
        shared = things(patience)
        thing = shared.get("a")
        thing.used = False
        assert not thing.ended.wait(0.1)
        assert len(watchers()) == before + threads
        shared.close("a")
        assert len(watchers()) == before


def test_an_idle_cluster_is_closed() -> None:
    """Nothing is left of it; while a flow run has it open it stays; the next flow run starts another one."""
    one = {"n_workers": 1, "threads_per_worker": 1, "idle_seconds": 0.3}
    runner = DaskTaskRunner(cluster_kwargs=one)
    try:
        pids = [add_up(runner, 3 + n) for n in range(2)]
    finally:
        runner.shutdown()
    assert pids[0] != pids[1]


def add_up(runner: DaskTaskRunner, number: int) -> int:
    """Run a body, wait for longer than the cluster may be idle, run one more; let it be closed."""
    host = FakeHost()
    opened: Any = runner.open(host)
    cluster: Any = clusters.shared.get(runner)
    for _ in range(2):
        one = work(opened, bodies.add, number)
        opened.dispatch([one])
        host.end(one)
        assert opened.fetch(one.info.key) == number
        assert not threading.Event().wait(0.8)
        assert cluster.alive()
    opened.close()
    patiently(lambda: not cluster.alive(), "the end of an idle cluster")
    return int(cluster.host_pid)


def test_handlers_of_the_program_stay_as_they_are(host: FakeHost) -> None:
    """A cluster in this process is quiet by itself: the program's handlers of Dask's logs are its own."""
    own, logger = logging.StreamHandler(), logging.getLogger("distributed")
    logger.addHandler(own)
    runner = DaskTaskRunner(cluster_kwargs={"processes": False, "idle_seconds": 9.0})
    try:
        opened = runner.open(host)
        assert own.level == logging.NOTSET
        opened.close()
    finally:
        runner.shutdown()
        logger.removeHandler(own)
