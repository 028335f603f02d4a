"""Work outside of flows, the end of a process, and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dflow
from dflow import flow, task
from dflow.engine import process
from dflow.errors import JournalUnavailable, MissingResult
from dflow.testing import ScriptedRunner
from tests.engine.world import World, scripted, world_with

pytestmark = pytest.mark.usefixtures("world")


@task
def step(x: Any = 0) -> Any:
    """Return what came."""
    return x


def test_calls_submits_and_maps_work_outside_of_flows(world: World) -> None:
    """They belong to one session run per process, made at first use."""
    assert step(1) == 1
    future = step.submit(2)
    assert future.result() == 2
    assert step.map([future, 3]).result() == [2, 3]
    assert [entry.flow_name for entry in world.journal.catalog.list()] == ["session"]
    assert len(world.task_runs()) == 4


def test_the_session_ends_with_the_process() -> None:
    """Its record says Completed, and nothing in it is unfinished."""
    with world_with(runner="inline") as world:
        assert step(1) == 1
        journal = world.journal
    assert journal.catalog.find("latest").state_name == "Completed"
    (root,) = journal.read(journal.catalog.find("latest").id).flow_runs()
    assert root.state_name == "Completed"


def test_a_future_from_outside_is_an_argument_inside() -> None:
    """Of a task in a flow, and of a flow: its value is put in its place."""
    outside = step.submit(5)

    @flow
    def main(x: Any) -> Any:
        assert x == [5]
        return step.submit(outside, wait_for=[outside])

    assert main([outside], wait_for=[outside]) == 5
    assert main.fn.__name__ == "main"


def test_a_failed_future_is_not_waited_past() -> None:
    """What a flow waits for and has failed is raised, and the flow does not begin."""

    @task
    def failing() -> None:
        raise ValueError("bad")

    ran: list[int] = []
    with pytest.raises(ValueError, match="bad"):
        flow(lambda: ran.append(1))(wait_for=[failing.submit()])
    assert ran == []


def threads() -> set[threading.Thread]:
    """Return the threads of this process."""
    return set(threading.enumerate())


def test_a_flow_leaves_no_thread() -> None:
    """When a flow has returned, or failed, its tracker, its watch and its desk are gone."""
    before = threads()
    with world_with():
        assert flow(lambda: step(1))() == 1
        with pytest.raises(ZeroDivisionError):
            flow(lambda: 1 / 0)()
        assert threads() == before
        step(1)
        assert threads() != before
    assert threads() == before


def test_shutdown_leaves_no_thread() -> None:
    """After `dflow.shutdown()` there is nothing left, also in threads of a runner; it may be called twice."""
    code = """
import threading, dflow
@dflow.task
def f(x): return x
@dflow.flow(task_runner="threads")
def main(): return f.map(range(20)).result()
main(); f(1); f.submit(2).result()
dflow.shutdown(); dflow.shutdown()
left = [t for t in threading.enumerate() if t is not threading.main_thread()]
for thread in left:
    thread.join(5)
assert not any(t.is_alive() for t in left), left
assert f(3) == 3
"""
    environment = {**os.environ, "DFLOW_TASK_RUNNER": "threads"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_a_body_that_outlives_its_flow_is_told() -> None:
    """What it asks for after the end raises at once; it does not wait for ever, nor does the process."""
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    @task
    def slow() -> None:
        begun.set()
        go.wait(10)
        for call in (lambda: step(1), lambda: step.submit(1), lambda: step.map([1])):
            try:
                call()
            except dflow.errors.CancelledError as error:
                errors.append(error)
        print("nobody hears this")
        ended.set()

    @flow(task_runner="threads", log_prints=True)
    def main() -> None:
        slow.submit()
        begun.wait(10)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        main()
    go.set()
    assert ended.wait(10)
    assert len(errors) == 3
    assert "has ended" in str(errors[0])


def test_waiting_for_a_flow_that_ends_is_told() -> None:
    """A thread that waits for a task run, when its session is closed, is woken with an error."""
    runner, errors = ScriptedRunner(), list[BaseException]()

    def waiter(future: Any) -> None:
        try:
            future.result()
        except BaseException as error:
            errors.append(error)

    waiting: list[threading.Thread] = []

    def main() -> None:
        future = step.submit()
        waiting.append(threading.Thread(target=waiter, args=(future,)))
        waiting[0].start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scripted(main, runner)()
    waiting[0].join(10)
    assert isinstance(errors[0], dflow.errors.CancelledError)


# Forks -----------------------------------------------------------------------------------------------


def in_a_fork(function: Callable[[], Any]) -> int:
    """Run a function in a forked child, which must not hang; return its exit code."""
    child = os.fork()
    if not child:
        code = 99
        try:
            signal.alarm(20)
            function()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@forks
def test_the_child_of_a_fork_is_refused(world: World) -> None:
    """In a flow, a forked child can call nothing and wait for nothing; the parent is not disturbed."""
    runner = ScriptedRunner()

    def refused(pending: Any) -> None:
        for call in (
            lambda: step(1),
            lambda: step.submit(1),
            pending.result,
            lambda: pending.state,
        ):
            with pytest.raises(JournalUnavailable, match="of which this one is a fork"):
                call()

    def main() -> int:
        future = step.submit(1)
        assert in_a_fork(lambda: refused(future)) == 0
        runner.succeed(runner.expect(1)[0], 7)
        return future.result()  # type: ignore[no-any-return]

    assert scripted(main, runner)() == 7
    assert len(world.task_runs()) == 1


@forks
def test_a_child_that_runs_out_of_its_flow_harms_nothing(world: World) -> None:
    """A forked child whose exception leaves the flow's frames ends, and leaves the parent's record alone."""
    parent = os.getpid()

    @flow
    def main() -> int:
        child = os.fork()
        if not child:
            signal.alarm(20)
            raise ValueError("in the child")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        return step(1)  # type: ignore[no-any-return]

    try:
        assert main() == 1
    except BaseException as error:
        if os.getpid() != parent:
            os._exit(7 if isinstance(error, JournalUnavailable) else 8)
        raise
    assert world.flow_runs()[0].state_name == "Completed"


@forks
def test_a_child_begins_afresh_outside_of_flows(tmp_path: Path) -> None:
    """Without a flow a forked child has a session of its own, and its end does not end its parent's."""
    code = """
import os, sys, dflow
@dflow.task
def f(x): return x
f(1)
child = os.fork()
if not child:
    assert f(2) == 2
    dflow.shutdown()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert f(3) == 3
dflow.shutdown()
from dflow.engine import process
entries = process.process().journal.catalog.list()
assert [e.state_name for e in entries] == ["Completed"] * 2, entries
"""
    environment = {**os.environ, "DFLOW_TASK_RUNNER": "inline", "DFLOW_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_in_memory_gives_back_what_was_there(world: World) -> None:
    """A world inside a world has a journal of its own, and the outer one goes on after it."""
    with world_with() as inner:
        assert step(1) == 1
        assert process.process().journal is inner.journal
    assert process.process().journal is world.journal
    assert world.journal.catalog.list() == []


def test_a_value_that_is_gone_is_said(world: World) -> None:
    """The state of a task run whose large value was let go says what to do."""
    kept: list[Any] = []

    @flow
    def main() -> None:
        future = step.submit(b"x" * 50_000)
        kept.append(future.state)
        world.session.ledger.with_runner.clear()
        with pytest.raises(MissingResult, match="keep its future as long as you need the value"):
            future.result()

    main()
