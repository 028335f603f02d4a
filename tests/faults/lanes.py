"""Lanes: one driver at a time, started, perhaps killed at a moment, and waited for."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import psutil

from tests.faults import oracle as noted
from tests.faults.drivers import Order, text_of

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
"""Seconds after which a driver counts as hung."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a driver: killed at a moment, at a transaction, at a system call, or never.

    The moment is some seconds after it has started, or after it has left some lines in the oracle.
    """

    kill_after: float | None = None
    after_lines: int = 0
    crash_at: int = 0
    place: str = "before"
    inject: str = ""
    """What strace is to inject into which system calls, in its words."""
    may_fail: bool = False
    """Whether it may end with an error that says that its journal cannot be used."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a driver ended: killed, or with an exit code; when it began, and what it said."""

    killed: bool
    code: int
    began: float
    hung: bool = False
    said: str = ""
    left: tuple[str, ...] = ()
    """Processes of its own that outlived it by more than a grace."""


class Lane(Protocol):
    """Carries out orders, one at a time."""

    def drive(self, order: Order, said: Path, fate: Fate) -> Ended:
        """Carry out an order, and let the driver have its fate."""

    def close(self) -> None:
        """Let go of what it has open."""


class Forks:
    """Drivers that are forked from one process which has loaded everything."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.drivers", "serve"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._heard()

    def _heard(self) -> list[str]:
        assert self._server.stdout is not None
        return self._server.stdout.readline().split()

    def drive(self, order: Order, said: Path, fate: Fate) -> Ended:
        """Carry out an order, and let the driver have its fate."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        handle = self._server.stdout.fileno()
        began = time.monotonic()
        line = json.dumps({**asdict(order), "said": str(said)})
        print(line, file=self._server.stdin, flush=True)
        pid = int(self._heard()[1])

        def ended(seconds: float) -> bool:
            return bool(select.select([handle], [], [], seconds)[0])

        hung = _meets(fate, Path(order.oracle), pid, ended)
        code = int(self._heard()[1])
        return Ended(code == -signal.SIGKILL, code, began, hung, _read(said))

    def close(self) -> None:
        """End the process."""
        self._server.communicate(timeout=10)


class Programs:
    """Drivers that are programs of their own, from their first line on; they may start processes."""

    def drive(self, order: Order, said: Path, fate: Fate) -> Ended:
        """Carry out an order, and let the driver have its fate; what it has started must end by itself."""
        began = time.monotonic()
        with said.open("ab") as file:
            driver = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.drivers", text_of(order)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        family: list[psutil.Process] = []

        def ended(seconds: float) -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(seconds)
            with contextlib.suppress(psutil.NoSuchProcess):
                family[:] = psutil.Process(driver.pid).children(recursive=True) or family
            return driver.returncode is not None

        hung = _meets(fate, Path(order.oracle), driver.pid, ended)
        code = driver.wait()
        return Ended(code == -signal.SIGKILL, code, began, hung, _read(said), _left(family))

    def close(self) -> None:
        """Nothing is open."""


class Traced(Forks):
    """Drivers into whose system calls faults are injected; the others are forked."""

    def drive(self, order: Order, said: Path, fate: Fate) -> Ended:
        """Carry out an order, and let the driver have its fate."""
        if not fate.inject:
            return super().drive(order, said, fate)
        began = time.monotonic()
        with said.open("ab") as file:
            tracer = subprocess.Popen(
                [
                    *("strace", "-f", "-qqq", "-o", os.devnull),
                    *("-e", f"trace={fate.inject.split(':')[0]}", "-e", f"inject={fate.inject}"),
                    *(sys.executable, "-m", "tests.faults.drivers", text_of(order)),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

        def ended(seconds: float) -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                tracer.wait(seconds)
            return tracer.returncode is not None

        hung = _meets(fate, Path(order.oracle), tracer.pid, ended)
        code = tracer.wait()
        return Ended(code == -signal.SIGKILL, code, began, hung, _read(said))


def _meets(fate: Fate, oracle: Path, pid: int, ended: Callable[[float], bool]) -> bool:
    """Wait until a driver has ended by itself, or kill it when its time has come; tell whether it hung.

    ``ended(seconds)`` waits at most so long, and tells whether it has.
    """
    deadline = time.monotonic() + DEADLINE
    due = noted.count(oracle) + (fate.after_lines or 0)
    while noted.count(oracle) < due:
        if ended(0.005):
            return False
        if time.monotonic() > deadline:
            break
    spared = fate.kill_after is None
    if ended(max(0.0, deadline - time.monotonic()) if spared else fate.kill_after or 0.0):
        return False
    if spared:
        _dump(pid)
    _kill(pid)
    return spared


def _kill(pid: int) -> None:
    """Kill a driver; of one that is traced the tracer ends with it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        traced = process.children() if process.name() == "strace" else []
        for each in traced or [process]:
            each.kill()


@contextmanager
def lane(kind: type[Lane]) -> Iterator[Lane]:
    """Give a lane."""
    opened = kind()
    try:
        yield opened
    finally:
        opened.close()


def _dump(pid: int) -> None:
    """Let a driver that hangs say where its threads are."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        psutil.wait_procs([psutil.Process(pid)], timeout=1.0)


def _left(family: list[psutil.Process]) -> tuple[str, ...]:
    """Return those processes that do not end by themselves, and end them."""
    _, alive = psutil.wait_procs(family, timeout=20)
    lines = tuple(f"{process.pid} {process.name()}" for process in alive)
    for process in alive:
        process.kill()
    return lines


def _read(said: Path) -> str:
    return said.read_text(errors="replace") if said.exists() else ""


@dataclass(init=False, slots=True)
class Place:
    """The home, the oracle and the output of one round, in a folder of its own."""

    folder: Path
    home: Path
    oracle: Path
    said: Path

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self.folder, self.home = folder, home or folder / "home"
        self.oracle, self.said = folder / "oracle", folder / "said"
        folder.mkdir(parents=True)

    def order(self, flow: str, runner: str, **more: object) -> Order:
        """Return an order that is carried out here."""
        where = {"home": str(self.home), "oracle": str(self.oracle)}
        return Order(flow=flow, runner=runner, **where, **more)  # type: ignore[arg-type]  # they are its fields
