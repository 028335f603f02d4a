"""Hooks and retry conditions on every runner: they are called in the driver, wherever the bodies run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dflow import State, flow, runs, task
from dflow.core.records import TaskRun
from dflow.ports import TaskRunner

TOLD: list[tuple[int, str, str]] = []
PIDS: list[tuple[int, int]] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    """Forget what was told before."""
    TOLD.clear()
    PIDS.clear()


def tell(_: Any, task_run: TaskRun, state: State) -> None:
    """Note where this hook runs, and what it is told."""
    TOLD.append((os.getpid(), task_run.name, state.name))


async def compare(_: Any, __: TaskRun, state: State) -> None:
    """Note the process of the hook, and that of the body, which is the value."""
    PIDS.append((os.getpid(), state.result()))


def below_three(_: Any, task_run: TaskRun, state: State) -> bool:
    """Let two attempts be followed by another, unless the error says no; note where that is decided."""
    error = state.result(raise_on_failure=False)
    TOLD.append((os.getpid(), task_run.name, f"asked: {error.args[0]}"))
    return task_run.run_count < 3 and error.args[0] != "never"


@task(on_running=tell, on_completion=[tell, compare], on_failure=tell)
def where() -> int:
    """Return the pid."""
    return os.getpid()


@task(retries=9, retry_condition_fn=below_three, on_failure=tell)
def fails(text: str) -> None:
    """Raise."""
    raise KeyError(text)


@task(retries=9, retry_condition_fn=below_three)
def third_time(folder: str) -> int:
    """Fail twice: files tell how often, in whatever process."""
    tries = len(list(Path(folder).glob("try-*")))
    (Path(folder) / f"try-{tries}").touch()
    if tries < 2:
        raise ValueError("again")
    return tries


@task
def outer(way: str) -> int:
    """Ask for the same from a worker."""
    if way == "call":
        return where()
    asked = where.with_options(retries=1) if way == "options" else where
    return asked.submit().result()


@task
def catches(way: str) -> str:
    """Ask from a worker for something that fails."""
    try:
        return str(fails(way) if way == "call" else fails.submit(way).result())
    except KeyError as error:
        return f"caught {error.args[0]}"


@task
def large(n: int) -> bytes:
    """Return what does not ride along."""
    return bytes(n)


def test_hooks_run_in_the_driver(runner: TaskRunner) -> None:
    """In its process, before the flow call returns, with the value that the worker made."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        return [where(), where.submit().result()]

    bodies = main()
    assert {pid for pid, *_ in TOLD} == {os.getpid()}
    both = ["Completed", "Running"]
    assert sorted((name, state) for _, name, state in TOLD) == [
        *(("where-0", state) for state in both),
        *(("where-1", state) for state in both),
    ]
    assert sorted(PIDS) == sorted((os.getpid(), pid) for pid in bodies)


@pytest.mark.parametrize("way", ["call", "submit", "options"])
def test_hooks_of_tasks_called_in_tasks_run_in_the_driver(runner: TaskRunner, way: str) -> None:
    """The task travels up by reference, and the driver calls the hooks of its own."""
    pid = flow(task_runner=runner)(lambda: outer.submit(way).result())()
    assert [(told, state) for told, _, state in TOLD] == [
        (os.getpid(), "Running"),
        (os.getpid(), "Completed"),
    ]
    assert [(os.getpid(), pid)] == PIDS


def test_conditions_are_asked_in_the_driver(runner: TaskRunner, tmp_path: Path) -> None:
    """They see the exception of the worker, and their verdict is kept."""

    @flow(task_runner=runner)
    def main() -> int:
        assert isinstance(fails.submit("never").state, State)
        return third_time.submit(str(tmp_path)).result()

    assert main() == 2
    driver = os.getpid()
    assert sorted(TOLD) == sorted(
        [(driver, "third_time-0", "asked: again")] * 2
        + [(driver, "fails-0", "asked: never"), (driver, "fails-0", "Failed")]
    )
    with runs.opened(runs.find("latest")) as reader:
        counts = {run.name: run.run_count for run in reader.task_runs()}
    assert counts == {"fails-0": 1, "third_time-0": 3}


@pytest.mark.parametrize("way", ["call", "submit"])
def test_conditions_decide_about_tasks_called_in_tasks(runner: TaskRunner, way: str) -> None:
    """Also where the body runs on the worker that asked: the driver says whether it goes again."""
    assert flow(task_runner=runner)(lambda: catches.submit(way).result())() == f"caught {way}"
    assert [(pid, text) for pid, _, text in TOLD] == [
        *[(os.getpid(), f"asked: {way}")] * 3,
        (os.getpid(), "Failed"),
    ]


def test_local_tasks_tell_the_hooks_of_this_program(runner: TaskRunner) -> None:
    """What is made in a function travels by value, and its hooks are still those of the driver."""
    seen: list[Any] = []

    @task
    def inner() -> int:
        return 4

    @inner.on_completion
    def hook(owner: Any, _: TaskRun, state: State) -> None:
        seen.append((owner, state.result()))

    asks = task(lambda: inner.submit().result() + inner())
    assert flow(task_runner=runner)(lambda: asks.submit().result())() == 8
    assert seen == [(inner, 4), (inner, 4)]


def test_a_hook_gets_a_large_value_whose_future_is_gone(runner: TaskRunner) -> None:
    """The value stays with the runner until the hook has seen it."""
    sizes: list[int] = []
    told = large.with_options(on_completion=lambda _, __, state: sizes.append(len(state.result())))

    @flow(task_runner=runner)
    def main() -> None:
        told.submit(200_000)

    main()
    assert sizes == [200_000]
