"""A world for flows in tests: no files, no cluster, a clock that stands still, and a record to be checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from dflow import flow, testing
from dflow.core.events import Event
from dflow.core.records import FlowRun, TaskRun
from dflow.engine import process
from dflow.engine.identity import Children
from dflow.engine.session import Session
from dflow.flows import Flow
from dflow.messages import Work
from dflow.ports import Journal, RunReader
from dflow.testing import FakeClock, ScriptedRunner
from tests.records import sound

PATIENCE = 20.0
"""Seconds after which a test that waits has failed."""


def assert_sound(journal: Journal) -> None:
    """Assert that nothing is broken in any run that a journal holds."""
    for entry in journal.catalog.list():
        sound(journal.read(entry.id))


@contextmanager
def one_parent(name: str) -> Iterator[None]:
    """Let all that is asked for inside be asked for by a parent of this name, in whatever run."""
    begin = Children.__init__

    def named(self: Children, _parent_id: str, execution: str = "") -> None:
        begin(self, name, execution)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Children, "__init__", named)
        yield


@dataclass
class World:
    """What a test sees of the flows that run in it."""

    process: process.Process
    clock: FakeClock
    sessions: list[Session] = field(default_factory=list)

    @property
    def journal(self) -> Journal:
        """The journal."""
        return self.process.journal

    @property
    def session(self) -> Session:
        """The session that began last."""
        return self.sessions[-1]

    def settle(self) -> None:
        """Wait until all that was reported so far is recorded and acted upon."""
        self.session.tracker.commit()

    def reader(self, run: str = "latest") -> RunReader:
        """Return the record of a run."""
        return self.journal.read(self.journal.catalog.find(run).id)

    def task_runs(self) -> dict[str, TaskRun]:
        """Return the task runs of the latest run by name."""
        return {run.name: run for run in self.reader().task_runs()}

    def states(self) -> dict[str, str]:
        """Return the names of the states of the latest run's task runs, by name."""
        return {name: run.state_name for name, run in self.task_runs().items()}

    def flow_runs(self) -> list[FlowRun]:
        """Return the flow runs of the latest run, the root first."""
        return list(self.reader().flow_runs())

    def events(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind of the latest run."""
        return [event for _, event in self.reader().events() if isinstance(event, kind)]

    def lines(self) -> list[str]:
        """Return the log lines of the latest run."""
        return [entry.message for entry in self.reader().logs()]


@contextmanager
def world_with(journal: Journal | None = None, runner: str = "inline") -> Iterator[World]:
    """Run flows inside without files and without a cluster; afterwards every record must be sound."""
    clock = FakeClock()
    with testing.in_memory(journal=journal, clock=clock, task_runner=runner) as shared:
        world = World(shared, clock)
        with process.watched(world.sessions.append):
            yield world
        kept = shared.journal
    assert_sound(kept)


class Running:
    """Something that runs in a thread of its own, such as a flow whose runner the test plays."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._future: Future[Any] = Future()

        def run() -> None:
            try:
                self._future.set_result(function(*args, **kwargs))
            except BaseException as error:
                self._future.set_exception(error)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def done(self) -> bool:
        """Tell whether it has ended."""
        return self._future.done()

    def result(self) -> Any:
        """Return its value, or raise what it raised."""
        return self._future.result(PATIENCE)


def scripted(body: Callable[[], Any], runner: ScriptedRunner, **options: Any) -> Flow[[], Any]:
    """Return a flow on a runner that the test plays."""
    return flow(task_runner=runner, **options)(body)


def start(body: Callable[[], Any], runner: ScriptedRunner, **options: Any) -> Running:
    """Run a flow on a runner that the test plays."""
    return Running(scripted(body, runner, **options))


def named(works: list[Work]) -> dict[str, Work]:
    """Return the latest dispatch of each task run by its name."""
    return {work.info.task_run_name: work for work in works}
