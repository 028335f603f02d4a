"""Resuming and running again, as users see it: over the runners."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dflow import allow_failure, current_run, flow, runs, task
from dflow.core.records import TaskRun
from dflow.flows import Flow
from dflow.ports import TaskRunner
from tests.api.kept import note


@pytest.fixture
def oracle(tmp_path: Path) -> Path:
    """A file in which each execution of a body leaves a line."""
    file = tmp_path / "oracle"
    file.touch()
    return file


def ran(oracle: Path) -> Counter[str]:
    """Return what has run since the last time."""
    lines = oracle.read_text(encoding="utf-8").splitlines()
    oracle.write_text("", encoding="utf-8")
    return Counter(line.split()[0] for line in lines)


def recorded(task_name: str) -> list[TaskRun]:
    """Return the task runs of a task in the latest run."""
    with runs.opened(runs.find("latest")) as reader:
        return [run for run in reader.task_runs() if run.task_name == task_name]


@task
def load(oracle: str) -> int:
    """Give a number."""
    note(oracle, "load")
    return 5


@task
def fragile(number: int, gate: str, oracle: str) -> int:
    """Fail while the gate is shut."""
    note(oracle, "fragile")
    if not Path(gate).exists():
        raise FileNotFoundError(gate)
    return number + 1


@task
def told(given: Any, oracle: str) -> str:
    """Say what came."""
    note(oracle, "told")
    return type(given).__name__


@task
def inner(number: int, oracle: str) -> int:
    """Be called by another."""
    note(oracle, f"inner-{number}")
    return 10 * number


@task
def outer(number: int, oracle: str) -> int:
    """Call and submit others."""
    note(oracle, f"outer-{number}")
    return inner(number, oracle) + inner.submit(number + 1, oracle).result()


@flow
def inside(number: int, oracle: str) -> int:
    """Be called by a task."""
    note(oracle, f"inside-{number}")
    return inner(number, oracle)


@task
def calling(number: int, oracle: str) -> int:
    """Call a flow."""
    note(oracle, f"calling-{number}")
    return inside(number, oracle)


@flow
def pipeline(gate: str, oracle: str) -> Any:
    """Load; then what fails, what is told of it, and what does not care."""
    loaded = load.submit(oracle)
    failed = fragile.submit(loaded, gate, oracle)
    return told.submit(allow_failure(failed), oracle), told.submit(loaded, oracle), failed


@flow
def nested(oracle: str) -> Any:
    """Let tasks call tasks and flows."""
    futures = [outer.submit(1, oracle), outer.submit(5, oracle), calling.submit(9, oracle)]
    return [future.result() for future in futures]


def on(chosen: Flow[..., Any], runner: TaskRunner) -> Flow[..., Any]:
    """Return a flow on a runner."""
    return chosen.with_options(task_runner=runner)


def test_what_failed_is_mended_and_resumed(runner: TaskRunner, oracle: Path) -> None:
    """What had completed stays, but for what had taken the failure."""
    gate = oracle.with_name("gate")
    main = on(pipeline, runner)
    with pytest.raises(FileNotFoundError):
        main(str(gate), str(oracle))
    assert ran(oracle) == {"load": 1, "fragile": 1, "told": 2}
    gate.touch()
    assert main.resume("latest") == ("int", "int", 6)
    assert ran(oracle) == {"fragile": 1, "told": 1}


def test_a_rerun_from_a_task(runner: TaskRunner, oracle: Path) -> None:
    """What follows from it runs again, and nothing else."""
    gate = oracle.with_name("gate")
    gate.touch()
    main = on(pipeline, runner)
    assert main(str(gate), str(oracle)) == ("int", "int", 6)
    ran(oracle)
    assert main.rerun("latest", from_task="fragile") == ("int", "int", 6)
    assert ran(oracle) == {"fragile": 1, "told": 1}
    assert [run.reused for run in recorded("load")] == [2]
    assert main.rerun("latest") == ("int", "int", 6)
    assert ran(oracle) == {"load": 1, "fragile": 1, "told": 2}


def test_a_rerun_of_what_calls_others(runner: TaskRunner, oracle: Path) -> None:
    """What it calls runs again with it; to run again what was called, its caller does."""
    main = on(nested, runner)
    assert main(str(oracle)) == [30, 110, 90]
    ran(oracle)
    one = next(run for run in recorded("outer") if run.name == "outer-0")
    assert main.rerun("latest", from_task=one.id) == [30, 110, 90]
    assert ran(oracle) == {"outer-1": 1, "inner-1": 1, "inner-2": 1}
    assert main.rerun("latest", from_task="inner") == [30, 110, 90]
    everything = {"outer-1", "outer-5", "inner-1", "inner-2", "inner-5", "inner-6"}
    assert ran(oracle) == dict.fromkeys(everything | {"calling-9", "inside-9", "inner-9"}, 1)


def test_a_rerun_with_other_parameters(runner: TaskRunner, oracle: Path) -> None:
    """It is a run of its own, linked to the old one."""
    gate = oracle.with_name("gate")
    gate.touch()
    main = on(pipeline, runner)
    main(str(gate), str(oracle))
    old = runs.find("latest")
    other = oracle.with_name("other")
    assert main.rerun(old.entry.id, oracle=str(other)) == ("int", "int", 6)
    assert ran(other) == {"load": 1, "fragile": 1, "told": 2}
    assert [run.entry.id for run in runs.reruns_of(old)] == [runs.find("latest").entry.id]


def changing(text: str) -> Any:
    """Return the task that a file of this text would define."""
    scope: dict[str, Any] = {"note": note}
    exec(text, scope)
    return task(scope["changed"], name="changed")


OLD = "def changed(number, oracle):\n    note(oracle, 'old')\n    return number"
NEW = OLD.replace("'old'", "'new'").replace("return number", "return number * 100")


def test_changed_code_counts_if_asked(
    runner: TaskRunner, oracle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its results are given with a warning, or with `rerun_changed` made again with what follows."""

    def made(changed: Any) -> Flow[..., Any]:
        @flow(name="main", task_runner=runner)
        def main(gate: str) -> Any:
            first = changed.submit(1, str(oracle))
            followed = told.submit(first, str(oracle))
            followed.result()
            if not Path(gate).exists():
                raise FileNotFoundError(gate)
            return first, followed

        return main

    def begin(gate: Path) -> None:
        made(changing(OLD))(str(gate))

    def resume(rerun_changed: bool) -> None:
        made(changing(NEW)).resume("latest", rerun_changed=rerun_changed)

    gate = oracle.with_name("gate")
    for rerun_changed in (None, False, True):
        caplog.clear()
        with pytest.raises(FileNotFoundError):
            begin(gate) if rerun_changed is None else resume(rerun_changed)
        expected = {None: {"old": 1, "told": 1}, False: {}, True: {"new": 1, "told": 1}}
        assert ran(oracle) == expected[rerun_changed]
        assert ("The code of task 'changed' has changed" in caplog.text) is (rerun_changed is False)
    gate.touch()
    assert made(changing(NEW)).resume("latest") == (100, "int")
    assert not ran(oracle)


@task
def stepping(oracle: str, steps: int) -> int:
    """Take one step for each call, and go on from a checkpoint."""
    place = current_run().checkpoint_dir / "steps"
    done = int(place.read_text()) if place.exists() else 0
    note(oracle, f"from-{done}")
    for number in range(done, steps):
        place.write_text(str(number + 1))
        if number + 1 == 2 and not Path(oracle).with_name("gate").exists():
            raise InterruptedError
    return steps


def test_checkpoints_are_for_resumes_and_not_for_reruns(runner: TaskRunner, oracle: Path) -> None:
    """What runs again from scratch finds nothing of what was before, until it is resumed itself."""

    @flow(task_runner=runner)
    def main() -> int:
        return stepping.submit(str(oracle), 4).result()

    gate = oracle.with_name("gate")
    with pytest.raises(InterruptedError):
        main()
    gate.touch()
    assert main.resume("latest") == 4
    assert ran(oracle) == {"from-0": 1, "from-2": 1}
    gate.unlink()
    with pytest.raises(InterruptedError):
        main.rerun("latest")
    gate.touch()
    assert main.resume("latest") == 4
    assert ran(oracle) == {"from-0": 1, "from-2": 1}
