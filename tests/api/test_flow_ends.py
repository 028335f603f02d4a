"""How flow runs end: what a body returns or raises decides the final state, on every runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from dflow import flow, runs, states, task, unmapped
from dflow.errors import CancelledError, CrashedError, RunError
from dflow.ports import TaskRunner
from tests.api.conftest import RUNNERS
from tests.api.shared_flows import add, child, fail, numbers, seen, upto


def returned(runner: TaskRunner, body: Callable[[], Any]) -> tuple[str, str, Any]:
    """Return name and message of the final state, and the value, or what a call raises."""
    main = flow(task_runner=runner, name="main")(body)
    state: Any = main(return_state=True)
    root = seen().root
    assert (root.state_name, root.message) == (state.name, state.message)
    return state.name, state.message, state.result(raise_on_failure=False)


# What is returned -----------------------------------------------------------------------------------------

VALUES: dict[str, tuple[Callable[[], Any], str, Any]] = {
    "a value": (lambda: {"a": [1]}, "", {"a": [1]}),
    "nothing": (lambda: None, "", None),
    "a future": (lambda: add.submit(1), "", 2),
    "a list of futures": (lambda: [add.submit(1), add.submit(2)], "2 of 2 completed.", [2, 3]),
    "a tuple": (lambda: (add.submit(1), add.submit(2)), "2 of 2 completed.", (2, 3)),
    "a set": (lambda: {add.submit(1), add.submit(2)}, "2 of 2 completed.", {2, 3}),
    "a dict": (lambda: {"a": add.submit(1)}, "1 of 1 completed.", {"a": 2}),
    "a mixture": (
        lambda: {"a": [add.submit(1), 5], "b": (add(1, return_state=True), {"c": "text"})},
        "2 of 2 completed.",
        {"a": [2, 5], "b": (2, {"c": "text"})},
    ),
    "a map": (lambda: add.map([1, 2]), "2 of 2 completed.", [2, 3]),
    "a late map": (lambda: add.map(upto.submit(3), unmapped(0)), "3 of 3 completed.", [0, 1, 2]),
    "a map in a dict": (
        lambda: {"m": add.map([1]), "n": 1},
        "1 of 1 completed.",
        {"m": [2], "n": 1},
    ),
    "the state of a task": (lambda: add(1, return_state=True), "", 2),
    "the state of a subflow": (lambda: child(1, return_state=True), "", 2),
    "the items of a generator": (lambda: list(numbers(2)), "", [1, 2]),
    "Completed": (lambda: states.Completed(data=3, message="by hand"), "by hand", 3),
    "Completed without data": (lambda: states.Completed(message="by hand"), "by hand", None),
    "a list of states": (
        lambda: [states.Completed(data=1), states.Completed()],
        "2 of 2 completed.",
        [1, None],
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_what_is_returned_completes(runner: TaskRunner, kind: str) -> None:
    """Values as they are; futures and states have completed and give their values in their places."""
    body, message, value = VALUES[kind]
    assert returned(runner, body) == ("Completed", message, value)


FAILURES: dict[str, tuple[Callable[[], Any], str, str, type[Exception], str]] = {
    "a future": (lambda: fail.submit("a"), "Failed", "KeyError: 'a'", KeyError, "a"),
    "a future of what never ran": (
        lambda: add.submit(fail.submit("a")),
        "UpstreamFailed",
        "add-0 ← fail-0",
        KeyError,
        "a",
    ),
    "a list": (
        lambda: [add.submit(1), fail.submit("a"), fail.submit("b")],
        "Failed",
        "2/3 task runs failed.",
        KeyError,
        "a",
    ),
    "a tuple": (lambda: (fail.submit("a"),), "Failed", "1/1 task runs failed.", KeyError, "a"),
    "a dict": (
        lambda: {"x": 1, "a": fail.submit("a")},
        "Failed",
        "1/1 task runs failed.",
        KeyError,
        "a",
    ),
    "a mixture": (
        lambda: [1, {"a": (add.submit(1), fail.submit("a"))}, add(1, return_state=True)],
        "Failed",
        "1/3 task runs failed.",
        KeyError,
        "a",
    ),
    "a map": (lambda: fail.map(["a", "b"]), "Failed", "2/2 task runs failed.", KeyError, "a"),
    "a late map": (
        lambda: fail.map(upto.submit(2)),
        "Failed",
        "2/2 task runs failed.",
        KeyError,
        "0",
    ),
    "a state of a task": (
        lambda: fail("a", return_state=True),
        "Failed",
        "KeyError: 'a'",
        KeyError,
        "a",
    ),
    "a state of a subflow": (
        lambda: child(-1, return_state=True),
        "Failed",
        "ValueError: negative: -1",
        ValueError,
        "negative",
    ),
    "a cancelled one among failures": (
        lambda: [fail.submit("a"), states.Cancelled(message="c"), add.submit(1)],
        "Cancelled",
        "1/3 task runs were cancelled, 1/3 failed.",
        KeyError,
        "a",
    ),
    "Failed": (lambda: states.Failed(message="by hand"), "Failed", "by hand", RunError, "by hand"),
    "Failed with its exception": (
        lambda: states.Failed(data=ValueError("v"), message="by hand"),
        "Failed",
        "by hand",
        ValueError,
        "v",
    ),
    "TimedOut": (lambda: states.TimedOut(message="late"), "TimedOut", "late", RunError, "late"),
    "Crashed": (lambda: states.Crashed(message="c"), "Crashed", "c", CrashedError, "c"),
    "Cancelled": (lambda: states.Cancelled(message="c"), "Cancelled", "c", CancelledError, "c"),
    "not final": (
        states.Running,
        "Failed",
        "It returned a state that is not final: 'Running'.",
        RunError,
        "not final",
    ),
    "not final in a list": (
        lambda: [states.Paused(), 1],
        "Failed",
        "1/1 task runs failed.",
        RunError,
        "1/1 task runs failed",
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_what_is_returned_fails(runner: TaskRunner, kind: str) -> None:
    """A failure anywhere in what is returned is the flow's; the call raises the first."""
    body, name, message, error, text = FAILURES[kind]
    state, said, raised = returned(runner, body)
    assert (state, message in said) == (name, True), said
    assert isinstance(raised, error)
    assert text in str(raised)
    with pytest.raises(error, match=text):
        flow(task_runner=runner)(body)()


