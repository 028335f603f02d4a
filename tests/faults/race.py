"""Drivers that race for one run: killed, stopped and continued; there are never two who write.

Three processes claim a run, write to it and let go of it, again and again, while one of them after the other
is killed, or stopped for a while. Who is stopped is alive, and keeps its run, as long as others can see that;
to one on another host, which cannot, it is dead after a minute of silence: that one takes over, and what the
first one still wants to write then is refused.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dflow.core import events as ev
from dflow.engine import system
from dflow.journal import SqliteJournal
from tests.faults.reports import Asked, Report
from tests.journal.world import RUN, entry

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0
"""Seconds after which what is waited for will not come any more."""
WRITES = 60
"""How many times a run is written to in a round, at least."""
POLL = 0.002
RACERS = 3
"""How many drivers want the run at once."""

Line = list[str]
"""What a racer has said: its pid, a word, and more."""


class TooLate(Exception):
    """Something did not happen in time."""


@dataclass(slots=True)
class Round:
    """One run and those who want it."""

    home: Path
    luck: random.Random
    racers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def start(self, where: str) -> int:
        """Start a driver; return its pid."""
        command = [sys.executable, "-m", "tests.faults.racer", str(self.home), where]
        racer = subprocess.Popen(command, cwd=ROOT)
        self.racers[racer.pid] = racer
        return racer.pid

    def said(self) -> list[Line]:
        """Return what the drivers have said, in order."""
        try:
            lines = (self.home / "said").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.split() for line in lines]

    def until(self, reached: Callable[[list[Line]], bool], seconds: float = DEADLINE) -> bool:
        """Wait until that is so of what was said; return whether it came to be."""
        end = time.monotonic() + seconds
        while not reached(self.said()):
            if time.monotonic() > end:
                return False
            time.sleep(POLL)
        return True

    def wait(self, reached: Callable[[list[Line]], bool]) -> None:
        """Wait until that is so of what was said. Raises `TooLate`."""
        if not self.until(reached):
            raise TooLate(f"nothing after {DEADLINE} s; the last that was said: {self.said()[-5:]}")

    def writer(self) -> int:
        """Return who wrote last."""
        self.wait(lambda lines: bool(words(lines, "wrote")))
        return int(words(self.said(), "wrote")[-1][0])


def words(lines: list[Line], word: str) -> list[Line]:
    """Return what was said with this word."""
    return [line for line in lines if line[1] == word]


# What happens to them ----------------------------------------------------------------------------------


def kill(game: Round) -> None:
    """Kill who writes; the others go on."""
    pid = game.writer()
    game.racers[pid].kill()
    game.racers[pid].wait()
    game.killed.add(pid)
    game.counts["killed"] += 1
    seen = len(words(game.said(), "claimed"))
    game.start("near")
    game.wait(lambda lines: len(words(lines, "claimed")) > seen)


def stop(game: Round) -> None:
    """Stop who writes for a while: as it lives, nobody else gets the run if it has it."""
    pid = game.writer()
    game.racers[pid].send_signal(signal.SIGSTOP)
    before = game.said()
    holds = _holder(game) == pid
    game.until(lambda lines: _refusals(lines) >= _refusals(before) + 5, seconds=0.5)
    if holds:
        game.counts["stopped"] += 1
        taken = words(game.said()[len(before) :], "claimed")
        game.faults += [f"{line[0]} got the run of {pid}, which was only stopped" for line in taken]
    game.racers[pid].send_signal(signal.SIGCONT)


def _refusals(lines: list[Line]) -> int:
    return len(words(lines, "refused"))


def outlive(game: Round) -> None:
    """Stop who writes, let one on another host take over, and continue the first one."""
    far = game.start("far")
    game.wait(lambda lines: _by(lines, far, "ready"))
    pid = game.writer()
    game.racers[pid].send_signal(signal.SIGSTOP)
    seen = len(game.said())
    (game.home / "far").touch()
    taken = game.until(lambda lines: _by(lines[seen:], far, "wrote"), seconds=2.0)
    game.racers[pid].send_signal(signal.SIGCONT)
    game.counts["taken over from a stopped one"] += taken
    game.wait(lambda lines: _by(lines[seen:], far, "wrote") or _by(lines[seen:], pid, "released"))
    game.racers[far].kill()
    game.racers[far].wait()
    game.killed.add(far)
    _forget_far(game)


def _by(lines: list[Line], pid: int, word: str) -> bool:
    return any(line[:2] == [str(pid), word] for line in lines)


def _holder(game: Round) -> int | None:
    """Return who holds the run, as the catalog says."""
    with closing(SqliteJournal(game.home, is_alive=system.is_alive)) as journal:
        holder = journal.catalog.find(RUN).holder
    return holder.pid if holder else None


def _forget_far(game: Round) -> None:
    """Let go of the run for one on another host that was killed, which nobody here could see."""
    with closing(SqliteJournal(game.home, is_alive=system.is_alive)) as journal:
        found = journal.catalog.find(RUN)
        if found.holder is not None and found.holder.host == "far away":
            journal.catalog.release(RUN, found.epoch)


ACTIONS = (kill, stop, outlive)


# One round ----------------------------------------------------------------------------------------------


@contextmanager
def prepared(home: Path, luck: random.Random) -> Iterator[Round]:
    """Give a run that three drivers want; they have ended afterwards."""
    home.mkdir(parents=True)
    with closing(SqliteJournal(home, is_alive=system.is_alive)) as journal:
        journal.catalog.create(entry())
    game = Round(home, luck)
    try:
        for _ in range(RACERS):
            game.start("near")
        yield game
    finally:
        for racer in game.racers.values():
            racer.send_signal(signal.SIGCONT)
            racer.kill()
            racer.wait()


def play(home: Path, luck: random.Random) -> Round:
    """Play a round; return it with what went wrong."""
    with prepared(home, luck) as game:
        try:
            game.wait(lambda lines: len(words(lines, "ready")) == RACERS)
            for action in luck.sample(ACTIONS, len(ACTIONS)):
                game.wait(_more(len(words(game.said(), "wrote")) + luck.randrange(15)))
                action(game)
            game.wait(lambda lines: len(words(lines, "wrote")) >= WRITES)
            _end(game)
        except (TooLate, subprocess.TimeoutExpired) as error:
            game.faults.append(str(error))
    game.faults += broken(game)
    return game


def _more(writes: int) -> Callable[[list[Line]], bool]:
    return lambda lines: len(words(lines, "wrote")) > writes


def _end(game: Round) -> None:
    (game.home / "done").touch()
    for pid, racer in game.racers.items():
        code = racer.wait(DEADLINE)
        if code and pid not in game.killed:
            game.faults.append(f"{pid} ended with {code}")


# What must hold ----------------------------------------------------------------------------------------


def broken(game: Round) -> list[str]:
    """Return what two writers would have left."""
    lines = game.said()
    with closing(SqliteJournal(game.home, is_alive=system.is_alive)) as journal:
        reader = journal.read(RUN)
        events = [event for _, event in reader.events()]
        faults = [*reader.examine()] + (["the record lacks its end"] if reader.missing() else [])
    found = [event.task_run_id for event in events if isinstance(event, ev.TaskCreated)]
    acknowledged = {int(line[3]): line[4] for line in words(lines, "wrote")}
    game.counts["writes"] += len(acknowledged)
    game.counts["refused as late"] += len(words(lines, "late"))
    if len(acknowledged) != len(words(lines, "wrote")):
        faults.append("two were told the same number")
    faults += [
        f"event {number} was acknowledged as {name}, and is {found[number - 1 : number]}"
        for number, name in acknowledged.items()
        if found[number - 1 : number] != [name]
    ]
    epochs = [int(name.split("-")[0]) for name in found]
    if epochs != sorted(epochs):
        faults.append("an earlier epoch wrote after a later one had begun")
    writers = {(name.split("-")[0], name.split("-")[1]) for name in found}
    if len(writers) != len({epoch for epoch, _ in writers}):
        faults.append("two have written in one epoch")
    claimed = [int(line[2]) for line in words(lines, "claimed")]
    if len(claimed) != len(set(claimed)):
        faults.append("two got the same epoch")
    return faults


def campaign(asked: Asked) -> Report:
    """Race, again and again."""
    report = Report("Drivers that race for one run")
    luck = random.Random(asked.seed)
    counts: Counter[str] = Counter()
    rounds = asked.count(1, 100)
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(rounds):
            game = play(Path(temporary) / str(number), luck)
            counts += game.counts
            report.violations += [f"round {number}: {fault}" for fault in game.faults]
            asked.say(f"round {number + 1} of {rounds}: {dict(game.counts)}")
    shown = ("writes", "killed", "stopped", "taken over from a stopped one", "refused as late")
    figures = {name: counts[name] for name in shown}
    report.rows.append({"rounds": rounds, **figures, "two writers": len(report.violations)})
    return report
