"""What a body knows of its run, wherever it runs, and in threads of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dflow import current_run, flow, get_run_context, get_run_logger, runs, runtime, tags, task
from dflow.errors import NoRunError
from dflow.ports import TaskRunner
from tests.api.test_flows_and_tasks import record
from tests.api.test_tasks import latest

FIELDS = (
    "id", "name", "task_run_id", "task_run_name", "task_name", "flow_run_id", "flow_run_name",
    "flow_name", "root_flow_run_id", "parameters", "tags", "attempt", "generation",
    "idempotency_key",
)  # fmt: skip


def told() -> dict[str, Any]:
    """Return what the current run tells, of the flow too, and what `runtime` tells."""
    run = current_run()
    found = {name: getattr(run, name) for name in FIELDS}
    found["again"] = get_run_context() == run
    found["task run is this one"] = run.task_run == run
    about = run.flow_run
    found["flow"] = {name: getattr(about, name) for name in dir(runtime.flow_run)}
    found["runtime"] = {name: getattr(runtime.flow_run, name) for name in dir(runtime.flow_run)}
    found["runtime task"] = {
        name: getattr(runtime.task_run, name) for name in dir(runtime.task_run)
    }
    return found


@task(tags=["own"])
def tell(x: int, y: str = "why") -> dict[str, Any]:
    """Return what is known, and what came."""
    return {**told(), "came": (x, y), "worker": current_run().worker}


@task
async def tell_async(x: int, y: str = "why") -> dict[str, Any]:
    """Return the same from a loop."""
    return {**told(), "came": (x, y), "worker": current_run().worker}


@task
def tell_nested(x: int) -> list[dict[str, Any]]:
    """Return what is known in tasks that are called and submitted in a task."""
    return [tell(x), tell.submit(x).result()]


def check(found: dict[str, Any], main: dict[str, Any], name: str, x: int) -> None:
    """Compare what a task was told with what its flow was told."""
    (run,) = [run for run in latest() if run.id == found["id"]]
    assert found["idempotency_key"] == found["task_run_id"] == run.id
    assert found["name"] == found["task_run_name"] == run.name
    assert found["task_name"] == run.task_name == name
    assert found["parameters"] == {"x": x, "y": "why"}
    assert (found["attempt"], found["generation"]) == (1, 1)
    assert found["tags"] == run.tags
    assert found["again"]
    assert found["task run is this one"]
    for same in ("flow_run_id", "flow_run_name", "flow_name", "root_flow_run_id", "flow"):
        assert found[same] == main[same]
    assert found["runtime"] == main["flow"]
    assert found["runtime task"] == {
        "id": run.id, "name": run.name, "task_name": name, "parameters": found["parameters"],
        "tags": run.tags, "run_count": 1,
    }  # fmt: skip


def test_every_attribute_everywhere(runner: TaskRunner) -> None:
    """In the flow, in tasks that are called, submitted and awaited, and in nested ones."""

    @flow(task_runner=runner, flow_run_name="run of {n}")
    def main(n: int, deep: bool = False) -> list[Any]:  # noqa: ARG001  (looked at as parameters)
        return [
            told(),
            tell(1),
            tell.submit(2).result(),
            tell_async.submit(3).result(),
            asyncio.run(tell_async(4)),
            *tell_nested.submit(5).result(),
        ]

    with tags("around"):
        whole, *tasks = main(7)
    listed = runs.find("latest").entry
    assert whole["id"] == whole["flow_run_id"] == whole["root_flow_run_id"] == listed.id
    assert whole["idempotency_key"] == listed.id
    assert whole["name"] == whole["flow_run_name"] == "run of 7"
    assert whole["flow_name"] == "main"
    assert whole["parameters"] == {"n": 7, "deep": False}
    assert [whole[name] for name in ("task_run_id", "task_run_name", "task_name")] == [None] * 3
    assert (whole["tags"], whole["attempt"], whole["generation"]) == (("around",), 1, 1)
    assert whole["flow"] == whole["runtime"] == {
        "id": listed.id, "name": "run of 7", "flow_name": "main", "tags": ("around",),
        "parameters": {"n": 7, "deep": False}, "run_count": 1, "parent_flow_run_id": None,
        "root_flow_run_id": listed.id,
    }  # fmt: skip
    assert not whole["task run is this one"]
    assert whole["runtime task"]["id"] is None
    names = ["tell", "tell", "tell_async", "tell_async", "tell", "tell"]
    for found, name, x in zip(tasks, names, [1, 2, 3, 4, 5, 5], strict=True):
        check(found, whole, name, x)
    assert len({found["idempotency_key"] for found in tasks}) == 6


def test_workers_are_named(processes: TaskRunner) -> None:
    """The worker of a body is told on workers, and is empty where it runs with its caller."""

    @flow(task_runner=processes)
    def main() -> list[str]:
        return [tell.submit(1).result()["worker"], tell(1)["worker"], current_run().worker]

    worker, *here = main()
    assert worker.startswith("tcp://")
    assert here == ["", ""]


def test_nothing_outside_of_runs() -> None:
    """`current_run` raises and says what to do; `runtime` gives nothings."""
    for ask in (current_run, get_run_context):
        with pytest.raises(NoRunError, match=r"bind\(function\)"):
            ask()
    assert {name: getattr(runtime.flow_run, name) for name in dir(runtime.flow_run)} == {
        "id": None, "name": None, "flow_name": None, "parameters": {}, "tags": (), "run_count": 0,
        "parent_flow_run_id": None, "root_flow_run_id": None,
    }  # fmt: skip
    assert {name: getattr(runtime.task_run, name) for name in dir(runtime.task_run)} == {
        "id": None, "name": None, "task_name": None, "parameters": {}, "tags": (), "run_count": 0,
    }  # fmt: skip
    with pytest.raises(AttributeError, match="has no 'nonsense'"):
        runtime.flow_run.nonsense  # noqa: B018  (what is tested)


@flow
def no_task() -> Any:
    """Return what is said of a task where there is none."""
    return [runtime.task_run.id, runtime.task_run.parameters, runtime.task_run.run_count]


def test_a_flow_is_no_task_run() -> None:
    """`runtime.task_run` gives nothings in the body of a flow."""
    assert no_task.with_options(task_runner="inline")() == [None, {}, 0]


# Again -------------------------------------------------------------------------------------------------


@task(retries=2)
def resumes_by_itself(x: int) -> list[Any]:
    """Leave a checkpoint, and find it again."""
    run = current_run()
    file = run.checkpoint_dir / "progress"
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(f"{before}{run.attempt}", encoding="utf-8")
    if run.attempt < 3:
        raise ValueError("not yet")
    return [before, run.attempt, run.idempotency_key, str(run.checkpoint_dir), x]


def test_the_next_attempt_finds_what_was_left(runner: TaskRunner) -> None:
    """`checkpoint_dir` and `idempotency_key` are the same in all attempts, and of no other run."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [resumes_by_itself.submit(1).result(), resumes_by_itself(2)]

    submitted, called = main()
    for found in (submitted, called):
        assert found[:2] == ["12", 3]
    assert submitted[2] != called[2]
    assert submitted[3] != called[3]
    assert {run.id for run in latest()} == {submitted[2], called[2]}


