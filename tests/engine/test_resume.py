"""Interruptions, and going on after them."""

from __future__ import annotations

import contextvars
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dflow import allow_failure, as_completed, flow, resume, task
from dflow.core.records import Held
from dflow.errors import NotResumable, SerializationError
from dflow.flows import Flow
from dflow.testing import ScriptedRunner
from tests.engine.world import Running, World, scripted

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


@task
def total(values: list[Any]) -> int:
    """Note that it ran."""
    RAN.append("total")
    return sum(values)


@task
def large(x: int) -> bytes:
    """Return what the journal does not keep."""
    RAN.append(("large", x))
    return bytes([x]) * 50_000


@task
def stopping(x: int) -> int:
    """Be interrupted the first time."""
    RAN.append(("stopping", x))
    if RAN.count(("stopping", x)) == 1:
        raise KeyboardInterrupt
    return x


def interrupted_once(body: Callable[[], Any]) -> Flow[[], Any]:
    """Return a flow that is interrupted at the end of its body, the first time."""

    @flow
    def main() -> Any:
        value = body()
        if "interrupted" not in RAN:
            RAN.append("interrupted")
            raise KeyboardInterrupt
        return value

    return main


def test_an_interrupted_flow_goes_on_where_it_was(world: World) -> None:
    """Nothing that has completed and is kept runs again; states, generations and parameters are right."""

    @flow
    def main(count: int, *more: int) -> Any:
        values = [step(n) for n in range(count)]
        return total(values) + stopping(more[0])

    with pytest.raises(KeyboardInterrupt):
        main(3, 7)
    (root,) = world.flow_runs()
    assert (root.state_name, root.message) == ("Interrupted", "Stopped from outside.")
    assert world.journal.catalog.find("latest").state_name == "Interrupted"
    before = list(RAN)
    assert main.resume("latest") == 3 + 7
    assert RAN[len(before) :] == [("stopping", 7)]
    (root,) = world.flow_runs()
    assert (root.state_name, root.generation) == ("Completed", 2)
    assert {run.state_name for run in world.task_runs().values()} == {"Completed"}
    assert len(world.journal.catalog.list()) == 1


def test_values_of_an_earlier_pass_are_given_together() -> None:
    """A map that has completed gives the values that were recorded, in its order, and runs nothing."""
    main = interrupted_once(lambda: step.map(range(1200)).result())
    with pytest.raises(KeyboardInterrupt):
        main()
    before = list(RAN)
    assert main.resume("latest") == list(range(1200))
    assert before == RAN


class Unreadable:
    """Something that is pickled, and cannot be unpickled."""

    def __reduce__(self) -> Any:
        """Divide by zero when it is made again."""
        return divmod, (1, 0)


def test_a_value_of_an_earlier_pass_that_cannot_be_read() -> None:
    """Who asks for all of a map hears which one it is."""

    @task
    def odd(x: int) -> Any:
        return Unreadable() if x == 3 else x

    main = interrupted_once(lambda: odd.map(range(6)).result())
    with pytest.raises(KeyboardInterrupt):
        main()
    with pytest.raises(SerializationError, match="The value of 'odd-3' cannot be loaded here"):
        main.resume("latest")


