"""What a user may say in a call, and what a flow returns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dflow import State, StateType, flow, get_run_logger, task
from dflow.errors import CancelledError, MissingResult, ParameterError, UpstreamFailedError
from dflow.flows import Flow
from dflow.testing import ScriptedRunner
from tests.engine.world import World, scripted, start

pytestmark = pytest.mark.usefixtures("world")


@task
def step(x: Any = 0) -> Any:
    """Return what came."""
    return x


@task
def failing(x: Any = 0) -> Any:
    """Fail."""
    raise ValueError(f"bad {x}")


@dataclass
class Box:
    """Holds something."""

    content: Any


# wait_for, return_state, parameters ------------------------------------------------------------------


def test_wait_for_waits_without_the_value(world: World, runner: ScriptedRunner) -> None:
    """The task run goes when the other has completed; its value is not sent along."""
    flow = start(lambda: step.submit(5, wait_for=[step.submit(1)]).result(), runner)
    first = runner.expect(1)[0]
    world.settle()
    assert len(runner.works) == 1
    runner.succeed(first, b"large", kept=False)
    second = runner.expect(2)[1]
    assert second.inputs == {}
    runner.succeed(second, 5)
    assert flow.result() == 5


def test_wait_for_takes_futures_in_any_form() -> None:
    """One future, a list, a map, a nest; anything else is refused by name."""

    @flow
    def main() -> None:
        one, many = step.submit(1), step.map([2, 3])
        for given in (one, [one], many, [one, [many]], {"a": one}, None, []):
            assert step.submit(1, wait_for=given).result() == 1
            assert step(1, wait_for=given) == 1
        with pytest.raises(ParameterError, match=r"wait_for= takes futures .* not \[5\]"):
            step.submit(1, wait_for=[5])

    main()


def test_a_direct_call_waits_for_its_futures() -> None:
    """A call in this thread takes futures as a submit does, and fails with what failed."""

    @flow
    def main() -> None:
        assert step([step.submit(1), {"a": step.submit(2)}]) == [1, {"a": 2}]
        with pytest.raises(ValueError, match="bad"):
            step(failing.submit())

    main()


def test_return_state_gives_the_state() -> None:
    """Of a call, a submit, a map and a flow: final, with the value or the failure in it."""

    @flow
    def main() -> None:
        for state in (step(1, return_state=True), step.submit(1, return_state=True)):
            assert state.is_completed()
            assert state.result() == 1
        for state in (failing(return_state=True), failing.submit(return_state=True)):
            assert state.is_failed()
            assert state.message == "ValueError: bad 0"
            with pytest.raises(ValueError, match="bad"):
                state.result()
            assert isinstance(state.result(raise_on_failure=False), ValueError)

    main()
    assert main(return_state=True).is_completed()


@pytest.mark.parametrize("call", [step, step.submit, flow(lambda x: x), step.map])
def test_arguments_that_do_not_fit_are_named(call: Callable[..., Any]) -> None:
    """The error is a TypeError too, names function and argument, and nothing has run."""
    for args, kwargs in (((1, 2, 3), {}), ((), {"wrong": [1]})):
        with pytest.raises(ParameterError, match=r"cannot be called like this.*parameters are \(x"):
            call(*args, **kwargs)
    with pytest.raises(TypeError):
        call(wrong=1)


def test_mutable_arguments_are_the_callers_own() -> None:
    """In this process a task gets the very object, as a plain call would."""
    value = [1]
    assert flow(lambda: step(value) is value)()


def test_a_callable_object_may_be_a_task() -> None:
    """What has no name of its own is named by its class, also in errors."""

    class Scaler:
        def __call__(self, x: int) -> int:
            return 3 * x

    scale = task(Scaler())
    assert scale.name == "Scaler"
    assert flow(lambda: scale.submit(scale(1)).result())() == 9
    with pytest.raises(ParameterError, match="'Scaler' cannot be called"):
        scale(y=1)  # type: ignore[call-overload]


# What a flow returns ---------------------------------------------------------------------------------

RETURNED: dict[str, tuple[Callable[[], Any], str, Any]] = {
    "value": (lambda: {"a": [1]}, "Completed", {"a": [1]}),
    "nothing": (lambda: (step.submit(1), None)[1], "Completed", None),
    "unwatched failure": (lambda: (failing.submit(), "fine")[1], "Completed", "fine"),
    "future": (lambda: step.submit(1), "Completed", 1),
    "failed future": (failing.submit, "Failed", ValueError),
    "map": (lambda: step.map([1, 2]), "Completed", [1, 2]),
    "tuple": (lambda: (step.submit(1), step.submit(2)), "Completed", (1, 2)),
    "mixed": (lambda: {"a": step.submit(1), "b": [2, step.submit(3)]}, "Completed", {"a": 1, "b": [2, 3]}),
    "failure in a mix": (lambda: {"a": 1, "b": [Box(failing.submit())]}, "Failed", ValueError),
    "dataclass": (lambda: Box(step.submit(1)), "Completed", Box(1)),
    "state": (lambda: step.submit(1, return_state=True), "Completed", 1),
    "failed state": (lambda: failing.submit(return_state=True), "Failed", ValueError),
    "states": (lambda: [step.submit(1).state, step.submit(2)], "Completed", [1, 2]),
    "upstream failure": (lambda: step.submit(failing.submit()), "UpstreamFailed", ValueError),
    "hand-made failure": (lambda: State(StateType.FAILED, "Failed", "by hand"), "Failed", Exception),
    "hand-made cancel": (lambda: State(StateType.CANCELLED, "Cancelled"), "Cancelled", CancelledError),
    "name of its own": (lambda: State(StateType.FAILED, "Rejected", "no"), "Failed", Exception),
    "not final": (lambda: State(StateType.RUNNING, "Running"), "Failed", Exception),
    "not final in a list": (lambda: [State(StateType.PENDING, "Pending")], "Failed", Exception),
    "success without a value": (lambda: State(StateType.COMPLETED, "Completed"), "Failed", MissingResult),
}  # fmt: skip


@pytest.mark.parametrize("kind", RETURNED)
def test_what_a_flow_returns_decides_how_it_ends(world: World, kind: str) -> None:
    """The state is recorded, the call gives values or raises, and a failure is never shown as success."""
    body, state_name, expected = RETURNED[kind]
    main = flow(body)
    if isinstance(expected, type):
        with pytest.raises(expected):
            main()
    else:
        assert main() == expected
    (root,) = world.flow_runs()
    expected_name = "Failed" if state_name == "UpstreamFailed" else state_name
    assert root.state_name in (state_name, expected_name)
    assert world.journal.catalog.find("latest").state_name == root.state_name


def test_the_end_counts_what_failed(world: World) -> None:
    """The message says how many of how many; one that was cancelled makes the flow cancelled."""
    with pytest.raises(ValueError, match="bad 1"):
        flow(lambda: [step.submit(1), *failing.map([1, 2])])()
    assert world.flow_runs()[0].message == "2/3 task runs failed."


def test_the_first_failure_in_order_is_raised() -> None:
    """Of several the one that stands first in what was returned."""
    with pytest.raises(ValueError, match="bad 2"):
        flow(lambda: {"a": failing.submit(2), "b": failing.submit(1)})()


def test_an_upstream_failure_returned_in_words(runner: ScriptedRunner) -> None:
    """Where there is no exception, the flow's failure says what ended how."""

    def main() -> Any:
        return step.submit(step.with_options(max_worker_losses=0).submit())

    flow = start(main, runner)
    lost = runner.expect(1)[0]
    runner.start(lost)
    runner.lose(lost)
    with pytest.raises(UpstreamFailedError):
        flow.result()


