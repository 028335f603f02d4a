"""The command as a whole: its help, its version, and wrong usage."""

from __future__ import annotations

import pytest

from dflow import entrypoints
from dflow.cli import text
from dflow.errors import EntrypointError, InternalError
from tests.cli.conftest import Command


def test_help_lists_the_commands(command: Command) -> None:
    """Without arguments, or with --help, every command is listed."""
    for arguments in ([], ["--help"]):
        ran = command(*arguments)
        assert ran.code == 0
        for name in ("run", "ls", "show", "logs", "resume", "doctor", "demo"):
            assert f"│ {name} " in ran.out


@pytest.mark.parametrize("name", ["ls", "show", "logs", "resume", "doctor", "demo"])
def test_each_command_has_help(name: str, command: Command) -> None:
    """Each command explains itself."""
    ran = command(name, "--help")
    assert ran.code == 0
    assert f"Usage: dflow {name}" in ran.out


def test_version(command: Command) -> None:
    """``dflow --version`` says what is installed."""
    ran = command("--version")
    assert ran.code == 0
    assert ran.out.startswith("dflow ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["frobnicate"], "See: dflow --help"),
        (["show"], "See: dflow show --help"),
        (["ls", "--limit", "few"], "See: dflow ls --help"),
        (["ls", "extra"], "See: dflow ls --help"),
        (["run"], "See: dflow run --help"),
        (["demo", "--workers", "0"], "See: dflow demo --help"),
    ],
)
def test_wrong_usage(arguments: list[str], hint: str, command: Command) -> None:
    """Wrong usage is exit code 2, one message on standard error, and where to read on."""
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert ran.err.splitlines()[-1] == hint


def test_the_demo_without_scikit_learn(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that cannot be loaded is exit code 2, with the message."""

    def load(_: str) -> None:
        raise EntrypointError("pip install 'dflow-dask[demo]'")

    monkeypatch.setattr(entrypoints, "load", load)
    ran = command("demo")
    assert ran.code == 2
    assert "dflow-dask[demo]" in ran.err


def test_an_error_of_ours_is_no_wrong_usage(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When dflow broke a rule of its own, the exit code is 1."""

    def find(_: str) -> None:
        raise InternalError("A rule was broken.")

    monkeypatch.setattr("dflow.runs.find", find)
    ran = command("resume", "x")
    assert (ran.code, ran.err) == (1, "Error: A rule was broken.\n")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain – ünïcode 数", "plain – ünïcode 数"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J\x9b\u202e\ud800", "\\x1b[2J\\x9b\\u202e\\ud800"),
        ("x" * 10_000, "x" * 59 + "…"),
        ("\n" * 60, ("\\n" * 30)[:59] + "…"),
    ],
)
def test_names_are_made_harmless(given: str, shown: str) -> None:
    """Control characters become escapes, and a long name is cut."""
    assert text.name(given) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0.004, "4 ms"),
        (0.5, "0.50 s"),
        (12.34, "12.3 s"),
        (59.99, "1 min 00 s"),
        (200.0, "3 min 20 s"),
        (7505.0, "2 h 05 min"),
    ],
)
def test_durations_are_readable(seconds: float | None, shown: str) -> None:
    """A duration has about three digits."""
    assert text.took(seconds) == shown
