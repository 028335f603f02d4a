"""Futures, and waiting for them."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from typing import Any

import pytest

from dflow import TaskFutureList, as_completed, flow, task, wait
from dflow.engine.futures import TaskFuture
from dflow.errors import MissingResult
from dflow.testing import ScriptedRunner
from tests.engine.world import World, scripted, start

pytestmark = pytest.mark.usefixtures("world")


@task
def step(x: Any = 0) -> Any:
    """Return what came."""
    return x


@task
def failing() -> None:
    """Fail."""
    raise ValueError("bad")


@task
def too_late() -> None:
    """Raise the same kind of error as a wait does."""
    raise TimeoutError("the task's own")


def test_a_wait_that_is_over_is_told_apart_from_the_tasks_own_error(runner: ScriptedRunner) -> None:
    """Both are a TimeoutError; only one of them says that the task run has not ended."""

    def main() -> None:
        future = too_late.submit()
        with pytest.raises(TimeoutError, match=r"'too_late-0' has not ended within 0\.01 seconds"):
            future.result(timeout=0.01)
        assert not future.done()
        runner.fail(runner.works[0], TimeoutError("the task's own"))
        with pytest.raises(TimeoutError, match="the task's own"):
            future.result(timeout=10)
        assert future.done()

    scripted(main, runner)()


def test_waiting_never_raises(runner: ScriptedRunner) -> None:
    """Neither for what is not done in time nor for what has failed."""

    def main() -> None:
        futures = step.map([1, 2])
        futures.wait(timeout=0.01)
        futures[0].wait(0.01)
        done, not_done = wait(futures, timeout=0)
        assert (done, not_done) == (set(), set(futures))
        with pytest.raises(TimeoutError, match="2 of 2 task runs have not ended"):
            futures.result(timeout=0.01)
        runner.fail(runner.expect(2)[0], ValueError())
        futures[0].wait()
        assert wait(futures, timeout=0) == ({futures[0]}, {futures[1]})
        runner.succeed(runner.works[1], 2)
        assert wait(futures) == (set(futures), set())

    scripted(main, runner)()


def test_a_failure_may_be_returned() -> None:
    """With ``raise_on_failure=False`` the exception itself is the result, alone and in a list."""

    @flow
    def main() -> None:
        future = failing.submit()
        error: Any = future.result(raise_on_failure=False)
        assert isinstance(error, ValueError)
        assert future.state.result(raise_on_failure=False) is error
        both = TaskFutureList([future, step.submit(1)])
        assert both.result(raise_on_failure=False) == [error, 1]
        with pytest.raises(ValueError, match="bad"):
            both.result()

    main()


def test_futures_come_as_they_complete(runner: ScriptedRunner) -> None:
    """The earliest first, each once, also those that had ended before; doubles are no matter."""

    def main() -> list[Any]:
        futures = step.map(range(4))
        works = runner.expect(4)
        runner.succeed(works[2], 2)
        futures[2].wait()
        completed = as_completed(futures)
        order = [next(completed).result()]
        for number in (3, 0, 1):
            runner.succeed(works[number], number)
            order.append(next(completed).result())
        with pytest.raises(StopIteration):
            next(completed)
        assert [f.name for f in as_completed([futures[0], futures[0]])] == ["step-0"] * 2
        assert list(as_completed([])) == []
        return order

    assert scripted(main, runner)() == [2, 3, 0, 1]


def test_as_completed_has_a_deadline(runner: ScriptedRunner) -> None:
    """What has ended by then is given, and the error counts the rest."""

    def main() -> None:
        futures = step.map(range(3))
        runner.succeed(runner.expect(3)[1], 1)
        futures[1].wait()
        completed = as_completed(futures, timeout=0.05)
        assert next(completed).name == "step-1"
        with pytest.raises(TimeoutError, match=r"2 of 3 task runs have not ended within 0\.05"):
            next(completed)
        for work in (runner.works[0], runner.works[2]):
            runner.succeed(work)

    scripted(main, runner)()


@pytest.mark.parametrize("what", [[1], ["a"], [None]])
def test_only_futures_can_be_waited_for(what: list[Any]) -> None:
    """The error says what was expected, and what came."""
    with pytest.raises(TypeError, match=r"Expected futures from \.submit"):
        wait(what)
    with pytest.raises(TypeError, match=type(what[0]).__name__):
        list(as_completed(what))


def test_slices_are_lists_of_futures() -> None:
    """Part of a map can be waited for like the whole; one item is one future."""

    @flow
    def main() -> None:
        futures = step.map(range(5))
        assert isinstance(futures[1:3], TaskFutureList)
        assert futures[1:3].result() == [1, 2]
        assert futures[::2].result() == [0, 2, 4]
        assert isinstance(futures[0], TaskFuture)
        assert [state.name for state in futures.states] == ["Completed"] * 5

    main()


def test_callbacks_are_called_once_each(runner: ScriptedRunner) -> None:
    """Before or after the end, with the future; one that raises harms nobody."""
    called, done = list[Any](), threading.Semaphore(0)

    def note(future: Any) -> None:
        called.append((future.name, future.result()))
        done.release()

    def main() -> None:
        future = step.submit()
        future.add_done_callback(note)
        runner.succeed(runner.expect(1)[0], 5)
        future.wait()
        future.add_done_callback(note)
        for _ in range(2):
            assert done.acquire(timeout=10)

    scripted(main, runner)()
    assert called == [("step-0", 5)] * 2


def test_a_callback_may_ask_the_tracker(runner: ScriptedRunner) -> None:
    """It has a thread of its own, so that even waiting in it stops nothing."""
    seen, done = list[Any](), threading.Event()

    def main() -> None:
        one, two = step.submit(1), step.submit(2)

        def wait_for_two(_: Any) -> None:
            seen.append(two.result())
            done.set()

        one.add_done_callback(wait_for_two)
        first, second = runner.expect(2)
        runner.succeed(first, 1)
        one.wait()
        runner.succeed(second, 2)
        assert done.wait(10)

    scripted(main, runner)()
    assert seen == [2]


def test_a_future_cannot_be_pickled() -> None:
    """The error names it, and says what to do instead."""

    @flow
    def main() -> None:
        future = step.submit()
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(
                TypeError, match=r"'step-0' cannot be pickled.*Pass it as an argument"
            ):
                attempt(future)

    main()


def test_a_list_of_futures_becomes_a_plain_list_of_values() -> None:
    """What a task gets in the place of a map's futures is a list, and so is what a flow returns."""
    kinds: list[type] = []

    @task
    def look(values: Any) -> int:
        kinds.append(type(values))
        return sum(values)

    @flow
    def main() -> Any:
        assert look.submit(step.map([1, 2])).result() == 3
        return step.map([1, 2])

    assert type(main()) is list
    assert kinds == [list]


