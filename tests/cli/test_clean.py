"""``dflow clean``: old runs go with all that belongs to them, young ones and living ones stay."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dflow import flow, runs
from dflow.cli import clean, text
from dflow.cli.durations import seconds_of
from dflow.engine import process, retention, system
from dflow.errors import RunHeld, RunNotFound
from dflow.ports import RunEntry
from dflow.runtime import current_run
from tests.cli.conftest import Command, start

DAY = 86_400.0


@pytest.fixture(autouse=True)
def _here(dflow_home: Path) -> None:
    """Have a home for each test."""
    assert not dflow_home.exists()


def let_pass(days: float, run_id: str = "%") -> None:
    """Let runs, and the last signs of their drivers, be some days older."""
    home = process.process().journal.describe()["home"]
    process.process().journal.close()
    with sqlite3.connect(Path(home) / "catalog.sqlite") as db:
        columns = ("created_at", "changed_at", "heartbeat")
        changes = ", ".join(f"{column} = {column} - {days * DAY}" for column in columns)
        db.execute(f"UPDATE runs SET {changes} WHERE id LIKE ?", [run_id])
    db.close()


@flow(task_runner="inline")
def keeping(size: int) -> None:
    """Leave a checkpoint."""
    (current_run().checkpoint_dir / "weights").write_bytes(bytes(size))


def folders(home: Path) -> set[str]:
    """Return the folders that runs have in a home."""
    return {path.name for kind in ("runs", "checkpoints") for path in (home / kind).glob("*")}


def test_old_runs_go_with_all_that_is_theirs(command: Command, dflow_home: Path) -> None:
    """What is older goes from the list and from the disk, what is younger stays; the sizes are told."""
    keeping(70_000)
    keeping(5_000)
    old = runs.find("latest").entry.id
    let_pass(40, old)
    keeping(1_000)
    young = [run.entry.id for run in runs.list_runs() if run.entry.id != old]
    sizes = runs.sizes(runs.find(old))
    assert sizes["checkpoints"] == 5_000
    assert sizes["record"] > 10_000

    ran = command("clean", "--older-than", "30d", "--yes")
    assert ran.code == 0
    assert "keeping" in ran.out
    assert "5.0 kB" in ran.out
    assert f"Deleted 1 run: {text.size(sum(sizes.values()))} are free again." in ran.err
    assert [run.entry.id for run in runs.list_runs()] == young
    assert folders(dflow_home) == set(young)
    assert "No run is as old as that" in command("clean", "--older-than", "30d", "--yes").err


def test_a_dry_run_deletes_nothing(command: Command) -> None:
    """``--dry-run`` tells what would go, and asks nothing."""
    keeping(5_000)
    let_pass(3)
    ran = command("clean", "--older-than", "2d", "--dry-run")
    assert ran.code == 0
    assert "1 run, " in ran.out
    assert "Nothing was deleted." in ran.err
    assert len(runs.list_runs()) == 1


def test_as_json(command: Command) -> None:
    """The runs with their sizes, which were deleted, and how much that was."""
    keeping(5_000)
    let_pass(3)
    run_id = runs.find("latest").entry.id
    dry = json.loads(command("clean", "--older-than", "2d", "--dry-run", "--json").out)
    assert set(dry) == set(clean.Cleaned.__annotations__)
    assert (dry["deleted"], dry["bytes"]) == ([], 0)
    wet = json.loads(command("clean", "--older-than", "2d", "-y", "--json").out)
    assert (wet["runs"], wet["deleted"], wet["problems"]) == (dry["runs"], [run_id], [])
    assert wet["bytes"] == sum(wet["runs"][0]["sizes"].values())


def test_without_anybody_to_ask(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script nothing is deleted unless it says so."""
    keeping(10)
    let_pass(3)
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        ran = command("clean", "--older-than", "2d")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert len(runs.list_runs()) == 1


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("", 1), ("no", 1)])
def test_it_asks_first(answer: str, left: int) -> None:
    """On a terminal it deletes after a yes, and after nothing else."""
    keeping(10)
    let_pass(3)
    ours, theirs = pty.openpty()
    with start("clean", "--older-than", "2d", stdin=theirs) as asking:
        os.write(ours, f"{answer}\n".encode())
        _, err = asking.communicate(timeout=30)
    os.close(theirs)
    os.close(ours)
    assert "Delete 1 run? This cannot be undone." in err
    assert len(runs.list_runs()) == left


def test_a_live_run_stays(command: Command, flows: Path, tmp_path: Path) -> None:
    """However old a run is, while its driver lives it is not deleted; once that is dead it is."""
    with start("run", f"{flows}:waiting", tmp_path / "gate") as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "waiting\n"
        let_pass(90)
        assert "No run is as old" in command("clean", "--older-than", "1d", "--yes").err
        with pytest.raises(RunHeld, match=str(driver.pid)):
            runs.delete("latest")
        assert len(list(json.loads(command("show", "latest", "--json").out)["task_runs"])) == 1
        driver.kill()
    assert "Deleted 1 run" in command("clean", "--older-than", "1d", "--yes").err


