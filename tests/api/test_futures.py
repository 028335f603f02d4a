"""Futures: what they tell of a task run, how they are waited for and cancelled, on every runner."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from dflow import TaskFuture, as_completed, flow, task, wait
from dflow.core.records import Ending, Stage
from dflow.errors import (
    CancelledError,
    TaskFailedError,
    TimedOutError,
    UpstreamFailedError,
    WaitTimeout,
)
from dflow.ports import TaskRunner
from tests.api.test_arguments_and_maps import Locked
from tests.api.test_flows_and_tasks import record
from tests.api.test_tasks import latest
from tests.runners.hosts import patiently

AWAY = ["threads", "dask in this process", "dask processes"]
"""The runners whose bodies run while the flow goes on."""


@task
def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


@task
def fail(text: str) -> None:
    """Raise."""
    raise KeyError(text)


@task
def hold(folder: str, value: int = 0) -> int:
    """Say that it runs, and run until it is told to go."""
    (Path(folder) / f"held-{value}").touch()
    patiently((Path(folder) / "go").exists, "the word to go")
    return value


@task
def raises_timeout() -> None:
    """Raise a TimeoutError of its own."""
    raise TimeoutError("the service did not answer")


def held(folder: Path, value: int = 0) -> None:
    """Wait until a body runs."""
    patiently((folder / f"held-{value}").exists, "the body")


def test_a_future_tells_of_its_run(runner: TaskRunner) -> None:
    """Its id, name, state and value are those of the record."""

    @flow(task_runner=runner)
    def main() -> str:
        future = add.submit(1)
        assert isinstance(future, TaskFuture)
        assert future.wait() is None  # type: ignore[func-returns-value]  # that it is so
        assert future.done()
        assert (future.name, future.state.name, future.result()) == ("add-0", "Completed", 2)
        assert "add-0" in repr(future)
        return future.task_run_id

    run_id = main()
    assert [run.id for run in latest()] == [run_id]


@pytest.mark.parametrize("runner", AWAY, indirect=True)
def test_a_wait_that_takes_too_long(runner: TaskRunner, tmp_path: Path) -> None:
    """`wait` returns and `result` raises WaitTimeout, a TimeoutError; the task run goes on."""

    @flow(task_runner=runner)
    def main() -> int:
        future = hold.submit(str(tmp_path), 7)
        future.wait(0.01)
        assert not future.done()
        assert not future.state.is_final()
        with pytest.raises(WaitTimeout, match="'hold-0' has not ended within"):
            future.result(timeout=0.01)
        with pytest.raises(TimeoutError):
            asyncio.run(future.aresult(timeout=0.01))
        _, not_done = wait([future, add.submit(1)], timeout=0.01)
        assert future in not_done
        with pytest.raises(WaitTimeout, match="1 of 1 task runs"):
            list(as_completed([future], timeout=0.01))
        (tmp_path / "go").touch()
        return future.result(timeout=60)

    assert main() == 7


def test_timeouts_are_told_apart(runner: TaskRunner) -> None:
    """A task's own TimeoutError, an attempt that took too long, and a wait that did."""

    @flow(task_runner=runner)
    def main() -> None:
        with pytest.raises(TimeoutError, match="did not answer") as own:
            raises_timeout.submit().result(timeout=60)
        assert type(own.value) is TimeoutError
        with pytest.raises(TimedOutError) as timed:
            waits.submit().result(timeout=60)
        assert isinstance(timed.value, TimeoutError)
        assert not isinstance(timed.value, WaitTimeout)

    main()


@task(timeout_seconds=0.05)
def waits() -> None:
    """Wait for what never comes."""
    while True:
        threading.Event().wait(0.01)


def test_waiting_never_raises_and_results_do(runner: TaskRunner) -> None:
    """`wait` is silent about failures; `result` raises, or returns the exception where that is asked."""

    @flow(task_runner=runner)
    def main() -> None:
        future = fail.submit("k")
        future.wait()
        wait([future])
        assert future.state.is_failed()
        with pytest.raises(KeyError, match="k"):
            future.result()
        assert repr(future.result(raise_on_failure=False)) == "KeyError('k')"
        with pytest.raises(KeyError, match="k"):
            future.state.result()
        assert repr(asyncio.run(future.aresult(raise_on_failure=False))) == "KeyError('k')"

    main()


