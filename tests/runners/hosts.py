"""A driver that only listens: what a runner reports is kept, and waited for with a deadline."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from dflow.attempts.calls import Call
from dflow.core.events import AttemptStarted, DispatchVoided, Outcome, WorkerLost
from dflow.messages import AtRunner, AttemptInfo, Down, Key, LogEntry, Ref, Up, Work
from tests.attempts.recorder import attempt_info

DEADLINE = 30.0
"""Seconds after which what was waited for is not going to happen."""

ROOT = "0123456789abcdef"

_numbers = itertools.count(1)


class HostLink:
    """The link of an attempt in this process: posts to the host."""

    far = False

    def __init__(self, host: FakeHost, info: AttemptInfo) -> None:
        self._host = host
        self.address = info.key

    def send(self, message: Up) -> None:
        """Post a message."""
        self._host.news([message])

    def confirm_start(self) -> None:
        """Note that the start was confirmed."""
        self._host.confirmed.append(self.address)

    def receive(self, timeout: float | None = None) -> Down | None:  # noqa: ARG002  # the port's
        """Return None: nothing comes down."""
        return None

    @property
    def ended(self) -> bool:
        """Nothing comes down."""
        return True

    def fetch(self, key: Key) -> Any:
        """Fail: nobody should ask."""
        raise AssertionError(f"{key} was asked for")

    def pack(self, call: Any) -> Any:
        """Return the call as it is."""
        return call

    def witness(self, error: BaseException) -> None:
        """Keep the exception."""
        self._host.witnessed.append(error)


class FakeHost:
    """Keeps what is reported, in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.root_id = f"{next(_numbers):016x}"
        self.reports: list[Up] = []
        self.confirmed: list[Key] = []
        self.witnessed: list[BaseException] = []

    def news(self, messages: Sequence[Up]) -> None:
        """Keep what is reported."""
        with self._changed:
            self.reports.extend(messages)
            self._changed.notify_all()

    def link(self, info: AttemptInfo) -> HostLink:
        """Return the link of an attempt in this process."""
        return HostLink(self, info)

    def wait(self, found: Callable[[], Any], what: str = "it", deadline: float = DEADLINE) -> Any:
        """Wait until `found` returns something true, and return that."""
        with self._changed:
            if not self._changed.wait_for(found, deadline):
                raise AssertionError(f"{what} did not happen; reported was {self.reports}")
            return found()

    def about(self, work: Work) -> list[Up]:
        """Return what was reported of a dispatch itself."""
        return [
            report
            for report in list(self.reports)
            if (getattr(report, "task_run_id", None), getattr(report, "dispatch", None))
            == work.info.key
        ]

    def ends(self, work: Work) -> list[Any]:
        """Return the ends that were reported of a dispatch."""
        return [r for r in self.about(work) if isinstance(r, Outcome | DispatchVoided | WorkerLost)]

    def end(self, work: Work) -> Any:
        """Wait for the end of a dispatch; it has only one."""
        (only,) = self.wait(lambda: self.ends(work), f"the end of {work.info.task_run_name}")
        return only

    def started(self, work: Work) -> Any:
        """Wait for the start of a dispatch."""
        starts = self.wait(
            lambda: [r for r in self.about(work) if isinstance(r, AttemptStarted)],
            f"the start of {work.info.task_run_name}",
        )
        return starts[0]

    def lines(self, work: Work) -> list[LogEntry]:
        """Return the log lines of a task run."""
        return [
            report
            for report in list(self.reports)
            if isinstance(report, LogEntry) and report.task_run_id == work.info.task_run_id
        ]


def work(
    opened: Any,
    function: Callable[..., Any],
    *args: Any,
    shared: dict[str, Any] | None = None,
    **options: Any,
) -> Work:
    """Return a dispatch of a call; works among its arguments are upstreams at the runner."""
    ups = {arg.info.task_run_id: AtRunner(arg.info.key) for arg in args if isinstance(arg, Work)}
    args = tuple(Ref(arg.info.task_run_id) if isinstance(arg, Work) else arg for arg in args)
    name = getattr(function, "__name__", "task")
    number = next(_numbers)
    info = attempt_info(
        task_run_id=f"run{number:05}",
        dispatch=1,
        generation=1,
        attempt=1,
        task_name=name,
        task_run_name=f"{name}-{number}",
        flow_run_id=ROOT,
        flow_run_name="able-otter",
        flow_name="flow",
        root_id=ROOT,
        **options,
    )
    call = Call(function, args, shared=shared or {}, has_refs=bool(ups))
    return Work(info, opened.pack(call), ups)


def workers_of(host_pid: int) -> list[psutil.Process]:
    """Return the worker processes of a cluster: new ones, or forks of its fork server."""
    children = psutil.Process(host_pid).children()
    spawned = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
    servers = [one for one in children if "multiprocessing.forkserver" in " ".join(one.cmdline())]
    return [*spawned, *(fork for server in servers for fork in server.children())]


def patiently(found: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Wait for something outside of any host: look again and again, until a deadline."""
    end = time.monotonic() + deadline
    while not (result := found()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)
    return result
