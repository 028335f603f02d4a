"""Failures: what they take with them, what a user catches, and what is cancelled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dflow import TaskFuture, flow, task, testing
from dflow.core.records import Ending
from dflow.errors import CancelledError, CrashedError, TaskFailedError, UpstreamFailedError
from dflow.testing import ScriptedRunner
from tests.engine.world import Running, World, assert_sound, named, scripted, start

pytestmark = pytest.mark.usefixtures("world")


@task
def first(x: Any = 0) -> Any:
    """Come first."""
    return x


@task
def second(x: Any = 0) -> Any:
    """Come second."""
    return x


@task
def third(x: Any = 0) -> Any:
    """Come third."""
    return x


@task
def failing(x: Any = 0) -> Any:
    """Fail."""
    raise ValueError(f"bad {x}")


def test_a_failure_upstream_names_the_chain_to_its_root(world: World) -> None:
    """What depends on it never runs; the user catches the original exception, with a note of the chain."""
    caught: list[BaseException] = []

    @flow
    def main() -> None:
        c = third.submit(second.submit(failing.submit()))
        with pytest.raises(ValueError, match="bad 0") as raised:
            c.result()
        caught.append(raised.value)
        assert c.state.name == "UpstreamFailed"
        assert c.state.is_failed()

    main()
    run = world.task_runs()["third-0"]
    assert run.message == "Something upstream failed: third-0 ← second-0 ← failing-0"
    assert run.attempts == ()
    assert any("third-0 ← second-0 ← failing-0" in note for note in caught[0].__notes__)


def test_a_long_chain_is_shortened_and_keeps_its_root(world: World) -> None:
    """A chain of hundreds is walked without recursion and shown with its two ends."""

    @flow
    def main() -> Any:
        future = failing.submit()
        for _ in range(500):
            future = second.submit(future)
        return future.result()

    with pytest.raises(ValueError, match="bad 0"):
        main()
    message = world.task_runs()["second-499"].message
    assert message.startswith("Something upstream failed: second-499 ← second-498 ←")
    assert message.endswith("… ← failing-0")
    assert len(message) < 300


def test_wait_for_takes_failures_along_too() -> None:
    """What had to have completed and did not takes with it what waited for it."""

    @flow
    def main() -> None:
        assert second.submit(wait_for=[failing.submit()]).state.name == "UpstreamFailed"

    main()


def test_a_crash_upstream_is_caught_in_words(runner: ScriptedRunner) -> None:
    """Where there is no exception to raise, the error says what happened, and to whom."""

    @task(max_worker_losses=0)
    def poison() -> None:
        pass

    flow = start(lambda: second.submit(poison.submit()).result(), runner)
    lost = runner.expect(1)[0]
    runner.start(lost)
    runner.lose(lost)
    with pytest.raises(UpstreamFailedError, match="second-0 ← poison-0"):
        flow.result()


def test_an_exception_that_ends_processes_is_told_in_words(world: World) -> None:
    """`sys.exit` in a task does not end the flow's process: the failure stands for it."""

    @task
    def leave() -> None:
        raise SystemExit(3)

    @flow
    def main() -> None:
        for call in (leave, lambda: leave.submit().result()):
            with pytest.raises(TaskFailedError, match="raised SystemExit: 3"):
                call()

    main()
    assert world.states() == {"leave-0": "Failed", "leave-1": "Failed"}


def test_a_body_that_raises_cancels_what_has_not_started(
    world: World, runner: ScriptedRunner
) -> None:
    """What waits is cancelled, what is queued withdrawn, what runs asked to stop; what is done is done."""

    def main() -> None:
        done, running, queued = (first.submit(n) for n in range(3))
        second.submit(third.submit(queued))
        second.submit(wait_for=[running])
        done.result()
        raise ValueError("the flow's own")

    failed = start(main, runner)
    works = named(runner.expect(3))
    runner.start(works["first-1"])
    runner.succeed(works["first-0"], 0)
    with pytest.raises(ValueError, match="the flow's own"):
        failed.result()
    assert world.states() == {
        "first-0": "Completed",
        "first-1": "Cancelled",
        "first-2": "Cancelled",
        "third-0": "Cancelled",
        "second-0": "Cancelled",
        "second-1": "Cancelled",
    }
    assert runner.withdrawn == [works["first-2"].info.key]
    assert runner.stopped == [works["first-1"].info.key]
    assert world.task_runs()["first-1"].attempts[-1].ending is Ending.ABANDONED
    (root,) = world.flow_runs()
    assert (root.state_name, root.message) == ("Failed", "ValueError: the flow's own")


