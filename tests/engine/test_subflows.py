"""Flows in flows: one journal, one session, states of their own."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dflow import State, flow, task
from dflow.errors import NoRunError
from dflow.testing import ScriptedRunner
from tests.engine.world import World, scripted, start

pytestmark = pytest.mark.usefixtures("world")

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    """Forget what ran before."""
    RAN.clear()


@task
def step(x: Any) -> Any:
    """Note that it ran."""
    RAN.append(x)
    return x


@flow
def inner(x: Any) -> Any:
    """Run a step."""
    RAN.append(("inner", x))
    return step(x)


def test_a_subflow_is_a_child_in_the_same_journal(world: World) -> None:
    """It has a run of its own under its caller's, and its task runs belong to it."""

    @flow(name="outer")
    def main() -> int:
        return inner(1) + inner(2)  # type: ignore[no-any-return]

    assert main() == 3
    assert len(world.journal.catalog.list()) == 1
    root, one, two = world.flow_runs()
    assert [run.flow_name for run in (root, one, two)] == ["outer", "inner", "inner"]
    assert {one.parent_id, two.parent_id, one.root_id} == {root.id}
    assert {run.flow_run_id for run in world.reader().task_runs()} == {one.id, two.id}


def test_futures_go_into_and_out_of_subflows() -> None:
    """Arguments that are futures are waited for; what a subflow returns are values."""

    @flow
    def doubled(values: list[Any]) -> Any:
        return [step.submit(2 * value) for value in values]

    @flow
    def main() -> Any:
        return doubled([step.submit(1), step.submit(2)], wait_for=[step.submit(3)])  # type: ignore[call-arg]

    assert main() == [2, 4]


def test_a_failed_subflow_raises_and_has_failed(world: World) -> None:
    """Its caller may catch it and complete; what had not started in it is cancelled, not elsewhere."""
    runner = ScriptedRunner()

    @flow
    def broken() -> None:
        step.submit("in the subflow")
        raise ValueError("broken")

    def main() -> str:
        mine = step.submit("mine")
        state: State = broken(return_state=True)  # type: ignore[call-arg,assignment]
        assert state.is_failed()
        with pytest.raises(ValueError, match="broken"):
            state.result()
        runner.succeed(next(w for w in runner.expect(2) if w.call.kwargs["x"] == "mine"), "ok")
        return mine.result()  # type: ignore[no-any-return]

    assert scripted(main, runner)() == "ok"
    assert [run.state_name for run in world.flow_runs()] == ["Completed", "Failed"]
    states = {r.state_name: r.flow_run_id for r in world.reader().task_runs()}
    assert states == {"Completed": world.flow_runs()[0].id, "Cancelled": world.flow_runs()[1].id}


def test_a_subflow_that_completed_is_not_run_again(world: World) -> None:
    """After a resume, and in a retry of its caller, its value is there at once."""

    @flow(retries=1)
    def main() -> Any:
        value = inner(1)
        RAN.append("main")
        if RAN.count("main") == 1:
            raise ValueError("retry me")
        if RAN.count("main") == 2:
            raise KeyboardInterrupt
        return value + inner(2)

    with pytest.raises(KeyboardInterrupt):
        main()
    assert main.resume("latest") == 3
    assert RAN.count(("inner", 1)) == 1
    assert [run.generation for run in world.flow_runs()] == [3, 1, 1]


def test_an_interrupted_subflow_goes_on(world: World) -> None:
    """Its body runs again, its finished task runs do not."""

    @flow
    def stopping() -> Any:
        value = step(1)
        RAN.append("stopping")
        if RAN.count("stopping") == 1:
            raise KeyboardInterrupt
        return value

    @flow
    def main() -> Any:
        return stopping()

    with pytest.raises(KeyboardInterrupt):
        main()
    assert [run.state_name for run in world.flow_runs()] == ["Interrupted", "Interrupted"]
    assert main.resume("latest") == 1
    assert RAN == [1, "stopping", "stopping"]
    assert [run.state_name for run in world.flow_runs()] == ["Completed", "Completed"]


def test_a_subflow_that_was_not_called_again_is_cancelled(world: World) -> None:
    """A resumed run that goes another way leaves no subflow open."""

    @flow
    def stopping() -> None:
        raise KeyboardInterrupt

    @flow
    def main() -> int:
        if "main" not in RAN:
            RAN.append("main")
            stopping()
        return 1

    with pytest.raises(KeyboardInterrupt):
        main()
    assert main.resume("latest") == 1
    assert [run.state_name for run in world.flow_runs()] == ["Completed", "Cancelled"]


def test_retries_of_a_subflow_are_its_own() -> None:
    """A subflow with retries runs again without its caller."""

    @flow(retries=2)
    def flaky() -> str:
        RAN.append("flaky")
        if RAN.count("flaky") < 3:
            raise ValueError("again")
        return "ok"

    @flow
    def main() -> str:
        RAN.append("main")
        return flaky()

    assert main() == "ok"
    assert RAN == ["main", "flaky", "flaky", "flaky"]


def test_a_subflow_in_a_task_belongs_to_the_task(world: World) -> None:
    """In the driver's process a task may call a flow: its parent is the task run."""

    @task
    def calling() -> Any:
        return inner(5)

    @flow
    def main() -> Any:
        return calling()

    assert main() == 5
    assert world.flow_runs()[1].parent_id == world.task_runs()["calling-0"].id


def test_work_under_a_failed_flow_ends_with_it(world: World) -> None:
    """A subflow that goes on in a thread while its caller fails leaves nothing unfinished in the record."""
    runner, begun, errors = ScriptedRunner(), threading.Event(), list[BaseException]()
    ended = threading.Event()

    @flow
    def slow() -> Any:
        future = step.submit("slow")
        begun.set()
        return future.result()

    @task
    def calling() -> Any:
        try:
            slow.with_options(task_runner=runner)()
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ended.set()

    @flow(task_runner="threads")
    def main() -> None:
        calling.submit()
        assert begun.wait(10)
        runner.expect(1)
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        main()
    assert ended.wait(10)
    assert errors
    assert {run.state_name for run in world.reader().task_runs()} == {"Cancelled"}


def test_a_subflow_may_have_a_runner_of_its_own() -> None:
    """A value from another runner is fetched and handed over; the others use their parent's."""
    mine, its = ScriptedRunner(), ScriptedRunner()

    @flow(task_runner=its)
    def other(x: Any) -> Any:
        return step.submit(x)

    @flow
    def same(x: Any) -> Any:
        return step.submit(x)

    def main() -> Any:
        return same(other(step.submit(1)))

    running = start(main, mine)
    mine.succeed(mine.expect(1)[0], "a", kept=False)
    work = its.expect(1)[0]
    assert work.call.kwargs == {"x": "a"}
    its.succeed(work, "b", kept=False)
    last = mine.expect(2)[1]
    assert last.call.kwargs == {"x": "b"}
    mine.succeed(last, "c")
    assert running.result() == "c"


def test_a_stray_thread_of_a_flow_is_told() -> None:
    """A thread without the flow's context gets an error that names what to do."""
    errors: list[BaseException] = []

    def stray() -> None:
        try:
            step(1)
        except NoRunError as error:
            errors.append(error)

    @flow
    def main() -> None:
        thread = threading.Thread(target=stray)
        thread.start()
        thread.join()

    main()
    assert "current_run().bind(function)" in str(errors[0])
