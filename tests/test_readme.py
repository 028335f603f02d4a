"""What README says works as it is written there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dflow import runs, settings

README = Path(__file__).parent.parent / "README.md"
PROGRAMS = [
    block
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    if "__main__" in block
]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in a folder, as a user would."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        (
            PROGRAMS[0],
            ["preprocess: 100 rows", "train: mean 0.505", "evaluate: error 0.250"],
        ),
        (PROGRAMS[1], ["2470"]),
        (PROGRAMS[2], ["page 1", "page 2", "['page 0', 'page 1', 'page 2']"]),
    ],
)
def test_the_programs_run(program: str, lines: list[str], tmp_path: Path) -> None:
    """Each whole program, saved and run by a user, prints what it is said to print."""
    script = tmp_path / "first.py"
    script.write_text(program, encoding="utf-8")
    done = python(tmp_path, script.name)
    assert done.stdout.splitlines() == lines, done.stderr
    assert done.returncode == 0


def test_a_direct_flow_starts_no_cluster(tmp_path: Path) -> None:
    """The first flow does not even load Dask."""
    (tmp_path / "first.py").write_text(PROGRAMS[0], encoding="utf-8")
    code = (
        "import sys, first; first.pipeline(); print([m for m in sys.modules if 'distributed' in m])"
    )
    done = python(tmp_path, "-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_first_flow_runs_from_the_command_line(tmp_path: Path) -> None:
    """``dflow run first.py:pipeline --count 50`` passes the parameter on."""
    (tmp_path / "first.py").write_text(PROGRAMS[0], encoding="utf-8")
    done = python(tmp_path, "-m", "dflow.cli", "run", "first.py:pipeline", "--count", "50")
    assert "preprocess: 50 rows" in done.stdout, done.stderr
    assert done.returncode == 0


def trained(output: str) -> set[float]:
    """Return the rates that a sweep says it has trained with; what threads print may share a line."""
    return set(map(float, re.findall(r"training with (0\.\d+)", output)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_sweep_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    """As "When something dies" tells it: it reads Interrupted, and what was done is not done again."""
    script = tmp_path / "sweep.py"
    script.write_text(PROGRAMS[3], encoding="utf-8")
    driver = subprocess.Popen(
        [sys.executable, "-u", script.name], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    said = "".join(driver.stdout.readline() for _ in range(8))
    driver.send_signal(how)
    said += driver.communicate(timeout=60)[0]
    with runs.opened(runs.find("latest")) as record:
        done = {run.name for run in record.task_runs() if run.stage == "completed"}
    assert "Interrupted" in python(tmp_path, "-m", "dflow.cli", "ls").stdout
    resumed = python(tmp_path, "-m", "dflow.cli", "resume", "latest")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines()[-1] == "0.0"
    again = trained(resumed.stdout)
    assert not [n for n in range(40) if f"train-{n}" in done and n / 100 in again]
    assert "preparing" not in resumed.stdout
    assert trained(said) | again == {n / 100 for n in range(40)}
    shown = python(tmp_path, "-m", "dflow.cli", "show", "latest").stdout
    assert "reused" in shown


def test_the_cached_are_not_computed_twice(tmp_path: Path) -> None:
    """As "Not computing twice" tells it: in the same process, and in the next one."""
    (tmp_path / "search.py").write_text(PROGRAMS[4], encoding="utf-8")
    first = python(tmp_path, "search.py").stdout.splitlines()
    assert [line for line in first if line.startswith("[")][1] == "['Cached', 'Completed']"
    assert "".join(first).count("embedding") == 3  # threads may print them on one line
    assert python(tmp_path, "search.py").stdout.splitlines() == 2 * ["['Cached', 'Cached']"]


def test_the_settings_are_listed_with_their_defaults() -> None:
    """The table of settings names each one, with the default that it has."""
    rows = dict(
        re.findall(
            r"^\| `(DFLOW_\w+)` \|.*\| `([^`]+)` \|$",
            README.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    defaults = {
        f"DFLOW_{name.upper()}": field.default
        for name, field in settings.Settings.model_fields.items()
    }
    assert set(rows) == set(defaults)
    for name, default in defaults.items():
        shown = f"{default:g}" if isinstance(default, float) else str(default or "none")
        assert rows[name] == shown
