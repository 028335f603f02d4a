"""States: what they tell, those that are made by hand, and what tasks that return them become."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import dflow
from dflow import State, flow, runs, states, task, wait
from dflow.core.records import Ending, Stage
from dflow.errors import (
    CancelledError,
    CrashedError,
    DefinitionError,
    MissingResult,
    TaskFailedError,
)
from dflow.ports import TaskRunner
from dflow.states import StateType
from tests.api.test_flows_and_tasks import record
from tests.api.test_tasks import latest

FINAL: dict[str, tuple[Callable[..., State], StateType]] = {
    "Completed": (states.Completed, StateType.COMPLETED),
    "Cached": (states.Cached, StateType.COMPLETED),
    "Failed": (states.Failed, StateType.FAILED),
    "TimedOut": (states.TimedOut, StateType.FAILED),
    "UpstreamFailed": (states.UpstreamFailed, StateType.FAILED),
    "Crashed": (states.Crashed, StateType.CRASHED),
    "Cancelled": (states.Cancelled, StateType.CANCELLED),
}
OPEN: dict[str, tuple[Callable[..., State], StateType]] = {
    "Pending": (states.Pending, StateType.PENDING),
    "Running": (states.Running, StateType.RUNNING),
    "Cancelling": (states.Cancelling, StateType.CANCELLING),
    "Scheduled": (states.Scheduled, StateType.SCHEDULED),
    "Retrying": (states.Retrying, StateType.SCHEDULED),
    "AwaitingRetry": (states.AwaitingRetry, StateType.SCHEDULED),
    "Paused": (states.Paused, StateType.PAUSED),
}


@pytest.mark.parametrize("name", [*FINAL, *OPEN])
def test_every_state_can_be_made_by_hand(name: str) -> None:
    """Its type goes with its name, and of the ``is_…`` just that of its type is true."""
    make, kind = (FINAL | OPEN)[name]
    state = make(message="so it is")
    assert (state.type, state.name, state.message) == (kind, name, "so it is")
    assert state.timestamp is None
    told = {each.value: getattr(state, f"is_{each.value.lower()}")() for each in StateType}
    assert [each for each, said in told.items() if said] == [kind.value]
    assert state.is_final() is (name in FINAL)


@pytest.mark.parametrize("name", [*FINAL, *OPEN])
def test_results_of_states_made_by_hand(name: str) -> None:
    """Completed ones give their data, others raise their exception or one of their kind."""
    make = (FINAL | OPEN)[name][0]
    if name in OPEN:
        for ask in (make().result, lambda: asyncio.run(make().aresult())):
            with pytest.raises(MissingResult, match=f"A state '{name}' has no result"):
                ask()
        return
    if make().is_completed():
        assert make(data=[1]).result() == asyncio.run(make(data=[1]).aresult()) == [1]
        return
    error = KeyError("k")
    with pytest.raises(KeyError):
        make(data=error).result()
    with pytest.raises(KeyError):
        asyncio.run(make(data=error).aresult())
    assert make(data=error).result(raise_on_failure=False) is error
    kinds: dict[str, Any] = {"Crashed": CrashedError, "Cancelled": CancelledError}
    assert type(make(message="m").result(raise_on_failure=False)) is kinds.get(
        name, TaskFailedError
    )


def test_states_of_task_runs(runner: TaskRunner) -> None:
    """Type, name, message, time and result are those of the record, sync and async."""

    @flow(task_runner=runner)
    def main() -> None:
        before = datetime.now(UTC)
        good, bad = done.submit(5), fails.submit()
        wait([good, bad])
        check(before, good.state, bad.state)

    main()


def check(before: datetime, completed: State, failed: State) -> None:
    """Look at a state of each kind."""
    assert (completed.type, completed.name) == (StateType.COMPLETED, "Completed")
    assert completed.result() == asyncio.run(completed.aresult()) == 5
    assert (failed.type, failed.name) == (StateType.FAILED, "Failed")
    assert "KeyError" in failed.message
    for state in (completed, failed):
        assert state.timestamp is not None
        assert before <= state.timestamp <= datetime.now(UTC)
        assert state.timestamp.tzinfo is UTC
    for ask in (failed.result, lambda: asyncio.run(failed.aresult())):
        with pytest.raises(KeyError, match="no"):
            ask()
    assert isinstance(asyncio.run(failed.aresult(raise_on_failure=False)), KeyError)


def test_a_state_that_outlives_its_flow(runner: TaskRunner) -> None:
    """It tells what it told; a small value is read from the record."""
    kept: list[Any] = []

    @flow(task_runner=runner)
    def main() -> None:
        kept.append(done.submit(5, return_state=True))

    main()
    assert kept[0].is_completed()
    assert kept[0].result() == 5


@task
def done(x: Any) -> Any:
    """Return it."""
    return x


@task
def fails() -> None:
    """Raise."""
    raise KeyError("no")


# Returned by hand --------------------------------------------------------------------------------------


@task(retries=2)
def returns(name: str, message: str, data: Any) -> State:
    """Return a state."""
    return FINAL[name][0](message=message, data=data)


@task(retries=2)
def not_final() -> State:
    """Return a state that is not an end."""
    return states.Running(message="epoch 3")


@task
async def returns_async(name: str) -> State:
    """Return a state, on a loop."""
    return FINAL[name][0](message="async")


@task
def asks(name: str) -> list[str]:
    """Ask for one from a task, in both ways."""
    return [
        returns.submit(name, "m", None, return_state=True).name,
        returns(name, "m", None, return_state=True).name,
    ]


def test_a_task_may_return_a_completed_state(runner: TaskRunner) -> None:
    """Its data is the value, its message that of the run, called and submitted."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        called: Any = returns("Completed", "all rows", [1])
        future: Any = returns.submit("Completed", "most rows", [2])
        assert future.result() == [2]
        assert (future.state.name, future.state.message) == ("Completed", "most rows")
        return [called, done.submit(future).result()]

    assert main() == [[1], [2]]
    found, _ = record()
    assert [found["returns-0"].message, found["returns-1"].message] == ["all rows", "most rows"]


