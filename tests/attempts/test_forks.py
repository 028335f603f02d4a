"""Copies of a process that a body has forked."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from dflow.attempts.forks import copies_end

with copies_end():
    child = os.fork()
    if child == 0:
        print("in the copy", flush=True)
        {ending}
_, status = os.waitpid(child, 0)
print("went on", os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('a reason')", 1, ""),
        ("raise ValueError('in the copy')", 1, "ValueError: in the copy"),
    ],
)
def test_a_copy_ends_with_the_body(ending: str, code: int, said: str) -> None:
    """Only the original goes on; the copy's exit code is its own, and what it raised is said."""
    program = PROGRAM.format(ending=ending)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"in the copy\nwent on {code}\n"
    assert said in ran.stderr
    assert bool(said) == bool(ran.stderr)


def test_without_a_fork_nothing_happens() -> None:
    """What is raised inside goes on as it is."""
    program = (
        "from dflow.attempts.forks import copies_end\nwith copies_end():\n    raise SystemExit(5)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 5
