"""Scripts that start worker processes, each run as its user would: main guards, classes, kills, Ctrl-C."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

from tests.runners.hosts import patiently
from tests.runners.scripts import Script


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that came from one, without the helpers of the standard library."""
    found = psutil.Process(pid).children(recursive=True)
    return [one for one in found if "resource_tracker" not in " ".join(one.cmdline())]


def gone(processes: list[psutil.Process]) -> bool:
    """Tell whether processes have ended."""
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


CLASSES = """
class Point:
    def __init__(self, x): self.x, self.more = x, bytes(100_000)

seen = []

def make(x):
    seen.append(x)
    return Point(x)

def shift(point, by):
    assert isinstance(point, Point)
    return Point(point.x + by + len(seen))

if __name__ == "__main__":
    host = FakeHost()
    opened = RUNNER.open(host)
    made = work(opened, make, 1)
    moved = work(opened, shift, made, 10)
    again = work(opened, shift, Point(5), 0)
    for one in (made, moved, again):
        opened.dispatch([one])
        host.end(one)
        point = opened.fetch(one.info.key)
        assert isinstance(point, Point), type(point)
        print(point.x, len(seen))
    opened.close()
"""


@pytest.mark.parametrize("arguments", [(), ("-m", "script")], ids=["by path", "by name"])
def test_classes_of_a_script(script: Script, arguments: tuple[str, ...]) -> None:
    """A script's functions share its globals on a worker, and its classes are the same everywhere."""
    code, out, err = script.run(CLASSES, *arguments)
    assert (code, out.split("\n"), err) == (0, ["1 0", "12 0", "6 0", ""], "")


def test_a_missing_main_guard(script: Script) -> None:
    """It is an error that shows the line and what to write, and nothing is started."""
    code, out, err = script.run("opened = RUNNER.open(FakeHost())\nprint('not reached')\n")
    assert (code, out) == (1, "")
    for part in (
        "MissingMainGuard",
        'script.py", line 7',
        'if __name__ == "__main__":\n        opened = RUNNER.open(FakeHost())',
    ):
        assert part in err


IMPORTED = """
from dflow.attempts.scripts import being_imported_by_a_worker

open(f"{being_imported_by_a_worker()}", "w").close()

if __name__ == "__main__":
    RUNNER.open(FakeHost()).close()
"""


def test_a_script_knows_that_a_worker_imports_it(script: Script) -> None:
    """What a worker runs of a script can tell that it is not the script's own process."""
    code, _, err = script.run(IMPORTED)
    assert (code, err) == (0, "")
    assert {path.name for path in script.folder.glob("*e")} == {"True", "False"}


def test_a_script_that_workers_cannot_load(script: Script) -> None:
    """It is a ClusterError, after the traceback of the worker."""
    code, _, err = script.run(
        "if __name__ == '__main__':\n    RUNNER.open(FakeHost())\nelse:\n    raise ValueError('not twice')\n"
    )
    assert code == 1
    assert "ValueError: not twice" in err
    assert "dflow.errors.ClusterError: The cluster could not start" in err


PRINTS = """
def speak():
    print("from", "the worker")
    print("and its errors", file=sys.stderr)

if __name__ == "__main__":
    host = FakeHost()
    opened = RUNNER.open(host)
    one = work(opened, speak)
    opened.dispatch([one])
    host.end(one)
    print([m.text for m in host.reports if hasattr(m, "text")])
"""


def test_prints_reach_the_driver(script: Script) -> None:
    """What a body prints is reported, and not written by its worker, whose errors appear as ever.

    Without a shutdown all is closed at exit.
    """
    assert script.run(PRINTS) == (0, "['from the worker']\n", "and its errors\n")


SITTING = """
def sit():
    open("begun", "w").close()
    threading.Event().wait()

def add(*numbers):
    return sum(numbers)

def begin():
    host = FakeHost()
    opened = RUNNER.open(host)
    opened.dispatch([work(opened, sit)])
    while not os.path.exists("begun"):
        threading.Event().wait(0.02)
    return host, opened
"""

