"""Records that were cut or altered: detected, or harmless; never a state that nobody has written.

A driver's files are taken as a kill leaves them: the record and its write-ahead log, or its rollback journal,
and the watermark. Each is cut at every boundary of frames and pages, one byte before and one behind; deleted;
and single bits are flipped. Then the run is read, and taken up by a new driver who writes to it. Either the
journal refuses, or what is read was written, and what of it is missing is told.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dflow.core import events as ev
from dflow.core.records import Held
from dflow.errors import JournalError, RunNotFound
from dflow.journal import SqliteJournal
from dflow.ports import Missing, RunReader
from tests.faults.reports import Asked, Report
from tests.faults.tools import in_memory
from tests.journal.world import (
    RUN,
    Driver,
    World,
    entry,
    flow_created,
    life,
    log,
    mapped,
)

ROOT = Path(__file__).parents[2]
BATCHES = 30
"""How many transactions a subject has."""

WAITING = [f"w{n}" for n in range(60)]
"""Task runs that wait all the time."""

Files = dict[str, bytes]
State = list[Any]
"""All that a record tells."""


def told(reader: RunReader) -> State:
    """Return all that a record tells. The values come last."""
    task_runs = list(reader.task_runs())
    return [
        [event for _, event in reader.events()],
        task_runs,
        list(reader.flow_runs()),
        reader.counts(),
        [reader.task_run(run.id) for run in task_runs],
        list(reader.logs()),
        [reader.value(run.id) for run in task_runs],
    ]


# What is damaged ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Subject:
    """The files of a run as a kill has left them, and every state that was acknowledged before, in order."""

    name: str
    kind: str
    files: Files = field(default_factory=dict)
    states: list[State] = field(default_factory=list)

    def boundaries(self, name: str) -> list[int]:
        """Return where a file may be cut between two things that belong together."""
        size = len(self.files[name])
        if name.endswith("-wal"):
            return [0, *range(32, size, 24 + 4096)]
        if name.endswith("-journal"):
            return [0, *range(512, size, 4 + 4096 + 4)]
        return list(range(0, size, 4096 if name.endswith(".sqlite") else 1))


def opened(home: Path, kind: str) -> SqliteJournal:
    """Open the journal of a home."""
    return SqliteJournal(home, is_alive=World({1}), file_system_of=lambda path: kind)


def folder(home: Path) -> Path:
    """Return the folder of the run."""
    return home / "runs" / RUN


def files_of(home: Path) -> Files:
    """Return the files of the run that say something."""
    kept = [path for path in folder(home).iterdir() if not path.name.endswith("-shm")]
    return {path.name: path.read_bytes() for path in kept if path.is_file()}


def write(home: Path, kind: str, *, whole: bool) -> tuple[SqliteJournal, Driver, list[State]]:
    """Record a run, in two epochs; return the open journal and each state that was acknowledged."""
    journal, driver, states = opened(home, kind), Driver(), []
    journal.catalog.create(entry())
    record = journal.write(RUN, 1)
    batches = [([flow_created(), mapped(*WAITING)], [log("hello", "w0")])]
    batches += [
        (life(f"t{n}", bytes([n]) * n * 60), [log(f"line {n}", f"t{n}")]) for n in range(BATCHES)
    ]
    batches += [([ev.CancelRequested(at=9.0, task_run_id="w0")], []), ([], [log("the end")])]
    states.append(told(record))
    for number, (events, lines) in enumerate(batches):
        if number == len(batches) // 2:
            record.close()
            record = journal.write(RUN, 2)
        record.append(driver.batch(events, lines))
        states.append(told(record))
    if whole:
        record.close()
    return journal, driver, states


def subjects(home: Path, *, full: bool) -> Iterator[Subject]:
    """Yield what is damaged: runs that were killed, closed, and (in `full`) killed while they wrote."""
    for name, kind, whole in (("killed", "ext4", False), ("closed, on NFS", "nfs4", True)):
        subject = Subject(name, kind)
        journal, _, subject.states = write(home / name, kind, whole=whole)
        subject.files = files_of(home / name)
        journal.close()
        yield subject
    if full:
        yield cut_short(home / "cut")


IN_FLIGHT = """
import os, signal, sys
from pathlib import Path
from dflow.journal.sqlite import connection
from tests.faults import corruption
from tests.journal.world import RUN, life
journal, driver, _ = corruption.write(Path(sys.argv[1]), "nfs4", whole=True)
record = journal.write(RUN, 3)
record._connection.pragma("cache_size = 2")  # the file is changed before the end
connection.Use.__exit__ = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
record.append(driver.batch([event for n in range(300) for event in life(f"new {n}")]))
"""
"""Is killed when part of a transaction is in the file, and before it was committed."""


def cut_short(home: Path) -> Subject:
    """Return a run whose driver was killed within a transaction, part of which is in the file already."""
    subject = Subject("cut short on NFS", "nfs4")
    command = [sys.executable, "-c", IN_FLIGHT, str(home)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    subject.files = files_of(home)
    assert "journal.sqlite-journal" in subject.files
    with TemporaryDirectory() as temporary:
        journal, _, subject.states = write(Path(temporary), "nfs4", whole=True)
        journal.close()
    return subject


# Damaging ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a file, in words, and the files after it."""

    what: str
    name: str
    how: str
    files: Files