def test_a_grace_lets_running_bodies_end(
    runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends within the grace has its real outcome, and new work is not begun meanwhile."""
    monkeypatch.setenv("DFLOW_STOP_GRACE", "30")

    def main() -> None:
        first.submit(1)
        second.submit(first.submit(2))
        raise ValueError("stop")

    with testing.in_memory() as shared:
        failed = Running(scripted(main, runner))
        one, two = runner.expect(2)
        runner.start(one)
        assert runner.until(lambda: bool(runner.stopped and runner.withdrawn))
        runner.succeed(one, 1)
        runner.void(two)
        with pytest.raises(ValueError, match="stop"):
            failed.result()
        reader = shared.journal.read(shared.journal.catalog.find("latest").id)
        states = {run.name: run.state_name for run in reader.task_runs()}
    assert states == {"first-0": "Completed", "first-1": "Cancelled", "second-0": "Cancelled"}
    assert_sound(shared.journal)


def test_a_cancelled_task_is_caught_as_cancelled() -> None:
    """What another thread still waits for, when its flow fails, ends with a `CancelledError`."""
    runner, caught = ScriptedRunner(), list[BaseException]()
    seen = threading.Event()

    def watch(future: TaskFuture[Any]) -> None:
        caught.append(future.result(raise_on_failure=False))
        seen.set()

    def main() -> None:
        first.submit().add_done_callback(watch)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        scripted(main, runner)()
    assert seen.wait(10)
    assert isinstance(caught[0], CancelledError)


def test_a_retry_of_the_flow_finds_what_has_completed(world: World) -> None:
    """The function runs again, completed task runs are returned, failed ones run anew."""
    ran: list[str] = []

    @task
    def step(name: str) -> str:
        ran.append(name)
        if name == "flaky" and ran.count("flaky") == 1:
            raise ValueError("flaky")
        return name.upper()

    @flow(retries=1)
    def main() -> list[str]:
        return [step(name) for name in ("a", "flaky", "b")]

    assert main() == ["A", "FLAKY", "B"]
    assert ran == ["a", "flaky", "flaky", "b"]
    (root,) = world.flow_runs()
    assert (root.state_name, root.generation, root.raised) == ("Completed", 2, 1)
    assert world.task_runs()["step-1"].generation == 2


class Heard(logging.Handler):
    """Notices a line of the driver's log."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line."""
        if self.text in record.getMessage():
            self.heard.set()


@pytest.fixture
def waiting() -> Iterator[threading.Event]:
    """Return what is set once a flow says that it waits for its retry."""
    handler = Heard("the flow runs again in 3600.0 s")
    logging.getLogger("dflow.runs").addHandler(handler)
    yield handler.heard
    logging.getLogger("dflow.runs").removeHandler(handler)


def test_a_retry_of_the_flow_waits_on_the_tests_clock(
    world: World, waiting: threading.Event
) -> None:
    """A delay of an hour takes no hour where the clock is the test's."""
    tries: list[float] = []
    began = threading.Event()

    @flow(retries=1, retry_delay_seconds=3600)
    def main() -> str:
        tries.append(world.clock.now())
        if len(tries) == 1:
            raise ValueError("once")
        began.set()
        return "done"

    running = Running(main)
    assert waiting.wait(10)
    world.clock.advance(3599)
    assert not began.wait(0.1)
    world.clock.advance(1)
    assert running.result() == "done"
    assert tries[1] - tries[0] == 3600


def test_a_second_generation_tells_its_own_chain(world: World) -> None:
    """A task that failed on its own the second time is the root then, not what failed the first time."""
    tries: list[int] = []

    @task
    def opening() -> int:
        if len(tries) == 1:
            raise ValueError("only once")
        return 1

    @task
    def middle(_: int) -> int:
        raise KeyError("always")

    @flow(retries=1)
    def main() -> Any:
        tries.append(1)
        return third.submit(middle.submit(opening.submit())).result()

    with pytest.raises(KeyError, match="always"):
        main()
    message = world.task_runs()["third-0"].message
    assert message == "Something upstream failed: third-0 ← middle-0"


def test_retries_after_a_crash_begin_with_fresh_budgets(runner: ScriptedRunner) -> None:
    """A new generation of a crashed task run may lose workers again."""
    flow = start(
        lambda: first.with_options(max_worker_losses=0).submit().result(), runner, retries=1
    )
    lost = runner.expect(1)[0]
    runner.start(lost)
    runner.lose(lost)
    again = runner.expect(2)[1]
    assert again.info.generation == 2
    assert not again.info.confirm_start
    runner.succeed(again, 5)
    assert flow.result() == 5


def test_crashed_is_told_apart(world: World, runner: ScriptedRunner) -> None:
    """The state of a crash is of its own type."""
    flow = start(lambda: first.with_options(max_worker_losses=0).submit(return_state=True), runner)
    lost = runner.expect(1)[0]
    runner.start(lost)
    runner.lose(lost)
    with pytest.raises(CrashedError):
        flow.result()
    (root,) = world.flow_runs()
    assert root.state_name == "Crashed"
