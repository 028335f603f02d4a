"""``dflow ls``, ``show`` and ``logs``: what is recorded, for people and as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dflow.cli import attempts, facts, measures
from dflow.cli.facts import LogFacts
from tests.cli.conftest import Command


def keys(kind: Any) -> set[str]:
    """Return the keys of a TypedDict."""
    return set(kind.__annotations__)


def test_nothing_yet(command: Command) -> None:
    """Without runs ``ls`` says how to make one, and ``latest`` is not found."""
    ran = command("ls")
    assert (ran.code, ran.out) == (0, "")
    assert "dflow run" in ran.err
    assert command("show", "latest").code == 2


@pytest.mark.parametrize("name", ["show", "logs", "resume", "doctor"])
def test_unknown_runs(name: str, command: Command) -> None:
    """A run that does not exist is exit code 2, and the message names it."""
    ran = command(name, "no-such-run")
    assert ran.code == 2
    assert "'no-such-run'" in ran.err


def test_ls(command: Command, flows: Path) -> None:
    """``ls`` lists the newest first, as many as asked for, and says when there are more."""
    command("run", f"{flows}:inner", "1")
    command("run", f"{flows}:failing")
    newest, oldest = json.loads(command("ls", "--json").out)
    assert (newest["flow"], newest["state"], newest["resumable"]) == ("failing", "Failed", True)
    assert (oldest["flow"], oldest["state"], oldest["resumable"]) == ("inner", "Completed", False)
    assert set(newest) == keys(facts.RunFacts)
    ran = command("ls", "--limit", "1")
    assert newest["name"] in ran.out
    assert oldest["name"] not in ran.out
    assert "dflow ls --limit 0" in ran.err
    assert oldest["name"] in command("ls", "--limit", "0").out


def test_show_as_json(command: Command, flows: Path) -> None:
    """``show --json`` is one document with the run, its flow runs, groups, task runs and attempts."""
    command("run", f"{flows}:failing")
    shown = json.loads(command("show", "latest", "--json").out)
    assert set(shown) == keys(facts.Recorded)
    assert set(shown["run"]) == keys(facts.RunFacts)
    assert set(shown["flow_runs"][0]) == keys(facts.FlowRunFacts)
    states = {group["task"]: group["states"] for group in shown["groups"]}
    assert states["picky"] == {"Completed": 4, "Failed": 1}
    assert states["double"]["UpstreamFailed"] == 1
    failed = next(run for run in shown["task_runs"] if run["state"] == "Failed")
    assert set(failed) == keys(facts.TaskRunFacts)
    assert [attempt["ending"] for attempt in failed["attempts"]] == ["raised", "raised"]
    assert set(failed["attempts"][0]) == keys(attempts.AttemptFacts)
    assert set(failed["attempts"][0]["error"]) == keys(attempts.ErrorFacts)
    assert shown["run"]["id"] == shown["flow_runs"][0]["id"]
    usage = next(group["usage"] for group in shown["groups"] if group["task"] == "picky")
    assert set(usage) == keys(measures.UsageFacts)
    assert 0 <= usage["cpu"]["median"] <= usage["cpu"]["max"]
    assert usage["memory"]["max"] > 1_000_000
    assert usage["bytes"]["max"] == max(
        attempt["bytes"]
        for run in shown["task_runs"]
        if run["task"] == "picky"
        for attempt in run["attempts"]
        if attempt["ending"] == "succeeded"
    )
    assert failed["attempts"][0]["bytes"] is None
    assert failed["attempts"][0]["cpu"] is not None


def test_show_tells_what_tasks_took(command: Command, flows: Path) -> None:
    """For each task the time, the processors' time, the memory and the size of the value, as far as known."""
    command("run", f"{flows}:failing")
    (heading,) = [line for line in command("show", "latest").out.splitlines() if "total" in line]
    assert heading.split() == ["task", "total", "states", "took", "cpu", "memory", "value"]