def cuts(subject: Subject) -> Iterator[Fault]:
    """Yield every cut at a boundary, one byte before it and one behind, and every file deleted."""
    for name, content in subject.files.items():
        others = {key: value for key, value in subject.files.items() if key != name}
        yield Fault("cut", name, "deleted", others)
        ends = {end + step for end in subject.boundaries(name) for step in (-1, 0, 1)}
        for end in sorted(end for end in ends if 0 <= end < len(content)):
            yield Fault("cut", name, f"cut at {end}", others | {name: content[:end]})


def flips(subject: Subject, luck: random.Random, times: int) -> Iterator[Fault]:
    """Yield single bits flipped, as many in each file."""
    for name, content in subject.files.items():
        for _ in range(times):
            at, bit = luck.randrange(len(content)), luck.randrange(8)
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            yield Fault(
                "flip", name, f"bit {bit} of byte {at}", subject.files | {name: bytes(changed)}
            )


# Looking at what became of it ------------------------------------------------------------------------------


def put(home: Path, files: Files) -> None:
    """Put files in the place of the run's."""
    shutil.rmtree(folder(home), ignore_errors=True)
    folder(home).mkdir(parents=True)
    for name, content in files.items():
        (folder(home) / name).write_bytes(content)


def verdict(subject: Subject, state: State, missing: Missing) -> str:
    """Return ``harmless`` or ``detected`` for what was read, or what is wrong with it."""
    whole = subject.states[-1]
    for known in reversed(subject.states):
        if state[:-1] != known[:-1]:
            continue
        lost = Missing(len(whole[0]) - len(known[0]), len(whole[5]) - len(known[5]))
        if missing != lost:
            return f"{lost} are gone, and {missing} are told to be"
        return _values(state, known) or ("detected" if missing else "harmless")
    return "what is read was never written"


def _values(state: State, known: State) -> str:
    """Return what is wrong with the values, or ``detected`` if one is gone that is said to be kept."""
    found = ""
    for run, value, expected in zip(state[1], state[-1], known[-1], strict=True):
        if value == expected:
            continue
        if value is not None or run.held is not Held.JOURNAL:
            return f"the value of '{run.id}' is another"
        found = "detected"  # whoever asks for it is told that it is missing
    return found


def read(home: Path, subject: Subject) -> str:
    """Read the run; return what became of it."""
    with closing(opened(home, subject.kind)) as journal:
        reader = journal.read(RUN)
        return verdict(subject, told(reader), reader.missing())


def take_up(home: Path, subject: Subject) -> str:
    """Take the run up and write to it; return what became of it."""
    with closing(opened(home, subject.kind)) as journal:
        record = journal.write(RUN, 9)
        before = told(record)
        found = verdict(subject, before, record.missing())
        another = flow_created("another")
        record.append(Driver().batch([another], [log("more")]))
        after = told(record)
        if after[0] != [*before[0], another] or after[1] != before[1] or record.missing() is None:
            return "what was written to it is not what is read"
        return found


def outcome(look: Callable[[Path, Subject], str], home: Path, subject: Subject) -> str:
    """Return what became of the run: ``detected``, ``harmless``, or what is wrong."""
    try:
        return look(home, subject)
    except (JournalError, RunNotFound):
        return "detected"
    except Exception as error:
        return f"{type(error).__name__} came out: {error}"


def campaign(asked: Asked) -> Report:
    """Cut and flip, and count what became of it."""
    report = Report("Records that were cut or altered")
    luck = random.Random(asked.seed)
    with TemporaryDirectory(dir=in_memory()) as temporary:
        home = Path(temporary)
        for subject in subjects(home, full=asked.full):
            faults = list(cuts(subject))
            if not asked.full:
                faults = luck.sample(faults, min(len(faults), asked.count(12, 0)))
            faults += flips(subject, luck, asked.count(5, 400))
            _try(home / "trial", subject, faults, report)
            asked.say(f"{subject.name}: {len(faults)} faults")
    return report


def _try(home: Path, subject: Subject, faults: list[Fault], report: Report) -> None:
    """Try every fault of one subject, and add its rows to the report."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in subject.files}
    with closing(opened(home / subject.name, subject.kind)) as journal:
        journal.catalog.create(entry())
    for fault in faults:
        row = counts[fault.name]
        row[fault.what] += 1
        for look in (read, take_up):
            put(home / subject.name, fault.files)
            found = outcome(look, home / subject.name, subject)
            row[found if found in ("detected", "harmless") else "wrong"] += 1
            if found not in ("detected", "harmless"):
                where = f"{subject.name}, {fault.name}, {fault.how}, {look.__name__}"
                report.violations.append(f"{where}: {found}")
    for name, row in counts.items():
        report.rows.append(
            {
                "run": subject.name,
                "file": name,
                "bytes": len(subject.files[name]),
                "cuts": row["cut"],
                "flips": row["flip"],
                "detected": row["detected"],
                "harmless": row["harmless"],
                "silently wrong": row["wrong"],
            }
        )