def test_the_exception_is_the_one_that_was_raised(runner: TaskRunner) -> None:
    """Its type, arguments and attributes; the traceback of where it was raised goes with it."""

    @flow(task_runner=runner)
    def main() -> None:
        with pytest.raises(OwnError) as caught:
            raises_own.submit(5).result()
        error = caught.value
        assert (error.args, error.code, error.__notes__) == (("row 5",), 5, ["a note"])
        text = "".join(traceback.format_exception(error))
        assert "in raises_own" in text
        assert "in deeper" in text
        assert "OwnError: row 5" in text

    main()


class OwnError(Exception):
    """An error of the user's."""

    code = 0


def deeper(row: int) -> None:
    """Raise."""
    error = OwnError(f"row {row}")
    error.code = row
    error.add_note("a note")
    raise error


@task
def raises_own(row: int) -> None:
    """Raise, deeper."""
    deeper(row)


@task
def raises_locked() -> None:
    """Raise what cannot be pickled."""
    raise Locked("a lock in it")


def test_the_traceback_of_the_worker_is_the_cause(processes: TaskRunner) -> None:
    """It shows the user's lines, and none of what called the body."""

    @flow(task_runner=processes)
    def main() -> str:
        with pytest.raises(OwnError) as caught:
            raises_own.submit(5).result()
        return str(caught.value.__cause__)

    cause = main()
    assert "in deeper" in cause
    assert "attempts" not in cause


def test_an_exception_that_cannot_be_rebuilt(processes: TaskRunner) -> None:
    """A TaskFailedError stands for it, with its type, its text and its traceback."""

    @flow(task_runner=processes)
    def main() -> None:
        with pytest.raises(TaskFailedError, match="'raises_locked-0' raised") as caught:
            raises_locked.submit().result()
        error = caught.value
        assert error.type_name.endswith("Locked")
        assert error.text == "a lock in it"
        assert "in raises_locked" in error.traceback

    main()


def test_callbacks_are_called_once(runner: TaskRunner, tmp_path: Path) -> None:
    """With the future, whether they were added before or after its end."""
    called: list[Any] = []
    enough = threading.Semaphore(0)

    def note(future: TaskFuture[int]) -> None:
        called.append((future.name, future.result()))
        enough.release()

    @flow(task_runner=runner)
    def main() -> None:
        (tmp_path / "go").touch()
        future = hold.submit(str(tmp_path), 3)
        future.add_done_callback(note)
        future.wait()
        future.add_done_callback(note)
        assert enough.acquire(timeout=60)
        assert enough.acquire(timeout=60)

    main()
    assert called == [("hold-0", 3)] * 2