def test_show_explains_failures(command: Command, flows: Path) -> None:
    """``show`` tells of each failed attempt, of the only failure with its traceback, and of chains."""
    command("run", f"{flows}:failing")
    out = command("show", "latest").out
    assert "picky-3, attempt 1" in out
    assert "picky-3, attempt 2" in out
    assert "ValueError: cannot take 3" in out
    assert out.count("Traceback (most recent call last)") == 1
    assert "double-3 ← picky-3" in out
    twice = command("show", "latest", "--tracebacks").out
    assert twice.count("Traceback (most recent call last)") == 2


def test_show_lists_some_or_all(command: Command, flows: Path) -> None:
    """``show`` lists the first task runs and says how to see all; those that failed are always there."""
    command("run", f"{flows}:failing", "40")
    some = command("show", "latest").out
    assert "double-3 " in some
    assert "double-39" not in some
    assert "dflow show latest --all" in some
    assert "double-39" in command("show", "latest", "--all").out


def test_show_draws_subflows(command: Command, flows: Path) -> None:
    """``show`` draws the flow runs of a run as a tree."""
    command("run", f"{flows}:outer")
    out = command("show", "latest").out
    assert out.count("(inner)") == 2
    assert "└── inner-1" in out


def test_runs_are_found_by_name_and_by_the_start_of_an_id(command: Command, flows: Path) -> None:
    """A run answers to its id, the start of it, its name, and ``latest``."""
    command("run", f"{flows}:inner", "1")
    [run] = json.loads(command("ls", "--json").out)
    for text in (run["id"], run["id"][:10], run["name"], "latest"):
        assert json.loads(command("show", text, "--json").out)["run"]["id"] == run["id"]


def test_logs(command: Command, flows: Path) -> None:
    """``logs`` prints what a run said, or one of its tasks, or one of its task runs."""
    command("run", f"{flows}:talking")
    everything = command("logs", "latest")
    assert "INFO    talk-0 | hello" in everything.out
    assert "WARNING talk-0 | hello, said twice" in everything.out
    assert "| two\n    lines" in everything.out
    lines = json.loads(command("logs", "latest", "--json").out)
    assert len(lines) == 6
    assert set(lines[0]) == keys(LogFacts)
    of_task = json.loads(command("logs", "latest", "talk", "--json").out)
    of_run = json.loads(command("logs", "latest", "talk-0", "--json").out)
    by_id = json.loads(command("logs", "latest", of_run[0]["task_run_id"][:8], "--json").out)
    assert (len(of_task), len(of_run)) == (5, 2)
    assert by_id == of_run


def test_logs_of_an_unknown_task(command: Command, flows: Path) -> None:
    """A task that the run does not have is exit code 2, and the message lists those it has."""
    command("run", f"{flows}:talking")
    ran = command("logs", "latest", "whisper")
    assert ran.code == 2
    assert "'talk'" in ran.err


def test_hostile_text_is_harmless(command: Command, flows: Path) -> None:
    """Names, errors and messages with markup, control characters or 10 kB are shown as text, shortened."""
    ran = command("run", f"{flows}:cursed")
    shown = [command("ls"), command("show", "latest"), command("show", "latest", "--all")]
    command("run", f"{flows}:talking")
    shown.append(command("logs", "latest"))
    for one in (ran, *shown):
        assert one.code == 0
        assert not [c for c in one.out + one.err if not c.isprintable() and c != "\n"]
    for one in shown:
        assert "[red]evil[/red]" in one.out
        assert "\\x1b[2J" in one.out
    assert max(len(line) for one in shown[:2] for line in one.out.splitlines()) < 1000


def test_a_hostile_name_is_called_by_its_id(command: Command, flows: Path) -> None:
    """What the closing line tells to type works for any name."""
    ran = command("run", f"{flows}:cursed", "--text", "short")
    asked = ran.err.splitlines()[-1].rpartition("dflow show ")[2]
    assert command("show", asked).code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_journal_without_permission(command: Command, flows: Path, dflow_home: Path) -> None:
    """A journal that may not be read is exit code 2, and names the folder."""
    command("run", f"{flows}:inner", "1")
    dflow_home.chmod(0)
    try:
        ran = command("ls")
    finally:
        dflow_home.chmod(0o700)
    assert ran.code == 2
    assert str(dflow_home) in ran.err
