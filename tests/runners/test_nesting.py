"""Task runs that make task runs: asked for up the Link, answered down it, waited for without a slot."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import pytest
from msgspec.structs import replace

from dflow.core.events import AttemptSucceeded, TaskCreated
from dflow.messages import AttemptInfo, ChildrenCreated, Down, Key, Settled, Up, Work
from task_runners import DaskTaskRunner, ThreadPoolTaskRunner
from task_runners.dask import places
from tests.runners import bodies
from tests.runners.conftest import ONE_PROCESS
from tests.runners.hosts import FakeHost, HostLink, work

DEPTH = 50

ONE_SLOT: dict[str, Any] = {
    "threads": ThreadPoolTaskRunner(max_workers=1),
    "dask-in-process": DaskTaskRunner(cluster_kwargs={"processes": False, "threads_per_worker": 1}),
    "dask-processes": ONE_PROCESS,
}


class DriverLink(HostLink):
    """A link in this process down which the driver can send."""

    def __init__(self, host: FakeHost, info: AttemptInfo, box: SimpleQueue[Down]) -> None:
        super().__init__(host, info)
        self._box = box

    def receive(self, timeout: float | None = None) -> Down | None:
        """Return what the driver has sent."""
        return self._box.get(timeout=timeout)

    def pack(self, call: Any) -> Any:
        """Return a call as the runner takes it."""
        assert isinstance(self._host, Driver)
        return self._host.opened.pack(call)

    def fetch(self, key: Key) -> Any:
        """Return the value of a child."""
        assert isinstance(self._host, Driver)
        return self._host.opened.fetch(key)


class Driver(FakeHost):
    """Dispatches the children that attempts ask for, and tells their parents what became of them."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Any = None
        self._info: AttemptInfo | None = None
        self._parents: dict[Key, Key] = {}
        self._boxes: dict[Key, SimpleQueue[Down]] = {}

    def begin(self, one: Work) -> None:
        """Dispatch the first task run."""
        self._info = one.info
        self.opened.dispatch([one])

    def link(self, info: AttemptInfo) -> DriverLink:
        """Return a link with a way down."""
        box = self._boxes.setdefault(info.key, SimpleQueue())
        return DriverLink(self, info, box)

    def news(self, messages: Sequence[Up]) -> None:
        """Act on what is reported."""
        super().news(messages)
        for message in messages:
            if isinstance(message, ChildrenCreated):
                self._dispatch(message)
            elif isinstance(message, AttemptSucceeded):
                self._settle((message.task_run_id, message.dispatch))

    def _dispatch(self, message: ChildrenCreated) -> None:
        assert isinstance(message.event, TaskCreated)
        assert self._info is not None
        info = replace(self._info, task_run_id=message.event.task_run_id)
        self._parents[info.key] = message.parent
        self.opened.dispatch([Work(info, message.calls[0])])

    def _settle(self, key: Key) -> None:
        parent = self._parents.get(key)
        if parent is None:
            return
        settled = Settled(key[0], "Completed", "", 0.0, key=key)
        if parent in self._boxes:
            self._boxes[parent].put(settled)
        self.opened.tell(parent, settled)


def descend(kind: str) -> None:
    """Let fifty task runs wait for one another."""
    driver = Driver()
    driver.opened = ONE_SLOT[kind].open(driver)
    one = work(driver.opened, bodies.descend, DEPTH)
    driver.begin(one)
    assert isinstance(driver.end(one), AttemptSucceeded)
    assert driver.opened.fetch(one.info.key) == DEPTH
    driver.opened.close()
    if ONE_SLOT[kind] is not ONE_PROCESS:
        ONE_SLOT[kind].shutdown()


@pytest.mark.parametrize("kind", list(ONE_SLOT))
def test_waiting_never_deadlocks(kind: str) -> None:
    """Fifty task runs that wait for one another all come to their end on a single slot."""
    descend(kind)


def test_waiting_without_what_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where distributed has changed, the thread of a task still gives its own slot back."""
    monkeypatch.setattr(places, "can_stand_in", lambda: False)
    descend("dask-in-process")
