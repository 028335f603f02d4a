"""One of several drivers that want the same run: it claims, writes and lets go, until it is told to end.

``python -m tests.faults.racer HOME near|far``. A ``far`` one is as on another host: it cannot see whether
others live, and takes who has been silent for long for dead; it begins when there is a file ``far``. What it
does it says in the file ``said``, one line each, after it is done: that file is the oracle.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from dflow.core import machine
from dflow.engine import system
from dflow.errors import JournalUnavailable, RunHeld, RunTakenOver
from dflow.journal import SqliteJournal
from dflow.ports import Batch
from tests.journal.world import RUN, task_created

TURN = 12
"""How many times a driver writes before it lets go."""
PAUSE = 0.005
"""Seconds between two things that a driver does."""
SILENCE = 1000.0
"""By how many seconds the clock of a far driver is ahead: who is silent has been so for that long."""


class Racer:
    """A driver among others."""

    def __init__(self, home: Path, *, far: bool) -> None:
        self.home, self.far = home, far
        probe = (lambda holder: None) if far else system.is_alive
        self.journal = SqliteJournal(home, is_alive=probe)
        self.holder = replace(system.holder(), host="far away") if far else system.holder()
        self.oracle = os.open(home / "said", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(self, *words: object) -> None:
        """Say that something is done."""
        os.write(self.oracle, (" ".join(map(str, (os.getpid(), *words))) + "\n").encode())

    def now(self) -> float:
        """Return the time as it is here."""
        return time.time() + SILENCE * self.far

    def run(self) -> None:
        """Take part until there is a file ``done``."""
        self.say("ready")
        while self.far and not (self.home / "far").exists():
            time.sleep(PAUSE)
        while not (self.home / "done").exists():
            try:
                epoch = self.journal.catalog.claim(RUN, self.holder, self.now())
            except RunHeld as held:
                self.say("refused", held.pid)
            except JournalUnavailable:
                self.say("blocked")
            else:
                self.say("claimed", epoch)
                self.drive(epoch)
            time.sleep(PAUSE)
        self.journal.close()

    def drive(self, epoch: int) -> None:
        """Write some, and let go, unless another has taken over."""
        try:
            record = self.journal.write(RUN, epoch)
            for turn in range(TURN):
                event = task_created(f"{epoch}-{os.getpid()}-{turn}")
                number = record.append(Batch([event], [machine.create(event)[0]]))
                self.say("wrote", epoch, number, event.task_run_id)
                time.sleep(PAUSE)
            record.close()
            self.journal.catalog.release(RUN, epoch)
            self.say("released", epoch)
        except RunTakenOver:
            self.say("late", epoch)
        except JournalUnavailable:
            self.say("blocked", epoch)


if __name__ == "__main__":
    Racer(Path(sys.argv[1]), far=sys.argv[2] == "far").run()
