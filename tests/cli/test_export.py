"""``dflow export``: the whole record as lines of JSON, also of a live run, and of one that is damaged."""

from __future__ import annotations

import json
import os
import sqlite3
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dflow import flow, runs, task
from dflow.cli import export
from dflow.engine import process
from dflow.journal.sqlite import run_reader
from tests.cli.conftest import Command, start
from tests.cli.flows import HOSTILE
from tests.journal.world import Driver, entry, flow_created, life, log


def parsed(text: str) -> list[dict[str, Any]]:
    """Return the objects of an export, each from a line of its own."""
    assert text.isascii()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def of_type(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the objects of one type."""
    return [found for found in objects if found["type"] == kind]


def without_type(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return objects as they are shown elsewhere."""
    return [{key: value for key, value in found.items() if key != "type"} for found in objects]


def test_all_that_is_recorded(command: Command, flows: Path) -> None:
    """The run, its events by their numbers, what they left, what was logged; the end counts them."""
    command("run", f"{flows}:talking")
    ran = command("export", "latest")
    assert (ran.code, ran.err) == (0, "")
    found = parsed(ran.out)
    shown = json.loads(command("show", "latest", "--json").out)
    (run,) = of_type(found, "run")
    assert shown["run"].items() <= run.items()
    assert run["details"]["entrypoint"]["qualname"] == "talking"
    assert run["pickled_parameters"]["bytes"] > 5
    assert without_type(of_type(found, "task_run")) == shown["task_runs"]
    assert without_type(of_type(found, "flow_run")) == shown["flow_runs"]
    events = of_type(found, "event")
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["kind"], events[-1]["kind"]) == ("FlowRunCreated", "FlowRunReturned")
    said = json.loads(command("logs", "latest", "--json").out)
    assert [line["message"] for line in of_type(found, "log")] == [line["message"] for line in said]
    counts = Counter(line["type"] for line in found[:-1])
    assert found[-1] == {"type": "end", "complete": True, "lines": counts}


def test_hostile_names_stay_in_their_lines(command: Command, flows: Path) -> None:
    """Names and messages come back as they were, and break no line."""
    command("run", f"{flows}:cursed")
    found = parsed(command("export", "latest").out)
    assert of_type(found, "run")[0]["flow"] == HOSTILE
    assert of_type(found, "task_run")[0]["task"] == HOSTILE
    assert found[-1]["complete"]


