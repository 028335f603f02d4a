"""Results from their stores: found again by resumes and consumers, or missed with a clear error."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflow import State, allow_failure, flow, runs, task, unmapped
from dflow.core.records import Held, Stage
from dflow.errors import MissingResult, ResultDamaged, ResultStoreError
from dflow.ports import TaskRunner
from dflow.results import files
from tests import s3
from tests.api.conftest import RUNNERS
from tests.api.kept import SIZE, held, large, note, place, ran, stored, total
from tests.api.shared_flows import seen

keeping = large.with_options(persist_result=True)
SUM = float(SIZE // 8)
"""The sum over the value of ``large(1)``."""


@pytest.fixture
def oracle(tmp_path: Path) -> Path:
    """A file in which bodies leave lines."""
    file = tmp_path / "oracle"
    file.touch()
    return file


def failing_first(body: Callable[[], Any], runner: TaskRunner) -> Any:
    """Return a flow that fails at the end of its body, the first time; the first run is behind it."""
    times: list[int] = []

    @flow(task_runner=runner)
    def main() -> Any:
        value = body()
        times.append(1)
        if len(times) == 1:
            raise OSError("The network is down.")
        return value

    with pytest.raises(OSError, match="network"):
        main()
    return main


# Given again ------------------------------------------------------------------------------------------


def test_a_resume_finds_what_is_kept(runner: TaskRunner, oracle: Path) -> None:
    """By calls, futures and arguments, in flows and tasks: its values are there, and nothing runs again."""

    def body() -> list[float]:
        future = keeping.submit(1, str(oracle))
        called = keeping(2, str(oracle))
        consumed = total.submit([future, called])
        return [
            float(future.result().sum()),
            consumed.result(),
            inside.submit(str(oracle)).result(),
        ]

    main = failing_first(body, runner)
    first = ran(oracle)
    assert sorted(first) == ["large-1", "large-2", "large-3", "total"]
    assert main.resume("latest") == [SUM, 3 * SUM, 3 * SUM]
    assert ran(oracle) == first
    assert {run.state_name for run in seen().tasks} == {"Completed"}


@task
def inside(oracle: str) -> float:
    """Ask for a kept value inside of a task, after it was let go."""
    value = keeping.submit(3, oracle).result()
    return total.submit(value, oracle).result()


def test_consumers_that_come_later_read_what_is_kept(runner: TaskRunner, oracle: Path) -> None:
    """New ones, on a resume; also those that allow a failure, and whole maps of them."""
    late: list[str] = []

    def body() -> Any:
        future = keeping.submit(1, str(oracle))
        future.wait()
        if not late:
            late.append("next time")
            return None
        one = total.submit(allow_failure(future)).result()
        return [one, *add.map([1, 2, 3], unmapped(future)).result()]

    assert failing_first(body, runner).resume("latest") == [SUM, SUM + 1, SUM + 2, SUM + 3]
    assert ran(oracle) == ["large-1"]


@task
def add(number: int, array: np.ndarray[Any, Any]) -> float:
    """Add the sum of an array."""
    return number + float(array.sum())


@task
def grow(array: np.ndarray[Any, Any]) -> float:
    """Change an argument, as one may that one has for oneself."""
    array += 1.0
    return float(array.sum())


def test_values_that_were_read_can_be_changed(runner: TaskRunner) -> None:
    """Arrays are as writeable as they were."""
    main = failing_first(lambda: grow(keeping(1)), runner)
    assert main.resume("latest") == 2 * SUM


def test_values_can_be_had_after_the_flow(runner: TaskRunner) -> None:
    """From states and futures that outlive it."""
    states: list[State] = []

    @flow(task_runner=runner)
    def main() -> None:
        future = keeping.submit(1)
        future.wait()
        states.append(future.state)

    main()
    assert float(states[0].result().sum()) == SUM


def test_workers_write_and_read_by_themselves(
    processes: TaskRunner, oracle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that can do neither does not notice: no value goes through it."""

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("The driver has a value in its hands.")

    monkeypatch.setattr(files, "write", refuse)
    monkeypatch.setattr(files, "read", refuse)
    main = failing_first(lambda: total.submit(keeping.submit(1, str(oracle))).result(), processes)
    again = failing_first(lambda: add.submit(1, keeping.submit(1, str(oracle))).result(), processes)
    assert main.resume(runs.list_runs()[1].entry.id) == SUM
    assert again.resume("latest") == SUM + 1


