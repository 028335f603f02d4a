"""What the journal of a killed driver must say, held against the oracle, and against what comes after it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dflow.core import events as ev
from dflow.core import invariants
from dflow.core.history import TaskChange, unroll
from dflow.core.record_invariants import (
    attempts_in_order,
    completed_once,
    no_negative_durations,
    returned_ends_it,
    states_fit_stages,
)
from dflow.core.records import Ending, FlowRun, FlowStage, Stage, TaskRun
from dflow.core.replay import Table
from dflow.engine import system
from dflow.errors import JournalError, RunNotFound
from dflow.journal import SqliteJournal
from dflow.ports import RunReader
from dflow.results.pickling import loads
from tests.faults import oracle
from tests.faults.oracle import Made

Lines = Sequence[dict[str, Any]]


@dataclass(slots=True)
class Broken:
    """What did not hold, by the promise that it breaks."""

    lost: list[str] = field(default_factory=list)
    ran_again: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    invariants: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def all(self) -> Iterator[str]:
        """Yield everything, each with the name of its promise."""
        for promise in ("lost", "ran_again", "doubled", "invariants", "unfinished", "wrong"):
            for sentence in getattr(self, promise):
                yield f"{promise}: {sentence}"

    def add(self, other: Broken) -> None:
        """Take in what another one holds."""
        for promise in self.__slots__:
            getattr(self, promise).extend(getattr(other, promise))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The record of a run as it lies on the disk, and what the oracle has at that moment."""

    events: tuple[ev.Event, ...]
    table: Table
    values: dict[str, bytes]
    noted: Lines
    alive: bool

    @property
    def kept(self) -> set[str]:
        """The task runs and subflows that have completed, with a value that is kept.

        Not those that had taken a failure: what has failed gets another chance, and they with it.
        """
        runs: list[TaskRun | FlowRun] = [*self.table.task_runs.values()]
        runs += self.table.flow_runs.values()
        return {
            run.id
            for run in runs
            if run.stage in (Stage.COMPLETED, FlowStage.COMPLETED)
            and run.held.kept
            and run.id not in self.took_failures
        }

    @property
    def took_failures(self) -> set[str]:
        """The task runs that stand, at whatever distance, on one that has not completed."""
        found: set[str] = set()
        for run in self.table.task_runs.values():  # in the order in which they were created
            for upstream in run.upstreams:
                source = self.table.task_runs.get(upstream.task_run_id)
                failed = source is not None and source.stage is not Stage.COMPLETED
                if failed or upstream.task_run_id in found:
                    found.add(run.id)
        return found


def snapshot(home: Path, noted: Lines, copy: Path) -> Snapshot | None:
    """Return the record of the latest run of a home, read from a copy; None if there is no run yet.

    A copy, so that whoever resumes finds every file as it was left.
    """
    shutil.rmtree(copy, ignore_errors=True)
    if home.exists():
        shutil.copytree(home, copy, ignore=shutil.ignore_patterns("*-shm"))
    with closing(SqliteJournal(copy, is_alive=system.is_alive)) as journal:
        try:
            entry = journal.catalog.find("latest")
        except RunNotFound:
            return None
        alive = journal.catalog.is_alive(entry, 0.0)
        try:
            reader = journal.read(entry.id)
        except RunNotFound:
            return Snapshot((), Table(), {}, noted, alive)
        with closing(reader):
            return _read(reader, noted, alive)


def _read(reader: RunReader, noted: Lines, alive: bool) -> Snapshot:
    numbered = list(reader.events())
    table = Table()
    table.task_runs.update((run.id, run) for run in reader.task_runs())
    table.flow_runs.update((run.id, run) for run in reader.flow_runs())
    ids = [*table.task_runs, *table.flow_runs]
    values = {run_id: value for run_id in ids if (value := reader.value(run_id)) is not None}
    events = tuple(event for _, event in numbered if event is not None)
    return Snapshot(events, table, values, noted, alive)


def look(
    home: Path, noted: Lines, copy: Path, broken: Broken, *, driven: bool = False
) -> Snapshot | None:
    """Take a snapshot; a journal that cannot be read is one of the things that must not be.

    A record that is `driven` has a driver that lives.
    """
    try:
        found = snapshot(home, noted, copy)
        return replace(found, alive=False) if found is not None and driven else found
    except JournalError as error:
        broken.invariants.append(f"the journal cannot be read: {error}")
        return None


# After each kill ---------------------------------------------------------------------------------------


def examine(now: Snapshot, before: Sequence[Snapshot]) -> Broken:
    """Return what is wrong with a record by itself, with the oracle, and with what it was before."""
    broken = Broken()
    broken.invariants += sound(now)
    broken.lost += _not_recorded(now)
    broken.doubled += _doubled(now)
    broken.doubled += _not_done(now)
    broken.ran_again += _opened_again(now)
    for earlier in before:
        if now.events[: len(earlier.events)] != earlier.events:
            broken.lost.append("events of the record before are not those of the record now")
        broken.ran_again += _ran_again(earlier, now)
        broken.lost += _changed_values(earlier, now)
    return broken


