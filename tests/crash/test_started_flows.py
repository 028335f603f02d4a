"""Flows that go on beside the main thread, when the program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dflow import runs
from tests.pythons import threads_at_exit

SCRIPT = Path(__file__).with_name("started.py")


def begun(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the script, and wait until its flows run."""
    program = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "DFLOW_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "started\n"
    return program


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the record, for the script and for us."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path))
    return tmp_path


@threads_at_exit
def test_a_program_waits_for_what_it_has_started(home: Path) -> None:
    """Though its main thread has come to the end, the runs complete."""
    program = begun(home, "3", "go on")
    _, said = program.communicate(timeout=60)
    assert program.returncode == 0, said
    assert [listed.state_name for listed in runs.list_runs()] == ["Completed", "Completed"]


@pytest.mark.parametrize("how", ["wait", "go on"])
def test_ctrl_c_interrupts_what_was_started(home: Path, how: str) -> None:
    """While the main thread waits for the runs, and when it has come to its end."""
    program = begun(home, "2000", how)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=30)
    assert [listed.state_name for listed in runs.list_runs()] == ["Interrupted"] * 2, said