def test_the_last_sign_of_life_counts(command: Command) -> None:
    """A run that was cut short is as old as its driver's last sign; one that ended, as its end."""
    journal = process.process().journal
    now = process.process().clock.now()
    old = RunEntry("old", "old", "f", now - 90 * DAY, changed_at=now - 90 * DAY)
    signs: dict[str, dict[str, Any]] = {
        "cut": {"heartbeat": now - DAY},
        "done": {"heartbeat": now - DAY, "state_name": "Failed"},
        "ended": {"changed_at": now - DAY, "state_name": "Completed"},
    }
    for name, changes in signs.items():
        journal.catalog.create(replace(old, id=name, name=name, **changes))
    found = json.loads(command("clean", "--older-than", "30d", "--dry-run", "--json").out)
    assert [run["id"] for run in found["runs"]] == ["done"]


def test_what_cannot_be_deleted_is_told(command: Command, dflow_home: Path) -> None:
    """A run whose files stay is named and stays listed; the others go. It can be tried again."""
    keeping(10)
    keeping(20)
    stuck = runs.find("latest").entry.id
    let_pass(3)
    folder = dflow_home / "checkpoints" / stuck
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    ran = command("clean", "--older-than", "2d", "--yes")
    assert ran.code == 1
    assert f"{folder}' cannot be deleted" in ran.err
    assert "Deleted 1 run" in ran.err
    assert [run.entry.id for run in runs.list_runs()] == [stuck]
    folder.unlink()
    runs.delete(stuck)
    assert runs.list_runs() == []


def test_nobody_resumes_what_is_being_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who deletes a run is its driver meanwhile, and lets go of it if that fails."""
    keeping(10)
    run = runs.find("latest").entry

    class Refusing:
        """What stays, and tries to take the run meanwhile."""

        name = "refusing"

        def size(self, *_: object) -> int:
            return 7

        def delete(self, here: process.Process, run_id: str) -> None:
            with pytest.raises(RunHeld):
                here.journal.catalog.claim(run_id, system.holder(), 1.0)
            raise OSError("no")

    monkeypatch.setattr(retention, "BELONGINGS", (*retention.BELONGINGS, Refusing()))
    assert runs.sizes(runs.find("latest"))["refusing"] == 7
    with pytest.raises(OSError, match="no"):
        runs.delete(run.id)
    now = runs.find(run.id)
    assert (now.entry.holder, now.entry.epoch) == (None, run.epoch + 1)
    with runs.opened(now) as reader:
        assert list(reader.events())


def test_one_run_is_deleted_by_its_name() -> None:
    """``runs.delete`` deletes one, and says so where there is none."""
    keeping(10)
    runs.delete(runs.find("latest").entry.name)
    assert runs.list_runs() == []
    with pytest.raises(RunNotFound):
        runs.delete("latest")


def test_sizes_are_shown(command: Command) -> None:
    """``show`` tells what a run takes, ``ls`` if it is asked to."""
    keeping(5_000)
    assert "checkpoints 5.0 kB)" in command("show", "latest").out
    assert (
        json.loads(command("show", "latest", "--json").out)["run"]["sizes"]["checkpoints"] == 5_000
    )
    assert "kB" not in command("ls").out
    assert "kB" in command("ls", "--sizes").out
    assert json.loads(command("ls", "--json").out)[0]["sizes"] is None
    assert json.loads(command("ls", "--sizes", "--json").out)[0]["sizes"]["checkpoints"] == 5_000


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("12h", 43_200),
        ("1.5d", 129_600),
        (" 2 w ", 1_209_600),
        ("0d", 0),
    ],
)
def test_durations(written: str, seconds: float) -> None:
    """A number and a unit are so many seconds."""
    assert seconds_of(written) == seconds


@pytest.mark.parametrize("written", ["30", "d", "-3d", "3 days", "1e9d", "nan d", "", "3d2h", "٣d"])
def test_what_is_no_duration(command: Command, written: str) -> None:
    """Anything else is refused, with a word on what a duration is."""
    ran = command("clean", f"--older-than={written}")
    assert ran.code == 2
    assert "is not a duration" in ran.err
    assert "30d" in ran.err


def test_how_old_must_be_said(command: Command) -> None:
    """Without a duration nothing happens."""
    assert command("clean").code == 2


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_234, "1.2 kB"),
        (45_600, "46 kB"),
        (999_999, "1.0 MB"),
        (7e12, "7.0 TB"),
    ],
)
def test_sizes_for_people(number: int, shown: str) -> None:
    """Sizes are short."""
    assert text.size(number) == shown


def test_cached_values_that_are_old_go_too(command: Command, tmp_path: Path) -> None:
    """Younger ones stay; afterwards the value is computed again."""
    script = tmp_path / "cached.py"
    script.write_text(
        "from dflow import flow, task\n"
        "from dflow.cache_policies import INPUTS\n"
        "@task(cache_policy=INPUTS)\n"
        "def square(x: int) -> int:\n"
        "    return x * x\n"
        '@flow(task_runner="inline")\n'
        "def main() -> str:\n"
        "    return square(3, return_state=True).name\n"
    )
    for expected, older in (("Completed", "1h"), ("Cached", "0s"), ("Completed", "1h")):
        assert expected in command("run", f"{script}:main").out
        said = command("clean", "--older-than", older, "--yes")
        assert ("1 cached value" in said.out + said.err) is (older == "0s")