def sound(now: Snapshot) -> list[str]:
    """Return the invariants that are broken in the history, or in the records after any of its events."""
    broken = invariants.check(now.events, now.table)
    changes, _ = unroll(now.events)
    ever = [change.after for change in changes]
    task_runs = [run for run in ever if isinstance(run, TaskRun)]
    broken += states_fit_stages(ever)
    broken += attempts_in_order(task_runs)
    broken += completed_once(task_runs)
    broken += returned_ends_it(task_runs)
    broken += no_negative_durations(task_runs)
    if now.alive:
        broken.append("a dead driver counts as alive")
    return list(dict.fromkeys(broken))


def _not_recorded(now: Snapshot) -> Iterator[str]:
    """Yield what a flow was shown and what the record does not have."""
    changes, _ = unroll(now.events)
    states = {(change.after.id, change.after.state_name) for change in changes}
    completed = {change.after.id for change in changes if change.after.stage is Stage.COMPLETED}
    changeable = now.took_failures
    for line in now.noted:
        if line["what"] == "shown":
            made = now.values.get(line["run"])
            if line["run"] not in completed:  # its value may have come from the cache
                yield f"the value of '{line['run']}' was shown and is not recorded"
            elif made and line["run"] not in changeable and line["by"] != _by(made):
                yield f"'{line['run']}' has another value than the one that was shown"
        elif line["what"] == "seen" and (line["run"], line["state"]) not in states:
            yield f"the state {line['state']} of '{line['run']}' was shown and is not recorded"


def _by(value: bytes) -> str:
    made = loads(value)
    return made.by if isinstance(made, Made) else ""


def _doubled(now: Snapshot) -> Iterator[str]:
    """Yield the task runs with two outcomes in one generation, or done twice by one driver."""
    for run in now.table.task_runs.values():
        wins = Counter(a.generation for a in run.attempts if a.ending is Ending.SUCCEEDED)
        if any(count > 1 for count in wins.values()):
            yield f"'{run.name}' has succeeded twice in one generation"
    if any(line["what"] == "doubled" for line in now.noted):
        yield "a fork of the driver did work of its own"
    done = Counter(
        (line["pid"], line["run"], line["generation"], line["attempt"])
        for line in now.noted
        if line["what"] == "start"
    )
    for (pid, run_id, generation, attempt), count in done.items():
        if count > 1:
            where = f"attempt {attempt} of generation {generation}"
            yield f"{where} of '{run_id}' was executed {count} times in process {pid}"


def _not_done(now: Snapshot) -> Iterator[str]:
    """Yield the attempts that the record has as succeeded, and whose body never came to its end."""
    ends = {
        (line["run"], line["generation"], line["attempt"])
        for line in now.noted
        if line["what"] == "end"
    }
    for run in now.table.task_runs.values():
        for attempt in run.attempts:
            key = (run.id, attempt.generation, attempt.number)
            if attempt.ending is Ending.SUCCEEDED and key not in ends:
                yield f"attempt {attempt.number} of '{run.name}' is recorded, and was not done"


def _opened_again(now: Snapshot) -> Iterator[str]:
    changes, _ = unroll(now.events)
    for change in changes:
        before = change.before
        if (
            isinstance(change, TaskChange)
            and isinstance(change.event, ev.Reopened)
            and isinstance(before, TaskRun)
            and before.stage is Stage.COMPLETED
            and before.held.kept
        ):
            yield f"'{before.name}' had completed, its value was kept, and it was opened again"


def _ran_again(before: Snapshot, now: Snapshot) -> Iterator[str]:
    then, later = oracle.starts(list(before.noted)), oracle.starts(list(now.noted))
    for run_id in before.kept:
        if later[run_id] > then[run_id]:
            yield f"'{run_id}' had completed, its value was kept, and its body ran again"


def _changed_values(before: Snapshot, now: Snapshot) -> Iterator[str]:
    then, later = _shown(before.noted), _shown(now.noted[len(before.noted) :])
    for run_id in before.kept:
        if now.values.get(run_id) != before.values.get(run_id):
            yield f"the value of '{run_id}' was kept, and is not what it was"
        if run_id in then and run_id in later and then[run_id] != later[run_id]:
            yield f"the value of '{run_id}' was kept and shown, and another one was shown later"


def _shown(noted: Lines) -> dict[str, str]:
    return {line["run"]: line["by"] for line in noted if line["what"] == "shown"}


# At the end ----------------------------------------------------------------------------------------------


def judge(last: Snapshot | None, value: object, work: Counter[str]) -> Broken:
    """Return what is wrong with a run that has come to its end, and must have given this value.

    `work` is under how many identities each piece of work began in a run that nothing disturbed.
    """
    broken = Broken()
    root = None if last is None else next(iter(last.table.flow_runs.values()), None)
    if last is None or root is None or root.stage is not FlowStage.COMPLETED:
        state = "no record" if root is None else f"the state {root.state_name}: {root.message}"
        broken.unfinished.append(f"in the end the run has {state}")
        return broken
    for key, count in oracle.identities(list(last.noted)).items():
        if count > max(1, work[key]):
            broken.ran_again.append(f"'{key}' was done as {count} task runs, not {work[key]}")
    returned = [line["value"] for line in last.noted if line["what"] == "returned"]
    recorded = loads(last.values[root.id]) if root.id in last.values else None
    for found in [*returned, recorded]:
        if found != value:
            broken.wrong.append(f"it gave {found!r}, not {value!r}")
    return broken