@pytest.mark.parametrize("runner", list(RUNNERS.values())[1:], ids=list(RUNNERS)[1:])
def test_a_cancelled_task_run_among_the_returned_cancels(runner: TaskRunner) -> None:
    """CANCELLED wins over FAILED, and the call raises the first of all."""

    @flow(task_runner=runner)
    def main(way: str) -> Any:
        waits = fail.with_options(retries=1, retry_delay_seconds=60).submit("later")
        waits.cancel()
        waits.wait()
        return [add.submit(1), waits] if way == "alone" else (waits, fail.submit("a"))

    if type(runner).__name__ == "InlineTaskRunner":
        pytest.skip("here a task run has ended, or waits in submit, before it can be cancelled")
    for way, message in (
        ("alone", "1/2 task runs were cancelled."),
        ("both", "1/2 task runs were cancelled, 1/2 failed."),
    ):
        state: Any = main(way, return_state=True)
        assert (state.name, state.type) == ("Cancelled", states.StateType.CANCELLED)
        assert message in state.message
        with pytest.raises(CancelledError):
            main(way)


def test_a_returned_failure_travels_to_the_parent(runner: TaskRunner) -> None:
    """A subflow that returns a failure raises it where it is called, and fails in the record."""

    @flow
    def sub() -> Any:
        return {"deep": [fail.submit("a")]}

    @flow(task_runner=runner)
    def main() -> Any:
        with pytest.raises(KeyError, match="a"):
            sub()
        return sub(return_state=True).message

    assert main() == "1/1 task runs failed."
    assert [run.state_name for run in seen().named("sub")] == ["Failed", "Failed"]


# What is raised -------------------------------------------------------------------------------------------

RAISED: dict[str, tuple[BaseException, str, type[BaseException]]] = {
    "an exception": (ValueError("no"), "Failed", ValueError),
    "of dflow": (CrashedError("gone"), "Crashed", CrashedError),
    "cancelled": (CancelledError("stop"), "Cancelled", CancelledError),
    "leaving": (SystemExit(3), "Failed", SystemExit),
    "a group": (ExceptionGroup("many", [ValueError("one")]), "Failed", ExceptionGroup),
    "a timeout of its own": (TimeoutError("slow"), "Failed", TimeoutError),
}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("kind", RAISED)
def test_what_is_raised_decides_the_state(runner: TaskRunner, kind: str, way: str) -> None:
    """FAILED, or CRASHED or CANCELLED by its kind; the very exception comes out of the call."""
    error, name, caught = RAISED[kind]

    def body() -> None:
        raise error

    async def async_body() -> None:
        raise error

    calls: dict[str, Callable[[], object]] = {
        "sync": flow(task_runner=runner)(body),
        "async": lambda: asyncio.run(flow(task_runner=runner)(async_body)()),
    }
    with pytest.raises(caught) as raised:
        calls[way]()
    assert raised.value is error
    assert seen().root.state_name == name


def test_a_body_that_raises_leaves_ten_thousand_behind(processes: TaskRunner) -> None:
    """Of ten thousand nothing new begins: it ends within seconds, and all have their state."""

    @task
    def long(x: int) -> int:
        time.sleep(0.01)
        return x

    @flow(task_runner=processes)
    def main() -> None:
        long.map(range(10_000))
        raise RuntimeError("the body")

    begun = time.perf_counter()
    with pytest.raises(RuntimeError, match="the body"):
        main()
    assert time.perf_counter() - begun < 30
    with runs.opened(runs.find("latest")) as reader:  # without a look at the invariants of so many
        ends = [run.state_name for run in reader.task_runs()]
    assert (len(ends), set(ends) | {"Completed"}) == (10_000, {"Completed", "Cancelled"})
    assert runs.find("latest").state_name == "Failed"


def test_what_nobody_awaits_is_waited_for(runner: TaskRunner) -> None:
    """Also what it submits in turn; its failures are told, and do not make the flow fail."""
    ran: list[Any] = []

    @task
    def submits() -> None:
        fail.submit("inner")
        add.submit(1)

    @flow(task_runner=runner)
    def main() -> str:
        submits.submit()
        fail.submit("outer")
        ran.append(add.submit(5))
        return "fine"

    assert main() == "fine"
    assert seen().root.state_name == "Completed"
    assert seen().states() == [
        ("add-0", "Completed"),
        ("add-0", "Completed"),
        ("fail-0", "Failed"),
        ("fail-0", "Failed"),
        ("submits-0", "Completed"),
    ]


def test_failures_that_nobody_asks_for_are_logged(
    runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Each with its task run and its exception, before the flow's end."""
    flow(task_runner=runner)(lambda: (fail.submit("unseen"), "fine")[1])()
    told = [each.getMessage() for each in caplog.records]
    mine = [line for line in told if "fail-0" in line]
    assert mine
    assert "KeyError: 'unseen'" in mine[0]
    assert told.index(mine[0]) < len(told) - 1
