"""What an attempt does with the value of its body: when it keeps it, and what it says if it cannot."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dflow.attempts import body, result_names
from dflow.attempts.calls import Call
from dflow.core.events import AttemptRaised, AttemptSucceeded, Outcome
from dflow.core.records import Held
from dflow.core.values import Keeping
from dflow.errors import DefinitionError
from dflow.messages import OverQuota
from dflow.results import files, sharing
from dflow.results.stores import PARTIAL, store
from tests.attempts.recorder import Recorder, info

LARGE = b"x" * 50_000


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    """What becomes of values that somebody wants to be kept."""
    return Keeping(storage=f"file://{tmp_path}/kept", folder="runs/f1", persist=True)


def run(value: Any, keeping: Keeping | None, link: Recorder | None = None) -> Outcome:
    """Run a body that returns this."""
    about = info(keeping=keeping)
    return body.run(about, lambda: (Call(lambda: value), {}), link or Recorder())[0]


def where(value: Any, keeping: Keeping | None, link: Recorder | None = None) -> Held:
    """Return where a value is after its body has returned it."""
    outcome = run(value, keeping, link)
    assert isinstance(outcome, AttemptSucceeded)
    return outcome.held


def changed(keeping: Keeping, **changes: Any) -> Keeping:
    """Return the same but for some changes."""
    return replace(keeping, **changes)


def test_each_execution_has_a_file_of_its_own(keeping: Keeping) -> None:
    """Named after the dispatch; a second one never writes over what the first has told."""
    first, second = run(LARGE, keeping), run(b"y" * 50_000, keeping)
    assert isinstance(first, AttemptSucceeded)
    assert isinstance(second, AttemptSucceeded)
    assert first.stored is not None
    assert second.stored is not None
    assert first.stored.path.startswith("runs/f1/t1.3.")
    assert first.stored.path != second.stored.path
    assert files.read(first.stored, "it") == LARGE


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, Held.STORED),
        ({"persist": False}, Held.RUNNER),
        ({"persist": None, "seconds": 0.0, "quota": 60_000}, Held.STORED),
        ({"persist": None, "seconds": 0.0, "quota": 0}, Held.RUNNER),
        ({"persist": None, "seconds": 60.0, "quota": 60_000}, Held.RUNNER),
        ({"seconds": 60.0, "quota": 0}, Held.STORED),
    ],
)
def test_what_decides(keeping: Keeping, changes: dict[str, Any], held: Held) -> None:
    """What was asked for is kept; what was not if its body took long and there is room; False is never."""
    assert where(LARGE, changed(keeping, **changes)) is held
    assert where("small", changed(keeping, **changes)) is Held.JOURNAL


def test_nothing_is_kept_where_nothing_is_said() -> None:
    """As of old."""
    assert where(LARGE, None) is Held.RUNNER


def test_what_is_beyond_the_quota_is_told(keeping: Keeping) -> None:
    """With its size, for the driver to say it once."""
    link = Recorder()
    by_itself = changed(keeping, persist=None, seconds=0.0, quota=49_999)
    assert where(LARGE, by_itself, link) is Held.RUNNER
    (over,) = [message for message in link.sent if isinstance(message, OverQuota)]
    assert over.size > 50_000


def test_a_failed_write_is_said_once_where_nobody_asked(keeping: Keeping) -> None:
    """One line for a run and a store, however many values there are."""
    Path(keeping.storage.removeprefix("file://")).write_text("in the way")
    link = Recorder()
    for _ in range(3):
        by_itself = changed(keeping, persist=None, seconds=0.0, quota=10**9)
        assert where(LARGE, by_itself, link) is Held.RUNNER
    (line,) = link.lines
    assert line.startswith("Its value is not kept, for a resume: 'runs/f1/t1.3.")


def test_a_failed_write_is_a_failure_that_may_be_retried(keeping: Keeping, monkeypatch) -> None:
    """Where the value was asked for."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(store(keeping.storage)), "_write", full)
    outcome = run(LARGE, keeping)
    assert isinstance(outcome, AttemptRaised)
    assert outcome.error.type_name == "dflow.errors.ResultStoreError"
    assert outcome.retriable