@pytest.mark.parametrize("runner", AWAY, indirect=True)
def test_futures_come_in_order_of_completion(runner: TaskRunner, tmp_path: Path) -> None:
    """The earliest first, also where it was submitted last."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        late, soon = hold.submit(str(tmp_path)), add.submit(1)
        names = []
        for future in as_completed([late, soon], timeout=60):
            names.append(future.name)
            (tmp_path / "go").touch()
        return names

    assert main() == ["add-0", "hold-0"]


@task
def unloads(path: str) -> Any:
    """Return something large, and something that tells when it is loaded."""
    return [bytes(200_000), Tells(path)]


class Tells:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        """Say that this was loaded, in which process."""
        return loaded, (self.path,)


def loaded(path: str) -> Tells:
    """Leave a file of this process."""
    (Path(path) / f"loaded-{os.getpid()}").touch()
    return Tells(path)


def test_no_value_is_pulled_to_learn_a_state(processes: TaskRunner, tmp_path: Path) -> None:
    """Waiting, asking and iterating load nothing in the driver; `result` does."""
    mine = tmp_path / f"loaded-{os.getpid()}"

    @flow(task_runner=processes)
    def main() -> None:
        future = unloads.submit(str(tmp_path))
        future.wait()
        wait([future])
        assert [each.done() for each in as_completed([future])] == [True]
        assert future.state.is_completed()
        assert not mine.exists()
        future.result()
        assert mine.exists()

    main()


# Cancelling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", AWAY, indirect=True)
def test_what_waits_is_cancelled_at_once(runner: TaskRunner, tmp_path: Path) -> None:
    """And so is what hangs on it; what runs is not disturbed."""

    @flow(task_runner=runner)
    def main() -> None:
        running = hold.submit(str(tmp_path))
        held(tmp_path)
        waiting = add.submit(running)
        dependent = add.submit(waiting)
        waiting.cancel()
        wait([waiting, dependent], timeout=60)
        assert not running.done()
        assert waiting.state.name == "Cancelled"
        assert dependent.state.name == "UpstreamFailed"
        with pytest.raises(CancelledError):
            waiting.result()
        with pytest.raises(UpstreamFailedError, match="add-1 ← add-0"):
            dependent.result()
        (tmp_path / "go").touch()
        assert running.result() == 0

    main()
    runs = {run.name: run for run in latest()}
    assert runs["add-0"].attempts == runs["add-1"].attempts == ()


@pytest.mark.parametrize("runner", AWAY, indirect=True)
def test_what_runs_is_cancelled_after_the_grace(
    runner: TaskRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body is Cancelling until it ends or the grace is over; what it returns is not heard any more."""
    monkeypatch.setenv("DFLOW_STOP_GRACE", "0.2")

    @flow(task_runner=runner)
    def main() -> None:
        running = hold.submit(str(tmp_path))
        held(tmp_path)
        dependent = add.submit(running)
        running.cancel()
        patiently(lambda: running.state.name in ("Cancelling", "Cancelled"), "the request")
        with pytest.raises(CancelledError):
            running.result(timeout=60)
        (tmp_path / "go").touch()
        dependent.wait()
        assert running.state.name == "Cancelled"
        running.cancel()
        assert running.state.name == "Cancelled"
        assert add.submit(1).result(timeout=60) == 2

    main()
    found, _ = record()
    assert found["hold-0"].stage is Stage.CANCELLED
    assert len(found["hold-0"].attempts) == 1
    assert found["add-0"].attempts == ()


def test_cancelling_what_has_ended_changes_nothing(runner: TaskRunner) -> None:
    """Its state and its value stay."""

    @flow(task_runner=runner)
    def main() -> tuple[str, int]:
        future = add.submit(1)
        future.wait()
        future.cancel()
        return future.state.name, future.result()

    assert main() == ("Completed", 2)


# Upstreams that fail -----------------------------------------------------------------------------------


@task(retries=3)
def never(upstream: Any, path: str) -> None:
    """Leave a file: it must not be there."""
    Path(path).write_text(str(upstream), encoding="utf-8")


def test_upstream_failures_are_final(runner: TaskRunner, tmp_path: Path) -> None:
    """What depends on a failure, an argument deep inside included, never runs and is never retried."""
    marker = tmp_path / "ran"

    @flow(task_runner=runner)
    def main() -> None:
        first = never.submit([{"a": fail.submit("root")}], str(marker))
        second = never.submit(0, str(marker), wait_for=[first])
        wait([first, second])
        for future in (first, second):
            assert future.state.name == "UpstreamFailed"
            assert future.state.is_failed()
            assert future.state.is_final()
            with pytest.raises(KeyError, match="root") as caught:
                future.result()
            assert any("← fail-0" in note for note in caught.value.__notes__)

    main()
    found, _ = record()
    assert not marker.exists()
    assert "never-1 ← never-0 ← fail-0" in found["never-1"].message
    assert found["never-0"].attempts == found["never-1"].attempts == ()
    assert [a.ending for a in found["fail-0"].attempts] == [Ending.RAISED]