class Noted:
    """Something that notes when it is unpickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, int]) -> None:
        """Note it."""
        RAN.append(("loaded", state["number"]))


def test_values_behind_a_failure_are_not_read() -> None:
    """Who asks for all of a map hears of the first failure, and pays for nothing behind it."""

    @task
    def odd(x: int) -> Any:
        if x == 3:
            raise ValueError("three")
        return Noted(x)

    @flow
    def main() -> Any:
        return odd.map(range(6)).result()

    with pytest.raises(ValueError, match="three"):
        main()
    RAN.clear()
    with pytest.raises(ValueError, match="three"):
        main.resume("latest")
    assert [("loaded", n) for n in range(3)] == RAN


def test_a_completed_run_is_not_resumed(world: World) -> None:
    """There is nothing to do, and it stays completed."""

    @flow
    def main() -> Any:
        return step(1)

    main()
    with pytest.raises(NotResumable, match="has completed"):
        main.resume("latest")
    assert world.flow_runs()[0].state_name == "Completed"


def test_another_flow_refuses() -> None:
    """A run is resumed by its own flow only."""
    main = interrupted_once(lambda: step(1))
    with pytest.raises(KeyboardInterrupt):
        main()

    @flow
    def other() -> None:
        pass

    with pytest.raises(NotResumable, match=r"is of flow 'main', not of 'other'"):
        other.resume("latest")


def test_a_failed_run_is_tried_again(world: World) -> None:
    """Resume opens what failed in a new generation, with what follows from it."""

    @task
    def flaky() -> int:
        RAN.append("flaky")
        if RAN.count("flaky") == 1:
            raise ValueError("once")
        return 1

    @flow
    def main() -> Any:
        return step(step.submit(flaky.submit()))

    with pytest.raises(ValueError, match="once"):
        main()
    assert main.resume("latest") == 1
    assert [world.task_runs()[name].generation for name in ("flaky-0", "step-0", "step-1")] == [
        2,
        2,
        2,
    ]


@pytest.mark.parametrize("seed", range(10))
def test_calls_in_another_order_find_their_results(seed: int) -> None:
    """The order of calls is not part of what they are: every value comes back to its own call."""
    orders = [random.Random(seed * 2 + n).sample(range(20), 20) for n in (0, 1)]

    def body() -> dict[int, int]:
        order = orders["interrupted" in RAN]
        futures = {n: step.submit(n) for n in order}
        doubled = {n: step.submit([futures[n], "twice"]) for n in reversed(order)}
        return {n: doubled[n].result()[0] for n in order}

    main = interrupted_once(body)
    with pytest.raises(KeyboardInterrupt):
        main()
    ran = len(RAN)
    assert main.resume("latest") == {n: n for n in range(20)}
    assert len(RAN) == ran


def test_submits_after_as_completed_find_their_results(world: World) -> None:
    """Work that follows whatever ends first is the same work when something else ends first."""
    runner = ScriptedRunner()

    def body() -> list[int]:
        follow = [step.submit(f) for f in as_completed([step.submit(n) for n in range(4)])]
        return sorted(future.result() for future in follow)

    def play(order: list[int]) -> None:
        for work in sorted(runner.expect(4), key=lambda w: order.index(w.call.kwargs["x"])):
            runner.succeed(work, work.call.kwargs["x"])
            runner.expect(len(runner.works))
        for work in runner.expect(8)[4:]:
            value = world.session.value(next(iter(work.inputs)))
            runner.succeed(work, value)

    main = scripted(body, runner)
    begun = threading.Event()

    def interrupted() -> Any:
        value = body()
        begun.set()
        raise KeyboardInterrupt(value)

    first = scripted(interrupted, runner)
    first.name = main.name = "main"
    running = Running(first)
    play([2, 0, 3, 1])
    with pytest.raises(KeyboardInterrupt):
        running.result()
    assert main.resume("latest") == [0, 1, 2, 3]
    assert len(runner.works) == 8


def test_threads_with_the_context_find_their_results(world: World) -> None:
    """Calls from threads of the flow, in whatever order they come, are found again."""

    def body() -> list[int]:
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(contextvars.copy_context().run, step, n) for n in range(30)]
            return sorted(call.result() for call in calls)

    main = interrupted_once(body)
    with pytest.raises(KeyboardInterrupt):
        main()
    ran = len(RAN)
    assert main.resume("latest") == list(range(30))
    assert len(RAN) == ran
    assert len(world.task_runs()) == 30


def test_what_is_not_kept_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    """A value that was too large for the journal is gone with its process; what followed it is kept.

    That the two belong together is a promise of the task, of which the user is told.
    """

    @task
    def size(data: Any) -> int:
        RAN.append("size")
        return len(data)

    main = interrupted_once(lambda: size(large.submit(1)))
    with pytest.raises(KeyboardInterrupt):
        main()
    assert main.resume("latest") == 50_000
    assert RAN.count(("large", 1)) == 2
    assert RAN.count("size") == 1
    assert "1 recorded results were given, though" in caplog.text
    assert "size-0 (from large-0)" in caplog.text
    assert "--from large" in caplog.text


def test_what_nobody_asks_for_again_is_reported_and_cancelled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that goes another way the second time says what it left behind."""
    runner, resumed = ScriptedRunner(), list[bool]()

    def body() -> int:
        if not resumed:
            step.submit("left behind")
            step.submit("depends on it", wait_for=[step.submit("also left")])
            raise KeyboardInterrupt
        return 1

    main = scripted(body, runner)
    with pytest.raises(KeyboardInterrupt):
        main()
    resumed.append(True)
    assert main.resume("latest") == 1
    assert set(world.states().values()) == {"Cancelled"}
    assert (
        "3 unfinished task runs of the earlier run were not asked for again: step-0," in caplog.text
    )
    assert world.flow_runs()[0].state_name == "Completed"