@task
def notes_key(folder: str) -> str:
    """Note the key and the generation; fail in the first."""
    run = current_run()
    with (run.checkpoint_dir / "generations").open("a", encoding="utf-8") as file:
        file.write(f"{run.generation} ")
    (Path(folder) / f"{run.idempotency_key}").touch()
    if run.generation == 1:
        raise ValueError("the first time")
    return (run.checkpoint_dir / "generations").read_text(encoding="utf-8")


def test_a_resume_finds_what_was_left(runner: TaskRunner, tmp_path: Path) -> None:
    """The key and the checkpoints are the same after a resume, which is another generation."""
    folder = tmp_path / "keys"
    folder.mkdir()

    @flow(task_runner=runner)
    def main(folder: str) -> str:
        return notes_key.submit(folder).result()

    with pytest.raises(ValueError, match="the first time"):
        main(str(folder))
    assert main.resume("latest") == "1 2 "
    assert len(list(folder.iterdir())) == 1


# Threads -----------------------------------------------------------------------------------------------


@task
def square(x: int) -> int:
    """Multiply."""
    return x * x


@task
def in_threads(count: int) -> list[Any]:
    """Use tasks and the logger in threads of its own."""
    run = current_run()

    def one(x: int) -> tuple[int, int, str, int]:
        get_run_logger().info("thread of %d", x)
        print("printed of", x)
        return square(x), square.submit(x).result(), current_run().name, threading.get_ident()

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(run.bind(one), range(count)))
    return [item[:3] for item in found] + [threading.get_ident() in {item[3] for item in found}]


def test_bound_functions_belong_to_their_run(runner: TaskRunner) -> None:
    """In threads of the user's own they call, submit, log and print for the run, in flows and tasks."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            bound = current_run().bind(lambda x: square.submit(x).result() + square(x))
            here = list(pool.map(bound, range(4)))
        timed = in_threads.with_options(timeout_seconds=60, log_prints=True, name="timed")
        return [here, in_threads.submit(3).result(), timed.submit(2).result()]

    here, inside, timed = main()
    assert here == [0, 2, 8, 18]
    assert inside == [(x * x, x * x, "in_threads-0") for x in range(3)] + [False]
    assert timed == [(x * x, x * x, "timed-0") for x in range(2)] + [False]
    _, logs = record()
    said = sorted(line.message for line in logs)
    assert said == sorted(
        [f"thread of {x}" for x in (0, 1, 2, 0, 1)] + [f"printed of {x}" for x in range(2)]
    )


@task
def forgets_to_bind() -> list[str]:
    """Ask in a thread that knows of no run."""
    errors: list[str] = []

    def ask() -> None:
        asks: list[Any] = [
            current_run, get_run_logger, lambda: square(1), lambda: square.submit(1),
            lambda: square.map([1]),
        ]  # fmt: skip
        for each in asks:
            try:
                each()
            except NoRunError as error:
                errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return errors


def test_threads_without_a_run_are_told_to_bind(runner: TaskRunner) -> None:
    """Whatever needs the run raises, and names `bind`."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        return forgets_to_bind.submit().result()

    errors = main()
    assert len(errors) == 5
    assert all("bind(" in error for error in errors)


def test_bound_generators_and_names(runner: TaskRunner) -> None:
    """`bind` keeps the name and the values of the function, and may be called in the body's thread too."""

    def helper(x: int) -> Iterator[int]:
        """Help."""
        yield x

    @flow(task_runner=runner)
    def main() -> list[Any]:
        bound = current_run().bind(helper)
        return [bound.__name__, bound.__doc__, list(bound(1))]

    assert main() == ["helper", "Help.", [1]]
