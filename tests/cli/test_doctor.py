"""``dflow doctor``: what it finds here, and in the record of a run."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import runs
from dflow.cli import checks, doctor
from dflow.engine import process
from dflow.journal.sqlite.rows import label_mark, page_row, unpack
from tests.cli.conftest import Command


def test_all_is_well(command: Command, dflow_home: Path) -> None:
    """Without problems it exits with 0, and shows versions, settings with their origin, and the journal."""
    ran = command("doctor")
    assert ran.code == 0
    assert "DFLOW_HOME" in ran.out
    assert "No problems were found." in ran.out
    found = json.loads(command("doctor", "--json").out)
    assert set(found) == set(doctor.Findings.__annotations__)
    assert found["settings"]["home"]["origin"] == "DFLOW_HOME"
    assert found["settings"]["durability"]["origin"] == "default"
    assert found["journal"]["home"] == str(dflow_home)
    assert (found["writable"], found["problems"]) == (True, [])
    assert not dflow_home.exists()


def test_a_list_of_names_is_shown_as_it_is_set(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting with several names is shown as people write it."""
    monkeypatch.setenv("DFLOW_EXTRA_LOGGERS", '["sklearn", "mine"]')
    found = json.loads(command("doctor", "--json").out)["settings"]["extra_loggers"]
    assert (found["value"], found["origin"]) == ("sklearn, mine", "DFLOW_EXTRA_LOGGERS")


@pytest.mark.parametrize("flow", ["outer", "failing"])
def test_a_sound_record(flow: str, command: Command, flows: Path) -> None:
    """The record of a run that completed or failed holds every invariant."""
    command("run", f"{flows}:{flow}")
    found = json.loads(command("doctor", "latest", "--json").out)
    assert found["problems"] == []
    assert found["events"] > 3
    assert "are sound" in command("doctor", "latest").out


class Tampered:
    """The record of a run from which an event is missing, or is of a kind that nobody knows."""

    def __init__(self, reader: Any, *, missing: int = 0, unknown: int = 0) -> None:
        self._reader, self._missing, self._unknown = reader, missing, unknown

    def events(self, after: int = 0) -> Iterator[Any]:
        """Yield the events after a number."""
        for number, event in self._reader.events(after):
            if number != self._missing:
                yield number, None if number == self._unknown else event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


@pytest.mark.parametrize(
    ("tampered", "complaint"),
    [({"missing": 4}, "Event 5 stands where event 4 is due"), ({"unknown": 4}, "does not know")],
)
def test_events_that_cannot_be_checked(
    tampered: dict[str, int], complaint: str, command: Command, flows: Path
) -> None:
    """Events that are missing or unknown are told."""
    command("run", f"{flows}:outer")
    with runs.opened(runs.find("latest")) as reader:
        _, broken = checks.check(Tampered(reader, **tampered))
    assert any(complaint in sentence for sentence in broken)


def as_another(db: sqlite3.Connection) -> None:
    """Count a task run among those of another state, with the right mark."""
    row = db.execute("SELECT flow_run_id, task_name FROM task_runs WHERE number = 2").fetchone()
    mark = label_mark(*row, "Failed")
    db.execute(
        "UPDATE task_runs SET state_name = 'Failed', label_mark = ? WHERE number = 2", [mark]
    )


def as_before(db: sqlite3.Connection) -> None:
    """Put another task run's record, which is whole, in the place of one."""
    for column in ("record", "mark"):
        one, other = (
            db.execute(f"SELECT {column} FROM task_runs WHERE number = ?", [n]).fetchone()[0]
            for n in (1, 2)
        )
        db.execute(f"UPDATE task_runs SET {column} = ? WHERE number = 1", [other])
        db.execute(f"UPDATE task_runs SET {column} = ? WHERE number = 2", [one])