def test_work_that_nobody_waited_for_is_waited_for(world: World, runner: ScriptedRunner) -> None:
    """A flow does not end before what it has submitted, and what that has submitted."""
    flow = start(lambda: (step.submit(step.submit(1)), "value")[1], runner)
    first = runner.expect(1)[0]
    world.settle()
    assert not flow.done()
    runner.succeed(first, 1)
    runner.succeed(runner.expect(2)[1], 2)
    assert flow.result() == "value"


# log_prints and options ------------------------------------------------------------------------------


@task
def printing(x: str = "task") -> None:
    """Print."""
    print(f"from the {x}")


def prints(**options: Any) -> Flow[[], None]:
    """Return a flow that prints, and calls a task that does."""

    @flow(**options)
    def main() -> None:
        print("from the flow")
        printing()
        printing.submit().wait()

    return main


@pytest.mark.parametrize("flows", [True, False, None])
@pytest.mark.parametrize("tasks", [True, False, None])
def test_log_prints_is_the_flows_unless_the_task_says(
    world: World, flows: bool | None, tasks: bool | None
) -> None:
    """What a task leaves open is as in its flow."""

    @flow(log_prints=flows)
    def main() -> None:
        print("from the flow")
        printing.with_options(log_prints=tasks)()

    main()
    expected = ["from the flow"] * bool(flows)
    expected += ["from the task"] * bool(flows if tasks is None else tasks)
    assert world.lines() == expected


def test_log_prints_goes_down_through_subflows(world: World) -> None:
    """A subflow that leaves it open does as its caller, and so do its tasks; it may say otherwise."""
    inner, silent = prints(), prints(log_prints=False)

    @flow(log_prints=True)
    def main() -> None:
        inner()
        silent()

    main()
    assert world.lines() == ["from the flow", "from the task", "from the task"]


def test_lines_of_runs_are_recorded_and_shown(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """With their run, attempt and level, in the journal and then in the driver's log."""
    tries: list[int] = []

    @task(retries=1)
    def logging_task() -> None:
        get_run_logger().warning("careful")
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("again")

    @flow
    def main() -> None:
        get_run_logger().info("begin")
        logging_task()

    with caplog.at_level(logging.INFO, "dflow"):
        main()
    assert world.lines() == ["begin", "careful", "careful"]
    shown = [record.message for record in caplog.records]
    assert "INFO    test-run-1 | begin" in shown
    assert "WARNING logging_task-0 | careful" in shown
    assert "WARNING logging_task-0 (attempt 2) | careful" in shown
    assert shown[-1] == "COMPLETED test-run-1 | flow 'main'."


def test_a_future_of_a_cancelled_run_says_so(world: World) -> None:
    """A state keeps its meaning after the flow: it can be asked when all is over."""
    runner, kept = ScriptedRunner(), list[State]()

    def main() -> None:
        future = step.submit()
        try:
            raise ValueError("stop")
        finally:
            kept.append(future.state)

    with pytest.raises(ValueError, match="stop"):
        scripted(main, runner)()
    assert kept[0].is_pending()
    assert world.states() == {"step-0": "Cancelled"}