class Trap:
    """Notes when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@task
def give(trap: Trap) -> Trap:
    """Return what must not be unpickled."""
    return trap


@flow(task_runner="inline")
def trapping(trap: Trap) -> list[Trap]:
    """Have traps for parameters and results."""
    return [give(trap)]


def test_nothing_is_unpickled(command: Command, tmp_path: Path) -> None:
    """Of pickled values only the sizes are told."""
    file = tmp_path / "unpickled"
    trapping(Trap(file))
    file.unlink(missing_ok=True)
    ran = command("export", "latest")
    assert ran.code == 0
    assert not file.exists()


def test_a_live_run(command: Command, flows: Path, tmp_path: Path) -> None:
    """A run that goes on meanwhile is exported as far as it is."""
    with start("run", f"{flows}:waiting", tmp_path / "gate") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        found = parsed(command("export", "latest").out)
        process.kill()
    assert (of_type(found, "run")[0]["alive"], found[-1]["complete"]) == (True, True)
    assert of_type(found, "flow_run")[0]["state"] == "Running"
    assert of_type(found, "task_run")[0]["state"] == "Completed"


def change(home: Path, sql: str) -> None:
    """Damage the record of the only run."""
    (path,) = home.glob("runs/*/journal.sqlite")
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


def test_a_damaged_record(command: Command, flows: Path, dflow_home: Path) -> None:
    """What is damaged ends a list, which is said; the other lists follow, and the exit code is 1."""
    command("run", f"{flows}:adding", "10")
    process.process().journal.close()
    last = "SELECT max(number) FROM pages"
    change(dflow_home, f"UPDATE pages SET mark = mark + 1 WHERE number = ({last})")
    change(dflow_home, "UPDATE task_runs SET record = x'00' WHERE number = 7")
    ran = command("export", "latest")
    assert ran.code == 1
    found = parsed(ran.out)
    events = len(of_type(found, "event"))
    assert 2 < events < 24
    assert [len(of_type(found, kind)) for kind in ("flow_run", "task_run")] == [1, 6]
    problems = of_type(found, "problem")
    assert [problem["section"] for problem in problems] == ["event", "task_run"]
    assert f"only the first {events} can be read" in problems[0]["message"]
    assert "the page of events up to" in problems[0]["message"]
    assert found[-1]["complete"] is False
    assert "only the first 6 can be read" in ran.err
    assert "not complete" in ran.err


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_a_record_that_cannot_be_opened(
    command: Command, flows: Path, dflow_home: Path, content: bytes
) -> None:
    """The run is told all the same, with the reason why no more is."""
    command("run", f"{flows}:inner", "1")
    process.process().journal.close()
    (path,) = dflow_home.glob("runs/*/journal.sqlite")
    path.write_bytes(content)
    ran = command("export", "latest")
    assert ran.code == 1
    assert [line["type"] for line in parsed(ran.out)] == ["run", "problem", "end"]
    assert str(path) in ran.err


def test_a_record_that_lost_its_end(command: Command, flows: Path, dflow_home: Path) -> None:
    """What the watermark knows to be missing is a problem too."""
    command("run", f"{flows}:inner", "1")
    process.process().journal.close()
    (path,) = dflow_home.glob("runs/*/journal.sqlite")
    whole = path.read_bytes()
    run = runs.find("latest").entry
    record = process.process().journal.write(run.id, run.epoch)
    record.append(Driver().batch([flow_created("another")]))
    process.process().journal.close()
    path.write_bytes(whole)
    ran = command("export", "latest")
    assert ran.code == 1
    assert "lacks its last event" in ran.err
    assert "lacks its last event" in of_type(parsed(ran.out), "problem")[0]["message"]


def test_a_run_without_a_record(command: Command) -> None:
    """Of a run that was only announced there is its entry in the catalog."""
    process.process().journal.catalog.create(entry())
    found = parsed(command("export", "latest").out)
    assert [line["type"] for line in found] == ["run", "end"]
    assert found[-1]["complete"]


def test_memory_does_not_grow_with_the_run(
    dflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long record is read piece by piece: five times as many task runs take no more memory."""
    monkeypatch.setattr(export, "PAGE", 100)
    monkeypatch.setattr(run_reader, "PAGE", 100)
    journal = process.process().journal
    peaks = []
    for run_id, times in (("short", 4), ("long", 20)):
        journal.catalog.create(entry(run_id))
        record, driver = journal.write(run_id, 0), Driver()
        for page in range(times):
            ids = [f"{page}-{n}" for n in range(100)]
            lines = [log("x" * 300, task_run_id) for task_run_id in ids]
            record.append(driver.batch([e for i in ids for e in life(i)], lines))
        del driver
        record.close()
        tracemalloc.start()
        written = sum(1 for _ in export.objects(runs.find(run_id)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert written == times * 100 * 6 + 2
    assert peaks[1] < 1.5 * peaks[0]
    assert (dflow_home / "runs" / "long" / "journal.sqlite").stat().st_size > peaks[1]


def test_into_a_file(command: Command, flows: Path, tmp_path: Path) -> None:
    """``--output`` writes a file, in the place of an earlier one, and prints nothing."""
    command("run", f"{flows}:inner", "1")
    output = tmp_path / "run.jsonl"
    output.write_text("earlier")
    ran = command("export", "latest", "--output", output)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert parsed(output.read_text())[-1]["complete"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.jsonl"]


def test_into_what_cannot_be_written(command: Command, flows: Path, tmp_path: Path) -> None:
    """A folder that is not there is named, a device stays one."""
    command("run", f"{flows}:inner", "1")
    ran = command("export", "latest", "--output", tmp_path / "nowhere" / "run.jsonl")
    assert ran.code == 2
    assert f"'{tmp_path}/nowhere/run.jsonl' cannot be written" in ran.err
    assert command("export", "latest", "--output", tmp_path).code == 2
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert command("export", "latest", "-o", pipe).code == 0
    assert parsed(os.read(reading, 1_000_000).decode())[-1]["complete"]
    os.close(reading)
    assert pipe.is_fifo()
