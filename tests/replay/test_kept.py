"""Records of earlier versions: opened, replayed, migrated and resumed, for ever."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dflow import runs
from dflow.cli import checks, main
from dflow.core.records import Ending, TaskRun
from dflow.core.replay import replay
from dflow.engine import process
from dflow.journal.sqlite.schema import CATALOG, LEASES, RUN, Schema
from dflow.ports import Missing
from tests.replay import keep

HOMES = sorted(path for path in keep.KEPT.iterdir() if path.is_dir())

FINDS_WORK = "05"
"""The first home whose task runs are found again: before they were named by another rule."""

EVERYTHING = {
    "fetch-0": "Completed",
    "square-0": "Completed",
    "square-1": "Completed",
    "square-2": "Failed",
    "square-3": "Completed",
    "collect-0": "Completed",
    "blocked-0": "UpstreamFailed",
    "by_hand-0": "Failed",
    "after-0": "Completed",
}
"""How the task runs of `flows.everything` end."""


@pytest.fixture(params=HOMES, ids=lambda home: home.name)
def home(request: pytest.FixtureRequest, dflow_home: Path) -> Path:
    """Return the home of this process, made of one that is kept."""
    return keep.restored(request.param, dflow_home)


@pytest.fixture
def flows() -> Iterator[ModuleType]:
    """Return the flows of the kept records, under the name that these know."""
    yield keep.loaded()
    del sys.modules["flows"]


def schema_of(path: Path) -> Schema:
    """Return the schema that a file of a home has."""
    return {"catalog": CATALOG, "leases": LEASES, "journal": RUN}[path.stem]


def version_of(path: Path) -> int:
    """Return the version of a file."""
    db = sqlite3.connect(path)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(version)


def test_each_version_of_a_schema_is_kept(tmp_path: Path) -> None:
    """For each migration there is a home from before it, and one from after it."""
    kept: set[tuple[str, int]] = set()
    for home in HOMES:
        for path in keep.restored(home, tmp_path / home.name).rglob("*.sqlite"):
            kept.add((schema_of(path).name, version_of(path)))
    due = {(s.name, n) for s in (RUN, CATALOG, LEASES) for n in range(1, s.newest + 1)}
    assert kept == due, "keep the new schema: python -m tests.replay.keep NAME"


def test_nothing_is_changed_by_looking(home: Path) -> None:
    """What only reads leaves the records of earlier versions as they are."""
    before = {path: path.read_bytes() for path in home.rglob("journal.sqlite")}
    for run in runs.list_runs():
        with runs.opened(run) as reader:
            list(reader.events()), list(reader.logs()), reader.counts()
    assert {path: path.read_bytes() for path in home.rglob("journal.sqlite")} == before


@pytest.mark.usefixtures("home")
def test_who_reads_goes_on_when_the_record_is_migrated(flows: ModuleType) -> None:
    """A record that is resumed, and brought to the newest schema, while somebody looks stays readable."""
    (run,) = (run for run in runs.list_runs() if run.entry.flow_name == "cut")
    with runs.opened(run) as reader:
        events, lines = len(list(reader.events())), len(list(reader.logs()))
        flows.cut.resume(run.entry.id)
        assert len(list(reader.events())) > events
        assert len(list(reader.logs())) > lines
        assert sum(sum(states.values()) for states in reader.counts().values()) >= 4
        assert reader.missing() == Missing()


@pytest.mark.usefixtures("home")
def test_a_kept_record_is_whole() -> None:
    """It holds every invariant, its replay gives the table that was kept, and nothing is missing."""
    listed = {run.entry.flow_name: run for run in runs.list_runs()}
    states = {name: run.state_name for name, run in listed.items()}
    assert states == {"everything": "Completed", "cut": "Interrupted"}
    for run in listed.values():
        with runs.opened(run) as reader:
            numbered = list(reader.events())
            table = replay(event for _, event in numbered if event is not None)
            assert [number for number, _ in numbered] == list(range(1, len(numbered) + 1))
            assert list(table.task_runs.values()) == list(reader.task_runs())
            assert list(table.flow_runs.values()) == list(reader.flow_runs())
            assert checks.check(reader) == (len(numbered), [])
            assert reader.missing() == Missing()


@pytest.mark.usefixtures("home")
def test_a_kept_record_tells_what_happened() -> None:
    """States, attempts, errors and log lines are those that the flow is known to have."""
    (listed,) = (run for run in runs.list_runs() if run.entry.flow_name == "everything")
    with runs.opened(listed) as reader:
        task_runs = {run.name: run for run in reader.task_runs()}
        assert {name: run.state_name for name, run in task_runs.items()} == EVERYTHING
        assert [len(run.attempts) for run in task_runs.values()] == [2, 1, 1, 1, 1, 1, 0, 1, 1]
        error = task_runs["fetch-0"].attempts[0].error
        assert error is not None
        assert (error.type_name, error.text) == (
            "ConnectionError",
            "the line is down\nand stays so",
        )
        assert task_runs["blocked-0"].message.endswith("blocked-0 ← square-2")
        assert reader.value(task_runs["collect-0"].id) is not None
        assert Counter(entry.message for entry in reader.logs()) == {
            "fetching 'the source' für später": 2,
            "3 of 4": 1,
            "inner said 'ünïcode ✓'": 1,
        }
        (said,) = reader.logs(task_runs["collect-0"].id)
        assert said.message == "3 of 4"


@pytest.mark.parametrize("command", ["show", "logs", "export", "doctor"])
def test_the_commands_read_it(home: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All that looks at records looks at these."""
    for run in runs.list_runs():
        assert main([command, run.entry.id]) == 0
        assert capsys.readouterr().out
    assert home.exists()


