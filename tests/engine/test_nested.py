"""Tasks that ask for tasks from a worker far away: only messages go between them and their driver."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dflow import as_completed, current_run, flow, get_run_logger, task, wait
from dflow.core import events as ev
from dflow.engine import desk
from dflow.errors import CancelledError, CrashedError, DefinitionError
from tests.engine.far import FarRunner
from tests.engine.world import World

pytestmark = pytest.mark.usefixtures("world")


@pytest.fixture
def far() -> FarRunner:
    """Return a runner that is far away."""
    return FarRunner()


TRIES: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    """Forget earlier tries."""
    TRIES.clear()


@task
def step(x: Any = 0) -> Any:
    """Return what came."""
    return x


@task
def large(x: int) -> bytes:
    """Return what does not ride along."""
    return bytes([x]) * 50_000


@task
def size(data: Any) -> int:
    """Return a length."""
    return len(data)


@task
def failing(x: Any = 0) -> Any:
    """Fail."""
    raise ValueError(f"bad {x}")


@task
def flaky(x: Any) -> Any:
    """Fail once for each value."""
    TRIES.append(x)
    if TRIES.count(x) == 1:
        raise ValueError("once")
    return x


@task
def leave() -> None:
    """End like a process does."""
    raise SystemExit(1)


def run_in_task(far: FarRunner, body: Any) -> Any:
    """Run a body as a task on the far runner, and return its value."""
    return flow(task_runner=far)(lambda: task(body).submit().result())()


def test_everything_works_from_a_worker(world: World, far: FarRunner) -> None:
    """Submits, maps, direct calls, futures as arguments, waits, values that stay at the runner."""

    def body() -> list[Any]:
        get_run_logger().info("from far away")
        mapped = step.map(range(3))
        done, not_done = wait(mapped)
        ordered = sorted(f.result() for f in as_completed(mapped))
        return [
            step.submit(step.submit(1)).result(),
            [len(done), len(not_done), ordered],
            step([step.submit(2)]),
            size(large.submit(3)),
            size.submit(large.submit(4)).result(),
            len(large.submit(5).result()),
            step.submit(6, wait_for=mapped).state.name in ("Pending", "Running", "Completed"),
            step.submit(7, return_state=True).result(),
        ]

    assert run_in_task(far, body) == [1, [3, 0, [0, 1, 2]], [2], 50_000, 50_000, 50_000, True, 7]
    assert world.lines() == ["from far away"]
    parents = {run.parent_id for run in world.reader().task_runs() if run.task_name != "body"}
    assert parents == {world.task_runs()["body-0"].id}


def test_children_are_retried_where_they_run(far: FarRunner) -> None:
    """A submitted child goes out again, a child that was called runs again in its caller."""

    def body() -> list[Any]:
        retried = flaky.with_options(retries=1)
        return [retried.submit("submitted").result(), retried("called")]

    assert run_in_task(far, body) == ["submitted", "called"]
    assert sorted(TRIES) == ["called"] * 2 + ["submitted"] * 2


def test_children_that_are_called_know_their_own_generation(far: FarRunner) -> None:
    """Not that of the task run around them, which was asked for again when the flow was tried again."""

    @task
    def called() -> tuple[int, int]:
        return current_run().generation, current_run().attempt

    @task
    def around() -> list[tuple[int, int]]:
        if current_run().generation == 1:
            raise ValueError("the flow is tried again")
        return [
            (current_run().generation, current_run().attempt),
            called(),
            called.submit().result(),
        ]

    assert flow(retries=1, task_runner=far)(lambda: around.submit().result())() == [
        (2, 1),
        (1, 1),
        (1, 1),
    ]


def test_failures_of_children_are_the_exceptions_themselves(far: FarRunner) -> None:
    """Of a child, of a call, and of what depended on a child that failed."""

    def body() -> list[str]:
        failed, texts = failing.submit(1), list[str]()
        for call in (failed.result, lambda: failing(2), lambda: step.submit(failed).result()):
            try:
                call()
            except ValueError as error:
                texts.append(str(error))
        return [*texts, failed.state.name]

    assert run_in_task(far, body) == ["bad 1", "bad 2", "bad 1", "Failed"]


def test_a_crash_among_children_is_told_in_words(far: FarRunner) -> None:
    """An error of an earlier attempt is not taken for the end of a child whose workers died."""

    def body() -> None:
        future = flaky.with_options(retries=1, max_worker_losses=0).submit("x")
        future.result()

    original = far.dispatch

    def lose_the_second(works: Any) -> None:
        for work in works:
            if work.info.task_name == "flaky" and work.info.attempt == 2:
                about = {"task_run_id": work.info.task_run_id, "dispatch": work.info.dispatch}
                far._host.news([ev.AttemptStarted(at=1.0, **about), ev.WorkerLost(at=1.0, **about)])
            else:
                original([work])

    far.dispatch = lose_the_second  # type: ignore[method-assign]  # a worker that dies
    with pytest.raises(CrashedError, match="ended as Crashed"):
        run_in_task(far, body)


def test_a_parent_that_is_tried_again_finds_its_children(world: World, far: FarRunner) -> None:
    """Whatever the first attempt had completed is not run again by the second."""

    @task(retries=1)
    def parent() -> Any:
        values = [step.submit(n).result() for n in range(3)] + [step(3), step.map([4]).result()]
        if flaky.submit("parent", return_state=True).is_failed():
            raise ValueError("again")
        return values

    assert flow(task_runner=far)(lambda: parent.submit().result())() == [0, 1, 2, 3, [4]]
    runs = [run for run in world.reader().task_runs() if run.task_name == "step"]
    assert [(run.generation, len(run.attempts)) for run in runs] == [(1, 1)] * 5


def test_nothing_is_left_of_ended_attempts(world: World, far: FarRunner) -> None:
    """No reader, no desk and no value of a child stays behind on the worker."""

    def body() -> int:
        return size.submit(large.submit(1)).result()

    @flow(task_runner=far)
    def main() -> None:
        for _ in range(5):
            task(body)()
            task(body).submit().wait()
        world.settle()

    main()
    for thread in threading.enumerate():
        if thread.name == "dflow-desk":
            thread.join(10)
    assert desk._desks == {}
    assert not [value for value in far._values.values() if isinstance(value, bytes)]


def test_a_body_whose_driver_has_gone_is_told() -> None:
    """It does not wait for ever for a child that nobody runs any more."""
    far, told = FarRunner(pickles=False), list[BaseException]()
    waiting, go = threading.Event(), threading.Event()

    def body() -> None:
        @task
        def slow() -> None:
            go.wait(20)

        future = slow.submit()
        waiting.set()
        try:
            future.result()
        except BaseException as error:
            told.append(error)
        try:
            step.submit(1).result()
        except BaseException as error:
            told.append(error)

    @flow(task_runner=far)
    def main() -> None:
        task(body).submit()
        assert waiting.wait(10)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        main()
    far.threads[0].join(10)
    go.set()
    assert [type(error) for error in told] == [CancelledError, CancelledError]


def test_a_flow_with_its_own_runner_cannot_be_called_far_away(far: FarRunner) -> None:
    """The error names the flow, and says where to call it."""

    def body() -> None:
        inner = flow(name="inner", task_runner="threads")(lambda: 1)
        inner()

    with pytest.raises(DefinitionError, match="Flow 'inner' names a task runner of its own"):
        run_in_task(far, body)


def test_sys_exit_far_away_is_a_failure(far: FarRunner) -> None:
    """Of a child it is told in words; nothing exits."""

    def body() -> str:
        return leave.submit(return_state=True).message

    assert run_in_task(far, body) == "SystemExit: 1"