def test_futures_show_what_they_are(world: World, runner: ScriptedRunner) -> None:
    """Name, id, state and text, before and after the end."""

    def main() -> None:
        future = step.submit(1)
        assert (future.name, len(future.task_run_id)) == ("step-0", 32)
        assert repr(future) == "<TaskFuture 'step-0' Pending>"
        state = future.state
        assert state.is_pending()
        with pytest.raises(MissingResult, match="Wait until the run is final"):
            state.result()
        runner.start(runner.expect(1)[0])
        world.settle()
        assert future.state.is_running()
        runner.succeed(runner.works[0], 1)
        future.wait()
        assert future.state.is_completed()
        assert future.state.timestamp is not None
        assert future.state.result() == 1

    scripted(main, runner)()


def test_a_value_lives_as_long_as_its_future(world: World, runner: ScriptedRunner) -> None:
    """The runner is told to let go when the last future and the last consumer have gone, not before."""

    def main() -> None:
        future = step.submit()
        consumer = step.submit([future])
        runner.succeed(runner.expect(1)[0], b"large", kept=False)
        second = runner.expect(2)[1]
        key = runner.works[0].info.key
        del future
        gc.collect()
        world.settle()
        assert runner.released == []
        runner.succeed(second, 2)
        consumer.wait()
        world.settle()
        assert runner.released == [key]

    scripted(main, runner)()
    assert runner.works[1].info.key in runner.released


def test_the_same_task_run_may_have_several_futures(world: World, runner: ScriptedRunner) -> None:
    """In a retry of the flow the first pass's futures go, and the value stays for the second's."""
    passes: list[Any] = []

    def main() -> Any:
        future = step.submit()
        passes.append(future)
        if len(passes) == 1:
            runner.succeed(runner.expect(1)[0], b"large", kept=False)
            future.wait()
            raise ValueError("again")
        del passes[0]
        gc.collect()
        world.settle()
        return future.result()

    flow = start(main, runner, retries=1)
    assert flow.result() == b"large"
    assert len(runner.works) == 1
