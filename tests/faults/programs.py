"""``dflow run`` and ``dflow resume`` as a user starts them: programs that are watched while they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.faults import oracle
from tests.faults.lanes import ROOT, Place

DEADLINE = 40.0
"""Seconds after which what is waited for will not come any more."""
POLL = 0.01


class TooLate(Exception):
    """Something that was waited for did not come, or the program ended before it did."""


@dataclass(slots=True)
class Program:
    """A program that drives the run of one place."""

    place: Place
    process: subprocess.Popen[bytes]
    began: int
    """How much had been said before it began."""

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    def said(self) -> str:
        """Return what it has written to its standard output and standard error."""
        return self.place.said.read_bytes()[self.began :].decode(errors="replace")

    def until(self, reached: Callable[[], bool], seconds: float = DEADLINE) -> float:
        """Wait for something; return how many seconds that took. Raises `TooLate`."""
        start = time.monotonic()
        while not reached():
            over = time.monotonic() - start
            if over > seconds or self.process.poll() is not None:
                how = f"ended with {self.process.poll()}" if over <= seconds else f"{seconds} s"
                raise TooLate(f"{how}; it said:\n{self.said()[-3000:]}")
            time.sleep(POLL)
        return time.monotonic() - start

    def until_said(self, text: str, seconds: float = DEADLINE) -> float:
        """Wait until it has said something; return how many seconds that took. Raises `TooLate`."""
        return self.until(lambda: text in self.said(), seconds)

    def until_noted(self, lines: int) -> None:
        """Wait until there are so many lines in the oracle. Raises `TooLate`."""
        self.until(lambda: oracle.count(self.place.oracle) >= lines)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = DEADLINE) -> tuple[int, float]:
        """Wait for its end; return its exit code, and after how many seconds. Raises `TooLate`."""
        start = time.monotonic()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            said = self.said()
            self.process.kill()
            self.process.wait()
            raise TooLate(f"it has not ended after {seconds} s; it said:\n{said[-3000:]}") from None
        return code, time.monotonic() - start

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def family(self) -> list[psutil.Process]:
        """Return the processes that it has started, and those that they have."""
        return psutil.Process(self.pid).children(recursive=True)


def _started(place: Place, runner: str, module: str, *command: str) -> Program:
    env = {**os.environ, "DFLOW_HOME": str(place.home), "DFLOW_TASK_RUNNER": runner}
    place.said.touch()
    began = place.said.stat().st_size
    with place.said.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *command],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Program(place, process, began)


def run(place: Place, runner: str, flow: str, gate: str = "") -> Program:
    """Start ``dflow run`` of a flow of the campaigns, or of one that waits for a gate."""
    target = f"tests.faults.{'waits' if gate else 'flows'}:{flow}"
    parameters = ["--oracle", str(place.oracle), *(("--gate", gate) if gate else ())]
    return _started(place, runner, "dflow.cli", "run", target, *parameters)


def script(place: Place, runner: str, flow: str, gate: str) -> Program:
    """Start a script that calls a flow which waits for a gate."""
    return _started(place, runner, "tests.faults.waits", flow, str(place.oracle), gate)


def resume(place: Place, runner: str) -> Program:
    """Start ``dflow resume``."""
    return _started(place, runner, "dflow.cli", "resume", "latest")