def resumed(flows: ModuleType, home: Path) -> list[TaskRun]:
    """Resume the run that was cut short; return its task runs."""
    (run,) = (run for run in runs.list_runs() if run.entry.flow_name == "cut")
    assert flows.cut.resume(run.entry.id) == 4
    with runs.opened(runs.find(run.entry.id)) as reader:
        assert checks.check(reader)[1] == []
        assert version_of(home / "runs" / run.entry.id / "journal.sqlite") == RUN.newest
        return list(reader.task_runs())


def test_a_kept_run_is_resumed(
    home: Path, flows: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that an earlier dflow left is taken up by this one, and comes to its end."""
    assert resumed(flows, home)[-1].state_name == "Completed"
    assert "lacks" not in caplog.text


@pytest.mark.parametrize("name", [home.name for home in HOMES if home.name >= FINDS_WORK])
def test_what_had_completed_does_not_run_again(
    name: str, dflow_home: Path, flows: ModuleType
) -> None:
    """Work that an earlier dflow has finished is found by this one."""
    keep.restored(keep.KEPT / name, dflow_home)
    attempts = [run.attempts for run in resumed(flows, dflow_home)]
    assert [len(tried) == 1 for tried in attempts] == [True, True, False, True]
    assert (attempts[2][0].ending, attempts[2][-1].ending) == (Ending.RAISED, Ending.SUCCEEDED)


@pytest.mark.parametrize("kept", HOMES, ids=lambda kept: kept.name)
def test_work_that_cannot_be_found_is_said_to_be_done_again(
    kept: Path, dflow_home: Path, flows: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """Runs whose task runs were named by an earlier rule are resumed with a warning, others without."""
    keep.restored(kept, dflow_home)
    resumed(flows, dflow_home)
    assert ("named task runs by another rule" in caplog.text) is (kept.name < FINDS_WORK)


def test_kept_leases_and_catalog_are_used(home: Path, flows: ModuleType) -> None:
    """Shares that were held then count now, and the catalog takes new runs."""
    journal = process.process().journal
    assert list(journal.leases.holders("gpu", 1e9)) == ["ada"]
    assert journal.leases.acquire("gpu", "bob", 10.0, at=1e9, limit=2)
    assert not journal.leases.acquire("gpu", "eve", 10.0, at=1e9, limit=2)
    assert version_of(home / "leases.sqlite") == LEASES.newest
    assert flows.inner("new") == "new"
    assert version_of(home / "catalog.sqlite") == CATALOG.newest
    assert [run.state_name for run in runs.list_runs()] == ["Completed", "Interrupted", "Completed"]


def test_the_catalog_is_made_anew_from_kept_records(home: Path) -> None:
    """Without its catalog a home of an earlier version lists the same runs."""
    before = [(run.entry.id, run.entry.name, run.state_name) for run in runs.list_runs()]
    process.process().journal.close()
    (home / "catalog.sqlite").unlink()
    assert [(run.entry.id, run.entry.name, run.state_name) for run in runs.list_runs()] == before
