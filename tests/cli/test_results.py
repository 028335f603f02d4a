"""Stored results as the commands show, check and delete them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dflow import flow, runs, task
from dflow.results.stores import store
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def _here(dflow_home: Path) -> None:
    """Have a home for each test."""
    assert not dflow_home.exists()


@task(persist_result=True)
def large(size: int) -> bytes:
    """Return what does not fit into the record."""
    return bytes(size)


@flow(task_runner="inline")
def keeping(folder: str) -> None:
    """Keep results in two stores, one under a name of its own."""
    large(100_000)
    large.with_options(result_storage=folder)(200_000)
    large.with_options(result_storage_key="mine/best.pkl")(300_000)
    large(100)


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    """What is recorded of the task runs of a run that keeps results, by name, and the run itself."""
    keeping(str(tmp_path / "other"))
    listed = runs.find("latest")
    with runs.opened(listed) as reader:
        return {run.name: run for run in reader.task_runs()} | {"run": listed.entry.id}


def problems(command: Command, *options: str) -> list[str]:
    """Return what doctor finds wrong with the latest run."""
    ran = command("doctor", "latest", "--json", *options)
    found: list[str] = json.loads(ran.out)["problems"]
    assert ran.code == (1 if found else 0)
    return found


def test_show_tells_where_values_are(
    command: Command, kept: dict[str, Any], tmp_path: Path
) -> None:
    """Their sizes stand with the task runs, their places in the data."""
    out = command("show", "latest").out
    assert "stored" in out
    assert "200 kB" in out
    found = {
        run["name"]: run["kept"]
        for run in json.loads(command("show", "latest", "--json").out)["task_runs"]
    }
    assert found["large-1"]["storage"] == f"file://{tmp_path}/other"
    assert found["large-1"]["bytes"] == kept["large-1"].stored.size
    assert found["large-2"]["path"] == "mine/best.pkl"
    assert (found["large-3"]["where"], found["large-3"]["bytes"]) == ("record", None)


def test_doctor_looks_for_each_result(command: Command, kept: dict[str, Any]) -> None:
    """One that is gone, or has another size, is named; a changed byte shows when they are read."""
    assert problems(command) == problems(command, "--deep") == []
    first, second = kept["large-0"].stored, kept["large-1"].stored
    here = store(first.storage)
    data = here.read(first.path)
    data[-1] ^= 1
    here.write(first.path, [data])
    assert problems(command) == []
    (problem,) = problems(command, "--deep")
    assert "The value of 'large-0'" in problem
    assert "holds other bytes than were written" in problem
    store(second.storage).delete(second.path)
    here.write("mine/best.pkl", [b"short"])
    gone, other = sorted(problems(command))
    assert "'large-1'" in gone
    assert "is not there" in gone
    assert "has 5 bytes instead of 300" in other


def test_doctor_tells_of_a_store_that_is_out_of_reach(command: Command, tmp_path: Path) -> None:
    """It does not fail by that."""

    @flow(task_runner="inline")
    def main() -> None:
        large.with_options(result_storage=tmp_path / "other")(100_000)

    main()
    (tmp_path / "other").rename(tmp_path / "moved")
    (problem,) = problems(command)
    assert "is not there" in problem


@pytest.mark.usefixtures("kept")
def test_clean_deletes_the_results_of_a_run(
    command: Command, dflow_home: Path, tmp_path: Path
) -> None:
    """In every store that it has used; what users have named stays; the size is told before."""
    assert runs.sizes(runs.find("latest"))["results"] > 100_000
    assert command("clean", "--older-than", "0s", "--yes").code == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".sqlite"]
    left = [path.relative_to(dflow_home) for path in files if path.is_relative_to(dflow_home)]
    assert Path("results/mine/best.pkl") in left
    assert not [path for path in left if path.parts[:2] == ("results", "runs")]
    assert not [path for path in files if path.is_relative_to(tmp_path / "other")]