def test_a_message_is_text(runner: TaskRunner) -> None:
    """One that is none, or no text, is recorded as text, and can be read again."""

    @flow(task_runner=runner)
    def main() -> Any:
        returns.submit("Completed", None, 1).wait()
        returns.submit("Failed", 5, None).wait()
        return states.Completed(message=6)  # type: ignore[arg-type]  # that is what is tested

    main()
    found, _ = record()
    assert [found["returns-0"].message, found["returns-1"].message] == ["", "5"]
    with runs.opened(runs.find("latest")) as reader:
        assert [run.message for run in reader.flow_runs()] == ["6"]


@pytest.mark.parametrize("name", ["Failed", "Crashed", "Cancelled"])
def test_a_task_may_return_another_final_state(runner: TaskRunner, name: str) -> None:
    """The run ends so, at once, whatever retries are left; its one attempt has ended `returned`."""
    kinds: dict[str, Any] = {"Crashed": CrashedError, "Cancelled": CancelledError}

    @flow(task_runner=runner)
    def main() -> list[Any]:
        future = returns.submit(name, "too few rows", None)
        future.wait()
        with pytest.raises(kinds.get(name, TaskFailedError), match="too few rows") as caught:
            future.result()
        assert type(caught.value) is kinds.get(name, TaskFailedError)
        with pytest.raises(kinds.get(name, TaskFailedError), match="too few rows"):
            returns(name, "too few rows", None)
        never = done.submit(future, return_state=True)
        waited = [returns_async.submit(name, return_state=True).name, asks.submit(name).result()]
        return [future.state.name, future.state.message, never.name, *waited]

    assert main() == [name, "too few rows", "UpstreamFailed", name, [name, name]]
    record()
    for run in [run for run in latest() if run.task_name == "returns"][:2]:
        assert (run.stage, run.message) == (Stage(name.lower()), "too few rows")
        assert [attempt.ending for attempt in run.attempts] == [Ending.RETURNED]


def test_an_exception_as_data_is_what_is_raised(runner: TaskRunner) -> None:
    """A Failed with an exception in it fails with that, and with its own message."""

    @flow(task_runner=runner)
    def main() -> str:
        future = returns.submit("Failed", "bad rows", ValueError("row 7"))
        with pytest.raises(ValueError, match="row 7"):
            future.result()
        with pytest.raises(ValueError, match="row 8"):
            returns("Failed", "bad rows", ValueError("row 8"))
        return future.state.message

    assert main() == "bad rows"
    found, _ = record()
    error = found["returns-0"].error
    assert error is not None
    assert (error.type_name, error.text) == ("ValueError", "row 7")


def test_a_state_that_is_not_final_is_an_error(runner: TaskRunner) -> None:
    """It is not tried again, and the error names the state."""

    @flow(task_runner=runner)
    def main() -> None:
        for ask in (not_final, lambda: not_final.submit().result()):
            with pytest.raises(DefinitionError, match="not final: 'Running'"):
                ask()

    main()
    found, _ = record()
    assert [len(run.attempts) for run in found.values()] == [1, 1]
    assert {run.stage for run in found.values()} == {Stage.FAILED}


def test_the_names_are_those_of_the_package() -> None:
    """`dflow.State` is the one that the makers make, and every name has its type."""
    assert dflow.State is states.State
    assert isinstance(states.Completed(), dflow.State)
    assert {kind.value for kind in StateType} == {
        "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLING",
        "CANCELLED", "PAUSED",
    }  # fmt: skip