def test_unclaimed_work_of_a_flow_that_fails_is_cancelled_too(world: World) -> None:
    """Also that of a subflow which was not called again: a run that has ended has nothing unfinished."""
    runner, resumed = ScriptedRunner(), list[bool]()

    @flow
    def inner() -> None:
        step.submit("left behind")
        raise KeyboardInterrupt

    def body() -> None:
        if not resumed:
            inner()
        raise ValueError("failed")

    main = scripted(body, runner)
    with pytest.raises(KeyboardInterrupt):
        main()
    assert [run.state_name for run in world.flow_runs()] == ["Interrupted", "Interrupted"]
    resumed.append(True)
    with pytest.raises(ValueError, match="failed"):
        main.resume("latest")
    assert world.states() == {"step-0": "Cancelled"}
    assert [run.state_name for run in world.flow_runs()] == ["Failed", "Cancelled"]


def test_a_retry_that_was_due_keeps_its_time(
    world: World, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that dies while a retry waits costs no retry and no time."""
    first_time, asked_again = [True], threading.Event()

    def body() -> Any:
        future = step.with_options(retries=1, retry_delay_seconds=100).submit(1)
        if first_time:
            first_time.clear()
            runner.fail(runner.expect(1)[0], ValueError())
            world.settle()
            raise KeyboardInterrupt
        asked_again.set()
        return future.result()

    main = scripted(body, runner)
    with pytest.raises(KeyboardInterrupt):
        main()
    assert world.states() == {"step-0": "AwaitingRetry"}
    world.clock.advance(40)
    running = Running(main.resume, "latest")
    assert asked_again.wait(10)
    world.settle()
    world.clock.advance(59)
    world.settle()
    assert len(runner.works) == 1
    world.clock.advance(1)
    runner.succeed(runner.expect(2)[1], 5, at=world.clock.now())
    assert running.result() == 5
    assert "step-0 | it still awaits a retry; next in " in caplog.text


def test_an_interrupt_in_a_task_leaves_nothing_open(world: World) -> None:
    """A flow that goes on after Ctrl-C in a task comes to its end: nobody runs that task any more."""

    @flow
    def main() -> str:
        for call in (lambda: stopping(1), lambda: stopping.submit(2)):
            with pytest.raises(KeyboardInterrupt):
                call()
        return "went on"

    assert main() == "went on"
    assert set(world.states().values()) == {"Cancelled"}


def test_resume_needs_the_parameters() -> None:
    """A flow whose arguments could not be recorded says so, and what to do."""

    @flow
    def main(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        main(threading.Lock())
    with pytest.raises(NotResumable, match="could not be recorded"):
        main.resume("latest")


def test_runs_resume_by_name() -> None:
    """`dflow.resume` finds the flow where it was defined."""
    with pytest.raises(KeyboardInterrupt):
        module_flow(4)
    assert resume("latest") == 4


@flow
def module_flow(x: int) -> Any:
    """Be found in this module."""
    return stopping(x)


# Never another's result --------------------------------------------------------------------------------


class Model:
    """What has no fingerprint."""

    def __init__(self, depth: Any) -> None:
        self.depth = depth


@task
def grade(model: Model) -> Any:
    """Look into what it gets."""
    RAN.append(("grade", model.depth))
    return model.depth


def test_objects_that_come_in_another_order_keep_their_results() -> None:
    """They are known by what is in them: not by when they were given."""
    orders = [[3, 1, 2], [2, 3, 1]]

    def body() -> dict[int, Any]:
        fitted = {n: step.submit(Model(n)) for n in (1, 2, 3)}
        return {n: grade(fitted[n].result()) for n in orders["interrupted" in RAN]}

    main = interrupted_once(body)
    with pytest.raises(KeyboardInterrupt):
        main()
    ran = [each for each in RAN if each != "interrupted"]
    assert main.resume("latest") == {1: 1, 2: 2, 3: 3}
    assert [each for each in RAN if each != "interrupted"] == ran


def test_values_without_content_go_with_what_was_given_before(world: World) -> None:
    """What cannot be told from others is found again after the same values only."""
    orders = [[3, 1, 2], [2, 3, 1]]

    @task
    def locked(lock: Any) -> int:
        RAN.append("locked")
        return lock[1]  # type: ignore[no-any-return]  # a number

    def body() -> dict[int, int]:
        futures = {n: step.submit(n) for n in (1, 2, 3)}
        found = {}
        for n in orders["interrupted" in RAN]:
            found[n] = locked((threading.Lock(), futures[n].result()))
        return found

    main = interrupted_once(body)
    with pytest.raises(KeyboardInterrupt):
        main()
    assert main.resume("latest") == {1: 1, 2: 2, 3: 3}
    assert len([run for run in world.reader().task_runs() if run.task_name == "locked"]) == 6


def test_inputs_that_are_changed_later_are_what_they_were(world: World) -> None:
    """A list that grows between two calls is another input each time, also of the same object."""

    def body() -> Any:
        given: list[int] = []
        model = Model([])
        values = []
        for n in range(3):
            given.append(n)
            model.depth.append(n)
            values += [step(list(given)), list(grade(model))]
        return values

    main = interrupted_once(body)
    with pytest.raises(KeyboardInterrupt):
        main()
    ran = len(RAN)
    assert main.resume("latest") == [[0], [0], [0, 1], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert len(RAN) == ran
    assert len(world.task_runs()) == 6


def test_a_changed_flow_gives_nobody_anothers_result() -> None:
    """Other objects in the place of the recorded ones are other inputs, though all calls are in order."""

    def made(depth: int) -> Flow[..., Any]:
        @flow(name="main")
        def main() -> Any:
            value = grade(Model(depth)), step(lambda: depth)()
            if depth == 3:
                raise KeyboardInterrupt
            return value

        return main

    with pytest.raises(KeyboardInterrupt):
        made(3)()
    assert made(5).resume("latest") == (5, 5)


@pytest.mark.parametrize("through", ["submit", "call", "subflow", "wait_for"])
def test_what_took_a_failure_runs_again_when_that_is_mended(through: str, world: World) -> None:
    """It had completed with the failure as its input; what follows from it runs again too."""
    mended: list[bool] = []

    @task
    def fragile() -> str:
        if not mended:
            raise ValueError("broken")
        return "whole"

    @task
    def told(given: Any) -> str:
        RAN.append("told")
        return "failed" if isinstance(given, Exception) else str(given)

    @flow
    def inside(given: Any) -> str:
        return told(given)

    @flow
    def main() -> Any:
        failed = fragile.submit()
        allowed = allow_failure(failed)
        first: Any
        if through == "submit":
            first = told.submit(allowed)
        elif through == "wait_for":
            first = told.submit(failed.state.name, wait_for=[allowed])
        else:
            first = (told if through == "call" else inside)(allowed)
        last = step(first)
        kept = step("apart")
        return last, kept, failed

    with pytest.raises(ValueError, match="broken"):
        main()
    assert ["told", "Failed" if through == "wait_for" else "failed", "apart"] == RAN
    RAN.clear()
    mended.append(True)
    expected = "Completed" if through == "wait_for" else "whole"
    assert main.resume("latest") == (expected, "apart", "whole")
    assert ["told", expected] == RAN
    assert world.flow_runs()[0].state_name == "Completed"


def test_a_driver_that_dies_leaves_word_of_what_is_outdated(world: World) -> None:
    """What had taken a failure is outdated as soon as that runs again, though it is asked for much later."""
    attempts: list[str] = []

    @task
    def fragile() -> str:
        attempts.append("fragile")
        if len(attempts) == 1:
            raise ValueError("broken")
        return "whole"

    @task
    def told(given: Any) -> bool:
        RAN.append("told")
        return isinstance(given, Exception)

    @flow
    def main() -> Any:
        failed = fragile.submit()
        failed.wait()
        if len(attempts) == 2 and "died" not in attempts:
            attempts.append("died")
            raise KeyboardInterrupt  # before it asks for what depends on it
        return told.submit(allow_failure(failed)).result(), failed

    with pytest.raises(ValueError, match="broken"):
        main()
    with pytest.raises(KeyboardInterrupt):
        main.resume("latest")
    assert world.task_runs()["told-0"].held is Held.OUTDATED
    assert main.resume("latest") == (False, "whole")
    assert RAN == ["told", "told"]
