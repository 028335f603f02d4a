"""``dflow resume`` and ``dflow rerun``: what they do, what they say, how they exit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dflow import runs
from tests.cli.conftest import ROOT, Command

AGAIN = Path(__file__).with_name("again.py")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "gate"


def latest() -> str:
    """Return the name of the latest run."""
    return runs.find("latest").entry.name


def forget_script() -> None:
    """Let a file be loaded again, as in a process of its own."""
    for name in ("__main__", "__mp_main__"):
        sys.modules[name] = sys.modules["pytest"]


# Resuming ---------------------------------------------------------------------------------------------


def test_a_failed_run_goes_on(
    command: Command, gate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause gone, it completes; how far it was is said first, what was reused in its progress."""
    assert command("run", f"{AGAIN}:pipeline", gate).code == 1
    name = latest()
    gate.touch()
    ran = command("resume", name)
    assert (ran.code, ran.out) == (0, "6.0\n")
    kept = "2 of 3 task runs are completed and kept, 1 failed."
    assert f"RESUMING {name} | flow 'pipeline': {kept}" in caplog.text
    assert "load | 1 of 1 done, 1 reused" in ran.err
    shown = command("show", name).out
    assert shown.count("Completed (reused)") == 2
    assert "1 Completed, 1 of them reused" in shown


@pytest.mark.parametrize("form", ["name", "id", "start", "latest"])
def test_a_completed_run_is_left(form: str, command: Command, gate: Path) -> None:
    """Whatever it is called by; it says how to run it again."""
    gate.touch()
    command("run", f"{AGAIN}:pipeline", gate)
    entry = runs.find("latest").entry
    called = {"name": entry.name, "id": entry.id, "start": entry.id[:20], "latest": "latest"}[form]
    ran = command("resume", called)
    assert (ran.code, ran.out) == (0, "")
    assert f"{entry.name} has completed: there is nothing to resume." in ran.err
    assert f"dflow rerun {entry.name}" in ran.err


def test_changed_code_runs_again_if_asked(
    command: Command, gate: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the option the results of the old code are given, with a warning."""
    file = Path(shutil.copy(AGAIN, tmp_path / "mine.py"))
    command("run", f"{file}:pipeline", gate)
    file.write_text(file.read_text().replace("row * by", "row * by * 10"))
    forget_script()
    assert command("resume", "latest").code == 1
    assert "The code of task 'scale' has changed" in caplog.text
    gate.touch()
    ran = command("resume", "latest", "--rerun-changed")
    assert (ran.code, ran.out) == (0, "60.0\n")


# Running again ----------------------------------------------------------------------------------------


def test_rerun_from_a_task(command: Command, gate: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What follows from it runs again in the same run; the rest is shown as reused."""
    gate.touch()
    command("run", f"{AGAIN}:pipeline", gate)
    name = latest()
    ran = command("rerun", name, "--from", "scale")
    assert (ran.code, ran.out) == (0, "6.0\n")
    assert f"RERUNNING {name} from 'scale' | flow 'pipeline': 3 of 3 task runs" in caplog.text
    shown = json.loads(command("show", name, "--json").out)
    assert {r["task"]: (r["generation"], r["reused"]) for r in shown["task_runs"]} == {
        "load": (1, 2), "scale": (2, 0), "check": (2, 0),
    }  # fmt: skip
    assert shown["flow_runs"][0]["generation"] == 2
    assert len(runs.list_runs()) == 1


def test_rerun_of_everything_and_of_what_failed(command: Command, gate: Path) -> None:
    """Without an option all runs again, with --failed nothing that has completed."""
    gate.touch()
    command("run", f"{AGAIN}:pipeline", gate)
    assert command("rerun", "latest").code == 0
    ran = command("rerun", "latest", "--failed")
    assert ran.code == 0
    for name in ("load", "scale", "check"):
        assert f"{name} | 1 of 1 done, 1 reused" in ran.err
        assert f"{name} | 1 of 1 done\n" not in ran.err
    shown = json.loads(command("show", "latest", "--json").out)
    assert [run["generation"] for run in shown["task_runs"]] == [2, 2, 2]
    assert [run["reused"] for run in shown["task_runs"]] == [3, 3, 3]
    gate.unlink()
    assert command("rerun", "latest").code == 1
    gate.touch()
    assert command("rerun", "latest", "--failed").code == 0


def test_an_unknown_task(command: Command, gate: Path) -> None:
    """It is exit code 2, and those that there are are named."""
    gate.touch()
    command("run", f"{AGAIN}:pipeline", gate)
    ran = command("rerun", "latest", "--from", "scael")
    assert ran.code == 2
    assert "no task 'scael'" in ran.err
    assert "'load', 'scale', 'check'" in ran.err
    assert runs.find("latest").state_name == "Completed"


@pytest.mark.parametrize("ended", ["completed", "failed", "killed"])
def test_what_is_refused_leaves_no_trace(ended: str, command: Command, gate: Path) -> None:
    """An unknown task is refused before anything begins: the record and the list are as they were."""
    if ended == "completed":
        gate.touch()
    if ended == "killed":
        gate = gate.with_name("kill")
    assert (
        program(AGAIN, "pipeline", gate).returncode
        == {"completed": 0, "failed": 1, "killed": 9}[ended]
    )

    def told() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in command("export", "latest").out.splitlines()]
        return [{key: line[key] for key in line if key != "sizes"} for line in lines]

    before = told()
    ran = command("rerun", "latest", "--from", "scael")
    assert (ran.code, ran.out) == (2, "")
    assert "no task 'scael'" in ran.err
    assert "Failed" not in ran.err
    assert "resume" not in ran.err
    assert told() == before


