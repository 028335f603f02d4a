"""What holds for every test: a home of its own, the same luck in CI, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

GRACE = 5.0
"""Seconds in which processes and threads may come to their end after the last test."""

HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Processes of the standard library, which it ends together with this one."""

LEFT = pytest.StashKey[list[str]]()

hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")


@pytest.fixture(autouse=True)
def dflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a DFLOW_HOME of its own, and no other setting from outside.

    A module whose tests want another home defines a fixture of this name.
    """
    for name in [name for name in os.environ if name.startswith("DFLOW_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "dflow-home"
    monkeypatch.setenv("DFLOW_HOME", str(home))
    return home


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "dflow-test", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    if not done:
        pytest.skip("only root on Linux can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _threads() -> list[threading.Thread]:
    """Return the threads for which the interpreter would wait at its end."""
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    return [t for t in others if not t.daemon]


def _children() -> list[psutil.Process]:
    """Return the processes that this one, or a child of it, has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
            mine = process.ppid() == os.getpid()  # a fork of a fork server looks like that
        except psutil.Error:  # it has just ended
            continue
        if not (mine and any(helper in line for helper in HELPERS)):
            found.append(process)
    return found


def _describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that leaves processes or threads behind; end the processes."""
    deadline = time.monotonic() + GRACE
    for thread in _threads():
        thread.join(max(deadline - time.monotonic(), 0))
    _, processes = psutil.wait_procs(_children(), max(deadline - time.monotonic(), 0))
    left = [f"thread '{thread.name}'" for thread in _threads()] + [*map(_describe, processes)]
    for process in processes:
        process.kill()
    session.config.stash[LEFT] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was left behind."""
    left = config.stash.get(LEFT, [])
    if left:
        terminalreporter.section("left behind by the tests", red=True)
    for line in left:
        terminalreporter.line(line)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Do not wait for threads that were left behind: they might never end."""
    if config.stash.get(LEFT, []) and _threads():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(pytest.ExitCode.TESTS_FAILED)