def as_done_twice(db: sqlite3.Connection) -> None:
    """Put the last event of a task run, whole, in the place of its start."""
    rewrite(db, lambda events: [*events[:-2], events[-1], events[-1]], "AttemptSucceeded")


def as_changed(db: sqlite3.Connection) -> None:
    """Change the bytes of a page of events."""
    db.execute("UPDATE pages SET events = x'90' WHERE number = (SELECT min(number) FROM pages)")


def rewrite(db: sqlite3.Connection, change: Callable[[list[Any]], list[Any]], kind: str) -> None:
    """Write the last page that ends with an event of a kind anew, with its events changed, and marked."""
    for number, blob in db.execute("SELECT number, events FROM pages ORDER BY number DESC"):
        events = unpack(blob)
        if events[-1][0] == kind and len(events) > 1:
            *_, written, mark = page_row(number, change(events))
            db.execute(
                "UPDATE pages SET events = ?, mark = ? WHERE number = ?", [written, mark, number]
            )
            return
    raise AssertionError(f"no page ends with {kind}")


TAMPERINGS: dict[str, tuple[str | Callable[[sqlite3.Connection], None], str]] = {
    "a value is gone": ("DELETE FROM task_values", "is said to be kept, and is not there"),
    "a value is another": ("UPDATE task_values SET value = x'00'", "the value of"),
    "the value of the flow is gone": (
        "DELETE FROM results",
        "is said to be kept, and is not there",
    ),
    "a count is wrong": (as_another, "are not as many as are counted"),
    "records are exchanged": (as_before, "cannot be read|is not as it was written"),
    "an event is another": (as_done_twice, "is refused where it stands"),
    "a page of events is altered": (as_changed, r"the page of events up to \d+ is not as it was"),
    "a page of events is gone": (
        "DELETE FROM pages WHERE number = (SELECT min(number) FROM pages)",
        "the list of events after 0",
    ),
    "a log line is altered": (
        "UPDATE logs SET message = 'x' WHERE number = 2",
        "log line 2 is not",
    ),
    "a log line is gone": ("DELETE FROM logs WHERE number = 2", "the list of logs after 0"),
    "the head is altered": ("UPDATE meta SET events = events - 1", "the head is not as it was"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_record_that_is_not_sound(
    name: str, command: Command, flows: Path, dflow_home: Path
) -> None:
    """What is broken in a record is printed, and the exit code is 1."""
    command("run", f"{flows}:talking")
    process.process().journal.close()
    how, complaint = TAMPERINGS[name]
    (path,) = dflow_home.glob("runs/*/journal.sqlite")
    with sqlite3.connect(path) as db:
        if isinstance(how, str):
            db.execute(how)
        else:
            how(db)
    db.close()
    ran = command("doctor", "latest")
    assert ran.code == 1
    assert re.search(complaint, ran.out)


def test_a_run_that_grows_meanwhile(command: Command, flows: Path) -> None:
    """A record that is written faster than it is read is checked by its events alone."""
    command("run", f"{flows}:outer")
    with runs.opened(runs.find("latest")) as reader:
        number, broken = checks.check(Growing(reader))
        assert (number, broken) == (len(list(reader.events())), [])


class Growing(Tampered):
    """A record that has always got more events by the time that it has been read."""

    def events(self, after: int = 0) -> Iterator[Any]:
        """Yield the events after a number, of which there are always more."""
        return iter([(0, None)]) if after else self._reader.events()


def test_a_home_that_cannot_be_used(
    command: Command, flows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that cannot be written to, or a setting that cannot be used, is a problem: exit code 1."""
    monkeypatch.setenv("DFLOW_HOME", str(flows / "below"))
    ran = command("doctor")
    assert ran.code == 1
    assert "set DFLOW_HOME to another one" in ran.out
    monkeypatch.setenv("DFLOW_SMALL_RESULT", "tiny")
    ran = command("doctor")
    assert ran.code == 1
    assert "DFLOW_SMALL_RESULT='tiny'" in ran.out