def test_rerun_with_other_parameters(command: Command, gate: Path) -> None:
    """It is a run of its own, with the recorded parameters but for those given; each shows the other."""
    gate.touch()
    command("run", f"{AGAIN}:pipeline", gate, "5", "--by", "3")
    old = latest()
    ran = command("rerun", old, "--by", "0.5", "--plus", "7")
    assert (ran.code, ran.out) == (0, "12.0\n")
    new = latest()
    assert new != old
    shown = command("show", new).out
    assert "rows=5, by=0.5" in shown
    assert f"{old} (" in shown
    assert f"{new} (" in command("show", old).out
    assert command("rerun", new, "--new").code == 0
    assert len(runs.list_runs()) == 3
    assert json.loads(command("show", old, "--json").out)["reruns"][0]["name"] == new


def test_parameters_that_are_not_given_are_the_recorded_ones(command: Command) -> None:
    """Of whatever types they are; one without a type is read as what was recorded of it."""
    assert program(AGAIN, "mixed", "").returncode == 0
    ran = command("rerun", "latest", "--n", "4")
    assert (ran.code, ran.out) == (0, "([0, 1, 2, 3], [1], {2: 0.5}, 3.0, 'FAST', 2)\n"), ran.err
    ran = command("rerun", "latest", "--by", "5", "--rows", "7", "--rows", "8")
    assert (ran.code, ran.out) == (0, "([0, 1, 2, 3], [7, 8], {2: 0.5}, 3.0, 'FAST', 5)\n"), ran.err
    for wrong, complaint in (
        (["--n", "many"], 'Invalid value for --n: unable to convert "many"'),
        (["--weights", "1"], "Invalid value for --weights: its type cannot be given"),
    ):
        ran = command("rerun", "latest", *wrong)
        assert ran.code == 2
        assert complaint in ran.err
    assert len(runs.list_runs()) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--speed", "9"], "--speed"),
        (["--by", "much"], "much"),
        (["--from", "load", "--failed"], "Give one of them"),
        (["--from", "load", "--by", "3"], "Other parameters ('by')"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str, command: Command, gate: Path) -> None:
    """It is exit code 2, says what is wrong, and does nothing."""
    gate.touch()
    command("run", f"{AGAIN}:pipeline", gate)
    ran = command("rerun", "latest", *arguments)
    assert ran.code == 2
    assert complaint in ran.err
    assert len(runs.list_runs()) == 1
    assert runs.find("latest").state_name == "Completed"


# Where flows are found again ---------------------------------------------------------------------------


def program(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("how", "value"), [("pipeline", "6.0"), ("options", "6.0"), ("method", "60.0")]
)
def test_a_script_goes_on_by_the_name_of_its_run(
    how: str, value: str, command: Command, gate: Path
) -> None:
    """From another folder, with the options, the object and the parameters with which it began."""
    began = program(AGAIN, how, gate)
    assert began.returncode == 1
    gate.touch()
    ran = command("resume", "latest")
    assert (ran.code, ran.out) == (0, f"{value}\n"), ran.err
    if how == "options":
        entry = runs.find("latest").entry
        assert entry.flow_name == "special"
        assert "ThreadPoolTaskRunner" in json.dumps(
            entry.details["runner"]
        ) or "threads" in json.dumps(entry.details["runner"])


def test_a_module_that_was_run_goes_on(command: Command, gate: Path, tmp_path: Path) -> None:
    """Also one that imports its package by dots (``python -m``)."""
    package = tmp_path / "package" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package.parent / "steps.py").write_text("OFFSET = 5\n")
    text = AGAIN.read_text().replace("FACTOR = 2", "from ..steps import OFFSET")
    (package / "job.py").write_text(text.replace("return sum(rows)", "return sum(rows) + OFFSET"))
    began = program("-m", "package.inner.job", "pipeline", gate, folder=tmp_path)
    assert "FileNotFoundError" in began.stderr
    gate.touch()
    ran = command("resume", "latest")
    assert (ran.code, ran.out) == (0, "11.0\n"), ran.err


def test_a_flow_that_has_no_name_says_how_to_go_on(command: Command, gate: Path) -> None:
    """At its start, and when somebody tries to resume it by its name."""
    began = program(AGAIN, "hidden", gate)
    call = f'hidden.resume("{latest()}")'
    assert f"it was defined inside of a function. Go on with: {call}" in began.stderr
    ran = command("resume", "latest")
    assert ran.code == 2
    assert call in ran.err


def test_a_file_that_is_gone(command: Command, gate: Path, tmp_path: Path) -> None:
    """The error names it, and what goes on without it."""
    file = Path(shutil.copy(AGAIN, tmp_path / "mine.py"))
    command("run", f"{file}:pipeline", gate)
    file.unlink()
    forget_script()
    ran = command("resume", "latest")
    assert ran.code == 2
    assert f"its flow was 'pipeline' in '{file}'" in ran.err
    assert f'pipeline.resume("{latest()}")' in ran.err
