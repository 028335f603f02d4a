"""One damaged value in the journal of an interrupted run: it is computed again, the others are kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dflow import flow, runs, shutdown, task

RAN: list[int] = []


@task
def square(x: int) -> int:
    """Note that the body ran."""
    RAN.append(x)
    return x * x


@flow
def inner(x: int) -> int:
    """Be a subflow whose value is kept."""
    return square(x)


@flow(task_runner="inline")
def squares() -> list[int]:
    """Be interrupted at the end of the first time."""
    values = [square(n) for n in range(3)] + [inner(9)]
    if RAN.count(0) + RAN.count(1) + RAN.count(2) == 3:
        raise KeyboardInterrupt
    return values


def flip(home: Path, run_id: str) -> None:
    """Flip a bit of the value of a task run or a flow run."""
    (record,) = home.glob("runs/*/journal.sqlite")
    with sqlite3.connect(record) as db:
        found = db.execute("SELECT valued FROM task_runs WHERE id = ?", [run_id]).fetchone()
        table, column, key = ("pages", "number", *found) if found else ("results", "run_id", run_id)
        ((value,),) = db.execute(f"SELECT value FROM {table} WHERE {column} = ?", [key])
        changed = bytes([value[0] ^ 1]) + value[1:]
        db.execute(f"UPDATE {table} SET value = ? WHERE {column} = ?", [changed, key])
    db.close()


def test_a_damaged_value_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That of a task run and that of a subflow; it is said which, and nothing else runs again."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path))
    RAN.clear()
    with pytest.raises(KeyboardInterrupt):
        squares()
    with runs.opened(runs.find("latest")) as record:
        ids = {run.name: run.id for run in record.task_runs()}
        ids.update((run.name, run.id) for run in record.flow_runs())
    shutdown()
    flip(tmp_path, ids["square-1"])
    flip(tmp_path, ids["inner-0"])
    assert squares.resume("latest") == [0, 1, 4, 81]
    assert RAN == [0, 1, 2, 9, 1]
    assert "1 values in the journal are damaged" in caplog.text
    assert "square-1" in caplog.text
    assert "The value of 'inner-0' is lost, so it runs again" in caplog.text