def test_subflows_whose_values_are_kept_are_not_called_again(
    runner: TaskRunner, oracle: Path
) -> None:
    """On a resume their value is read; also where they were called in a task."""

    @flow
    def below(number: int, oracle: str) -> Any:
        note(oracle, f"below-{number}")
        return np.full(SIZE // 8, float(number))

    kept = below.with_options(persist_result=True)

    @task
    def calls(oracle: str) -> float:
        return float(kept(2, oracle).sum())

    def body() -> list[float]:
        return [float(kept(1, str(oracle)).sum()), calls.submit(str(oracle)).result()]

    main = failing_first(body, runner)
    assert sorted(ran(oracle)) == ["below-1", "below-2"]
    assert {run.held for run in seen().named("below")} == {Held.STORED}
    assert main.resume("latest") == [SUM, 2 * SUM]
    assert sorted(ran(oracle)) == ["below-1", "below-2"]


def test_a_flow_whose_value_cannot_be_written_fails(runner: TaskRunner, tmp_path: Path) -> None:
    """Where it was asked for; and where it was not, nothing is said of a root's."""
    (tmp_path / "blocked").write_text("a file")

    def body() -> Any:
        return np.zeros(SIZE)

    asked = flow(task_runner=runner, result_storage=tmp_path / "blocked")(body)
    with pytest.raises(ResultStoreError, match="blocked"):
        asked()
    assert seen().root.state_name == "Failed"
    assert len(flow(task_runner=runner)(body)()) == SIZE
    assert (seen().root.state_name, seen().root.held) == ("Completed", Held.NOWHERE)
    kept = flow(task_runner=runner, result_storage=tmp_path / "kept")(body)
    assert len(kept()) == SIZE
    assert stored(seen().root.name).size > SIZE


def test_results_are_kept_by_s3(oracle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers write to it and read from it; a resume finds it there."""
    s3.needed()
    with s3.running() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        in_s3 = keeping.with_options(result_storage=f"s3://{s3.BUCKET}/results")
        runner = RUNNERS["dask in this process"]
        main = failing_first(lambda: total.submit(in_s3.submit(1, str(oracle))).result(), runner)
        assert stored("large-0").storage == f"s3://{s3.BUCKET}/results"
        assert main.resume("latest") == SUM
        assert ran(oracle) == ["large-1"]


# Workers that die ---------------------------------------------------------------------------------------


@task(persist_result=True)
def with_pid(oracle: str) -> tuple[int, np.ndarray[Any, Any]]:
    """Return the process that has run it, and a large value."""
    note(oracle, "with_pid")
    return os.getpid(), np.ones(SIZE // 8)


@task
def sum_of(pair: tuple[int, np.ndarray[Any, Any]]) -> float:
    """Sum the large value."""
    return float(pair[1].sum())


def test_what_is_kept_does_not_run_again_when_its_worker_dies(
    processes: TaskRunner, oracle: Path
) -> None:
    """Its value is read by those who come after, though its future is still there."""

    @flow(task_runner=processes)
    def main() -> list[float]:
        future = with_pid.submit(str(oracle))
        os.kill(future.result()[0], signal.SIGKILL)
        return [sum_of.submit(future).result() for _ in range(3)]

    assert main() == [SUM] * 3
    assert ran(oracle) == ["with_pid"]


# Gone, damaged, foreign ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gone", "cut", "grown"])
def test_a_file_that_is_not_whole_is_computed_again(
    runner: TaskRunner, oracle: Path, how: str
) -> None:
    """Before a resume asks for anything it sees what is there; the others are left alone."""

    def body() -> list[float]:
        return total.map([keeping.submit(n, str(oracle)) for n in (1, 2)]).result()

    main = failing_first(body, runner)
    file = place("large-0")
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] if how == "cut" else file.read_bytes() + b"x")
    assert main.resume("latest") == [SUM, 2 * SUM]
    assert sorted(ran(oracle)) == ["large-1", "large-1", "large-2"]
    assert any("1 of 2 results are not in their store any more" in line for line in seen().lines)


def test_a_damaged_file_never_gives_a_value(runner: TaskRunner, oracle: Path) -> None:
    """One byte is another: who needs it fails with an error that names it; the next resume mends it."""

    def body() -> Any:
        future = keeping.submit(1, str(oracle))
        seen_by_others = add.submit(1, future)
        try:
            return [float(future.result().sum()), seen_by_others.result()]
        except MissingResult as error:
            raise error from None

    main = failing_first(body, runner)
    (add_run,) = [run for run in seen().tasks if run.task_name == "add"]
    assert add_run.stage is Stage.COMPLETED
    file = place("large-0")
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    with pytest.raises(ResultDamaged, match=r"'large-0' is damaged: 'runs/.*' in the result store"):
        main.resume("latest")
    assert held("large-0") == (Held.LOST, None)
    assert main.resume("latest") == [SUM, SUM + 1]
    assert ran(oracle) == ["large-1", "large-1"]


def test_consumers_of_a_damaged_file_fail(runner: TaskRunner, oracle: Path) -> None:
    """With the error as their own; they run once it was computed again."""
    late: list[str] = []

    def body() -> Any:
        future = keeping.submit(1, str(oracle))
        future.wait()
        if not late:
            late.append("next time")
            return None
        return total.submit(future).result()

    main = failing_first(body, runner)
    file = place("large-0")
    file.write_bytes(bytes(len(file.read_bytes())))
    with pytest.raises(ResultDamaged, match="holds other bytes than were written"):
        main.resume("latest")
    states = {run.name: run.state_name for run in seen().tasks}
    assert states == {"large-0": "Completed", "total-0": "Failed"}
    assert main.resume("latest") == SUM
    assert ran(oracle) == ["large-1", "large-1"]


def test_a_consumer_may_bear_a_damaged_file(runner: TaskRunner) -> None:
    """With ``allow_failure`` it gets the error as the value."""
    late: list[str] = []

    def body() -> Any:
        future = keeping.submit(1)
        future.wait()
        if not late:
            late.append("next time")
            return None
        return name_of.submit(allow_failure(future)).result()

    main = failing_first(body, runner)
    file = place("large-0")
    file.write_bytes(bytes(len(file.read_bytes())))
    assert main.resume("latest") == "ResultDamaged"


@task
def name_of(value: Any) -> str:
    """Return the name of a type."""
    return type(value).__name__


def test_two_runs_under_one_name_do_not_get_each_others_value(
    runner: TaskRunner, tmp_path: Path
) -> None:
    """The one that was overwritten is missed, with an error that says why."""
    named = keeping.with_options(result_storage=tmp_path, result_storage_key="one.pkl")

    @flow(task_runner=runner)
    def main() -> None:
        named.submit(1).wait()
        named.submit(2).wait()

    main()
    first, second = [run.stored for run in seen().tasks]
    assert first is not None
    assert second is not None
    with pytest.raises(ResultDamaged, match="result_storage_key="):
        files.read(first, "large-0")
    assert float(files.read(second, "large-1").sum()) == 2 * SUM


# Stores that workers do not share --------------------------------------------------------------------------


def test_a_store_that_workers_do_not_share_is_refused(processes: TaskRunner) -> None:
    """Before anything is sent out, with an error that says what to set."""
    in_memory = keeping.with_options(result_storage="memory://mine")

    @flow(task_runner=processes)
    def main() -> Any:
        return in_memory.submit(1).result()

    with pytest.raises(
        ResultStoreError, match=r"'memory://mine' is not seen on .*DFLOW_RESULT_STORAGE"
    ):
        main()
    assert seen().tasks == []


def test_a_store_that_workers_do_not_share_keeps_nothing_by_itself(
    processes: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is said once."""
    monkeypatch.setenv("DFLOW_RESULT_STORAGE", "memory://mine")
    monkeypatch.setenv("DFLOW_PERSIST_SECONDS", "0")

    @flow(task_runner=processes)
    def main() -> float:
        return total.submit([large.submit(n) for n in range(3)]).result()

    assert main() == 3 * SUM
    assert {run.held for run in seen().tasks if run.task_name == "large"} == {Held.RUNNER}
    said = [line for line in seen().lines if "memory://mine" in line]
    assert len(said) == 1
    assert "do not share it" in said[0]


def test_nested_work_notices_it_in_its_worker(processes: TaskRunner) -> None:
    """There the attempt fails, or in the body that calls it."""

    @task
    def outer() -> str:
        in_memory = keeping.with_options(result_storage="memory://mine")
        state = in_memory.submit(1, return_state=True)
        return str(state.result(raise_on_failure=False))

    @flow(task_runner=processes)
    def main() -> str:
        return outer.submit().result()

    assert "they do not share it" in main()


def test_a_store_in_memory_serves_bodies_in_this_process(oracle: Path) -> None:
    """There it is the same one."""
    in_memory = keeping.with_options(result_storage="memory://mine")
    runner = RUNNERS["threads"]
    main = failing_first(lambda: total.submit(in_memory.submit(1, str(oracle))).result(), runner)
    assert main.resume("latest") == SUM
    assert ran(oracle) == ["large-1"]


def test_nothing_is_left_in_a_store_but_results(processes: TaskRunner, dflow_home: Path) -> None:
    """No trace of how it was looked at."""

    @flow(task_runner=processes)
    def main(persist: bool) -> None:
        large.with_options(persist_result=persist or None).submit(1).wait()

    main(False)
    assert list((dflow_home / "results").rglob("*")) == []
    main(True)
    there = [path for path in (dflow_home / "results").rglob("*") if path.is_file()]
    assert there == [place("large-0")]
