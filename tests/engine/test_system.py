"""Processes as other processes see them: which of them live, whatever the clock says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from msgspec.structs import replace

from dflow.engine import system
from dflow.ports import Holder


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Return a process that waits until its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def as_holder(process: subprocess.Popen[str]) -> Holder:
    """Return a process as it would describe itself."""
    return replace(system.holder(), pid=process.pid, started_at=system._started_at(process.pid))


def test_a_process_lives_until_it_is_killed(other: subprocess.Popen[str]) -> None:
    """A process that runs lives; killed, it is dead at once, also before its parent has asked for it."""
    seen = as_holder(other)
    assert system.is_alive(system.holder())
    assert system.is_alive(seen)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE
    assert system.is_alive(seen) is False
    other.wait()
    assert system.is_alive(seen) is False


def test_a_pid_that_is_used_again_is_another_process() -> None:
    """The same pid with another start, or of another boot, is not the process that was meant."""
    here = system.holder()
    assert system.is_alive(replace(here, started_at=here.started_at - 5.0)) is False
    assert system.is_alive(replace(here, boot_id="another")) is False


def test_what_cannot_be_seen_is_not_taken_for_dead() -> None:
    """Of processes on another host, or in another container with the same name, nothing is known."""
    here = system.holder()
    assert system.is_alive(replace(here, host="another", pid=1)) is None
    assert system.is_alive(replace(here, pids="pid:[1]", pid=2**22 + 1)) is None
    assert system.is_alive(replace(here, pids="")) is True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts from its boot")
def test_setting_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time of day is set, a process that lives still does: its start is told from the boot."""
    here = system.holder()
    boot = psutil._pslinux.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 86400.0)
    assert abs(psutil.Process().create_time() - here.started_at - boot) > 80000.0
    assert system.is_alive(here)
    assert system.holder() == here


def test_a_start_in_wall_clock_time_is_understood() -> None:
    """A start in seconds since 1970, as other systems and early records tell it, is understood."""
    here = replace(system.holder(), started_at=psutil.Process().create_time())
    assert system.is_alive(here)
    assert system.is_alive(replace(here, started_at=here.started_at - 5.0)) is False