WAITING = """
if __name__ == "__main__":
    begin()
    if "fork" in sys.argv and os.fork() == 0:
        threading.Event().wait()
    print("ready", flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("arguments", [(), ("fork",)], ids=["alone", "with a forked child"])
def test_a_killed_driver(script: Script, arguments: tuple[str, ...]) -> None:
    """``kill -9`` of the driver leaves no process of its cluster, also when a fork holds its pipes."""
    started = script.start(SITTING + WAITING, "script.py", *arguments)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    cluster = [p for p in descendants(started.pid) if "script.py" not in p.cmdline()]
    forks = [p for p in descendants(started.pid) if "script.py" in p.cmdline()]
    assert len(cluster) >= 2
    os.kill(started.pid, signal.SIGKILL)
    patiently(lambda: gone(cluster), "the end of the cluster", 5.0)
    for fork in forks:
        fork.kill()


INTERRUPTED = """
if __name__ == "__main__":
    host, opened = begin()
    try:
        print("ready", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        opened.close()
        print("interrupted", flush=True)
        host, opened = begin() if os.remove("begun") else (FakeHost(), RUNNER.open(FakeHost()))
        print("cluster lives", flush=True)
        RUNNER.shutdown()
        print("closed", flush=True)
"""


def test_ctrl_c(script: Script) -> None:
    """A terminal's interrupt reaches the driver only: it decides, and its cluster lives until then."""
    started = script.start(SITTING + INTERRUPTED)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    cluster = descendants(started.pid)
    os.killpg(started.pid, signal.SIGINT)
    assert started.stdout.readline() == "interrupted\n"
    assert not gone(cluster)
    out, err = started.communicate(timeout=60)
    assert (out, err) == ("cluster lives\nclosed\n", "")
    assert gone(cluster)


ENDING = """
if __name__ == "__main__":
    begin()
    try:
        print("ready", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("ending", flush=True)
"""


def test_ctrl_c_once_more(script: Script) -> None:
    """Who presses it again while the cluster closes waits no longer for its bodies, and nothing is left."""
    started = script.start(SITTING + ENDING)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    cluster = descendants(started.pid)
    started.send_signal(signal.SIGINT)
    assert started.stdout.readline() == "ending\n"
    time.sleep(0.5)
    assert not gone(cluster)  # it gets seconds for its end
    started.send_signal(signal.SIGINT)
    patiently(lambda: gone(cluster), "the end of the cluster", 2.0)
    assert started.communicate(timeout=60) == ("", "")


CLEAN = """
import psutil

def add(*numbers):
    return sum(numbers)

def use(runner):
    host = FakeHost()
    opened = runner.open(host)
    works = [work(opened, add, n) for n in range(5)]
    opened.dispatch(works)
    for one in works:
        host.end(one)
    opened.close()
    runner.shutdown()

def left():
    threads = sorted(t.name for t in threading.enumerate())
    processes = [p.cmdline() for p in psutil.Process().children(recursive=True)]
    return threads, processes, psutil.Process().num_fds()

if __name__ == "__main__":
    for runner in (DaskTaskRunner(cluster_kwargs={"processes": False}), RUNNER):
        use(runner)
        before = left()
        use(runner)
        assert left() == before, (left(), before)
    print(before[:2])
"""


def test_nothing_is_left(script: Script) -> None:
    """After a shutdown no process, no thread of ours and no file is left: only what Dask keeps for ever."""
    code, out, err = script.run(CLEAN)
    assert (code, out, err) == (0, "(['Dask-Offload_0', 'MainThread'], [])\n", "")


@pytest.mark.parametrize("processes", [False, True])
def test_all_is_on_loopback(processes: bool) -> None:
    """Nothing that a cluster of ours opens listens to other machines."""
    from task_runners import DaskTaskRunner
    from tests.runners.conftest import PROCESSES, RUNNERS
    from tests.runners.hosts import FakeHost

    runner: DaskTaskRunner = PROCESSES if processes else RUNNERS["dask-in-process"]
    opened = runner.open(FakeHost())
    me = psutil.Process()
    listening: list[Any] = [
        connection.laddr
        for process in (me.children(recursive=True) if processes else [me])
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    opened.close()
    assert listening
    assert {address.ip for address in listening} == {"127.0.0.1"}
