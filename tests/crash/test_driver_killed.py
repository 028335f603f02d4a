"""kill -9 of the driver: nothing that was finished and kept is lost or done twice, nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dflow import runs
from dflow.core.records import Held, Stage, TaskRun
from dflow.errors import JournalError, RunNotFound
from tests.records import sound

PIPELINE = Path(__file__).parent / "pipeline.py"
WEIGHTS = Path(__file__).parent / "weights.py"
DEADLINE = 60.0
"""Seconds after which what a test waits for will not come any more."""


def until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process brings about. Fails when it ends before, or the deadline passes."""
    deadline = time.monotonic() + DEADLINE
    while not reached():
        assert process.poll() is None, f"it ended before: {process.communicate()}"
        assert time.monotonic() < deadline, "the deadline has passed"
        time.sleep(0.01)


def start(*command: str) -> subprocess.Popen[str]:
    """Start a program with this Python."""
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that a program has started, and those that they have."""
    return psutil.Process(process.pid).children(recursive=True)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a program; all that it had started must end by itself."""
    started = family(process)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []


def record() -> tuple[str, dict[str, TaskRun]]:
    """Return the state of the latest run and its task runs by name; its invariants must hold."""
    listed = runs.find("latest")
    with runs.opened(listed) as reader:
        table = sound(reader)
    return listed.state_name, {run.name: run for run in table.task_runs.values()}


def executions(oracle: Path) -> Counter[str]:
    """Return how often each body was executed."""
    lines = oracle.read_text(encoding="utf-8").splitlines() if oracle.exists() else []
    return Counter(line.split()[0] for line in lines)


def completed() -> int:
    """Return how many task runs the journal of the latest run has as completed, so far."""
    try:
        with runs.opened(runs.find("latest")) as reader:
            return sum(states.get("Completed", 0) for states in reader.counts().values())
    except (RunNotFound, JournalError):
        return 0


@pytest.mark.parametrize("finished", [1, 30, 60])
def test_what_was_finished_is_not_done_again(finished: int, tmp_path: Path) -> None:
    """A driver is killed when some task runs have completed, and resumed by the run's name alone."""
    oracle = tmp_path / "oracle"
    oracle.touch()
    driver = start(str(PIPELINE), str(oracle))
    until(lambda: completed() >= finished, driver)
    kill(driver)

    state, before = record()
    assert state == "Interrupted"
    kept = [
        name
        for name, run in before.items()
        if run.stage is Stage.COMPLETED and run.held is Held.JOURNAL
    ]
    assert len(kept) >= finished
    earlier = executions(oracle)

    resumed = start("-m", "dflow.cli", "resume", "latest")
    out, err = resumed.communicate(timeout=DEADLINE)
    assert resumed.returncode == 0, err
    assert "Score(number=39, value=78.0)" in out
    state, after = record()
    assert state == "Completed"
    assert {run.stage for run in after.values()} == {Stage.COMPLETED}
    assert len(after) == 81
    assert {name: executions(oracle)[name] for name in kept} == {n: earlier[n] for n in kept}


