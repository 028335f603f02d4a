"""What README says works as it is written there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dflow import settings

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
