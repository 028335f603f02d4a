"""``dflow doctor``: what it finds here, and in the record of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow.cli import doctor
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
def test_a_record_that_is_not_sound(
    tampered: dict[str, int],
    complaint: str,
    command: Command,
    flows: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is broken in a record is printed, and the exit code is 1."""
    command("run", f"{flows}:outer")
    check = doctor.check
    monkeypatch.setattr(
        doctor,
        "check",
        lambda reader: check(Tampered(reader, **tampered)),
    )
    ran = command("doctor", "latest")
    assert ran.code == 1
    assert complaint in ran.out


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