@pytest.mark.parametrize("finished", [1, 30])
def test_large_results_are_found_again(
    finished: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that workers have stored, asked for or by themselves, do not run again after a kill."""
    monkeypatch.setenv("DFLOW_PERSIST_SECONDS", "0.01")
    oracle = tmp_path / "oracle"
    oracle.touch()
    driver = start(str(WEIGHTS), str(oracle))
    until(lambda: completed() >= finished, driver)
    kill(driver)
    _, before = record()
    stored = [name for name, run in before.items() if run.held is Held.STORED]
    assert len(stored) >= finished
    earlier = executions(oracle)

    resumed = start("-m", "dflow.cli", "resume", "latest")
    out, err = resumed.communicate(timeout=DEADLINE)
    assert resumed.returncode == 0, err
    assert "210.0" in out
    state, after = record()
    assert state == "Completed"
    assert {name: executions(oracle)[name] for name in stored} == {n: earlier[n] for n in stored}
    assert {run.held for run in after.values()} == {Held.STORED}


def test_killed_while_it_resumes(tmp_path: Path) -> None:
    """A resume that is killed is resumed."""
    oracle = tmp_path / "oracle"
    oracle.touch()
    driver = start(str(PIPELINE), str(oracle))
    until(lambda: completed() >= 10, driver)
    kill(driver)
    resumed = start("-m", "dflow.cli", "resume", "latest")
    until(lambda: completed() >= 40, resumed)
    kill(resumed)
    assert record()[0] == "Interrupted"
    again = start("-m", "dflow.cli", "resume", "latest")
    _, err = again.communicate(timeout=DEADLINE)
    assert again.returncode == 0, err
    assert record()[0] == "Completed"


def test_a_rerun_that_is_killed_goes_on(tmp_path: Path) -> None:
    """What it has done again is not done a third time, the rest is; what comes before stays as it is."""
    oracle = tmp_path / "oracle"
    oracle.touch()
    first = start(str(PIPELINE), str(oracle), "16")
    assert first.wait(DEADLINE) == 0, first.communicate()
    first.communicate()
    again = start("-m", "dflow.cli", "rerun", "latest", "--from", "score")
    until(lambda: again_completed() >= 4, again)
    kill(again)
    state, before = record()
    assert state == "Interrupted"
    kept = [
        name
        for name, run in before.items()
        if run.generation == 2 and run.stage is Stage.COMPLETED and run.held is Held.JOURNAL
    ]
    assert len(kept) >= 4
    earlier = executions(oracle)
    resumed = start("-m", "dflow.cli", "resume", "latest")
    _, err = resumed.communicate(timeout=DEADLINE)
    assert resumed.returncode == 0, err
    state, after = record()
    assert state == "Completed"
    later = executions(oracle)
    assert {name: later[name] for name in kept} == {name: earlier[name] for name in kept}
    scored = [run for run in after.values() if run.task_name != "prepare"]
    assert min(run.generation for run in scored) >= 2
    assert {run.generation for run in after.values() if run.task_name == "prepare"} == {1}
    assert {later[f"prepare-{number}"] for number in range(16)} == {1}


def again_completed() -> int:
    """Return how many task runs of the latest run have completed in their second generation, so far."""
    try:
        with runs.opened(runs.find("latest")) as reader:
            return sum(r.generation == 2 and r.stage is Stage.COMPLETED for r in reader.task_runs())
    except (RunNotFound, JournalError):
        return 0


def test_the_demo_is_killed_and_resumed() -> None:
    """The demo's pipeline, cut down to four models, is killed in the middle and completes when resumed."""
    command = ("-m", "dflow.cli", "run", "dflow.examples.digits:digits", "--configurations", "4")
    driver = start(*command)
    until(lambda: completed() >= 12, driver)
    kill(driver)
    state, before = record()
    assert state == "Interrupted"
    scored = {name: run for name, run in before.items() if run.task_name == "score"}
    resumed = start("-m", "dflow.cli", "resume", "latest")
    out, err = resumed.communicate(timeout=2 * DEADLINE)
    assert resumed.returncode == 0, err
    assert "held out" in out
    state, after = record()
    assert state == "Completed"
    for name, run in scored.items():
        if run.stage is Stage.COMPLETED:
            assert after[name].attempts == run.attempts


def test_a_live_driver_keeps_its_run(tmp_path: Path) -> None:
    """A second driver is refused, and told who holds the run; the first goes on."""
    oracle = tmp_path / "oracle"
    oracle.touch()
    driver = start(str(PIPELINE), str(oracle), "3000")
    until(lambda: completed() >= 1, driver)
    for what in (["resume", "latest"], ["rerun", "latest", "--from", "score"]):
        second = start("-m", "dflow.cli", *what)
        _, err = second.communicate(timeout=DEADLINE)
        assert second.returncode == 2
        assert str(driver.pid) in err
    before = completed()
    until(lambda: completed() > before, driver)
    kill(driver)