# Stores that are not shared ----------------------------------------------------------------------------


def test_a_worker_that_sees_another_store_writes_nothing(keeping: Keeping) -> None:
    """It looks for what the driver has left there, before its first write."""
    token = sharing.leave(keeping.storage, "f1")
    assert where(LARGE, changed(keeping, token=token)) is Held.STORED
    outcome = run(LARGE, changed(keeping, token=f"runs/f1/{PARTIAL}token-nowhere"))
    assert isinstance(outcome, AttemptRaised)
    assert "they do not share it" in outcome.error.text
    link = Recorder()
    unseen = changed(keeping, persist=None, seconds=0.0, quota=10**9, token=f"{token}-other")
    assert where(LARGE, unseen, link) is Held.RUNNER
    assert "they do not share it" in link.lines[0]
    assert len(store(keeping.storage).sizes("runs/f1")) == 1


def test_a_token_is_looked_for_once(keeping: Keeping) -> None:
    """What was seen stays seen, though it is taken away at the end of the run."""
    token = sharing.leave(keeping.storage, "f1")
    assert sharing.problem(keeping.storage, token) is None
    sharing.remove(keeping.storage, token)
    assert sharing.problem(keeping.storage, token) is None
    assert not Path(keeping.storage.removeprefix("file://"), "runs").exists()


def test_a_store_that_cannot_be_read_says_so() -> None:
    """With the host on which that is so."""
    problem = sharing.problem("nonsense://kept", "runs/f1/token")
    assert problem is not None
    assert "the result store cannot be used" in problem


# Names that users choose -------------------------------------------------------------------------------


def test_names_are_made_of_what_is_known() -> None:
    """Parameters, the task run and the flow run, with formats."""
    template = (
        "{flow_run.flow_name}/{flow_run.name}-{flow_run.id}/{task_run.task_name}-{task_run.name}-"
        "{task_run.id}-{task_run.run_count}-{parameters[lr]:.2f}-{{}}.pkl"
    )
    assert result_names.check("task 'train'", template, ["lr"]) == template
    made = result_names.made(template, info(), {"lr": 0.125})
    assert made == "train/brave-owl-f1/prepare-prepare-0-t1-2-0.12-{}.pkl"


@pytest.mark.parametrize(
    "value", ["../x", "/x", "a/../b", "", "a\0b", "a*", "x" * 300, "runs/x", "a\\b", "\udce9"]
)
def test_names_that_cannot_be_are_refused_before_the_body(
    value: str, keeping: Keeping, tmp_path: Path
) -> None:
    """Whatever a parameter is; and it is not tried again."""
    ran: list[str] = []
    named = changed(keeping, name="{parameters[x]}")
    about = info(keeping=named)
    outcome, _ = body.run(about, lambda: (Call(ran.append, (value,)), {}), Recorder())
    assert isinstance(outcome, AttemptRaised)
    assert not outcome.retriable
    assert ran == []

    def takes(x: str) -> None:
        ran.append(x)

    outcome, _ = body.run(about, lambda: (Call(takes, (), {"x": value}), {}), Recorder())
    assert isinstance(outcome, AttemptRaised)
    assert outcome.error.type_name == "dflow.errors.DefinitionError"
    assert ran == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_template_is_checked_at_once() -> None:
    """What it takes must be there; a text it must be."""
    for template in (
        "{x}",
        "{parameters[y]}",
        "{parameters.x}",
        "{task_run[name]}",
        "{",
        "{!z}",
        5,
    ):
        with pytest.raises(DefinitionError, match="result_storage_key"):
            result_names.check("task 'train'", template, ["x"])
