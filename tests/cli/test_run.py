"""``dflow run``: parameters, results, failures, and what goes wrong before a run begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.flows import double


def test_prints_the_result_and_where_the_run_is(command: Command, flows: Path) -> None:
    """A run prints its result on standard output, and on standard error how to look at it."""
    ran = command("run", f"{flows}:adding", "4", "--offset", "1")
    assert (ran.code, ran.out) == (0, "13.0\n")
    *_, recorded, last = ran.err.splitlines()
    assert recorded.startswith("Recorded as ")
    shown = command(*last.rpartition("dflow ")[2].split())
    assert shown.code == 0
    assert "count=4, kind='plain', offset=1.0" in shown.out


def test_help_comes_from_the_signature(command: Command, flows: Path) -> None:
    """The help of a flow shows its docstring, its parameters, their types, meanings and defaults."""
    ran = command("run", f"{flows}:adding", "--help")
    assert ran.code == 0
    for word in ("Add up doubled numbers.", "--count", "how many numbers", "0.5", "plain"):
        assert word in ran.out
    assert command("ls", "--json").out.strip() == "[]"


def test_help_of_the_command_itself(command: Command) -> None:
    """``dflow run --help`` explains the command."""
    ran = command("run", "--help")
    assert ran.code == 0
    assert "FILE.py:FLOW" in ran.out


def test_a_module_and_its_only_flow(command: Command) -> None:
    """A flow can be named by its module, and left out where there is only one."""
    ran = command("run", "dflow.examples.three_steps", "--count", "9")
    assert ran.code == 0
    assert "preprocess: 9 points" in ran.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["adding"], "count"),
        (["adding", "many"], "many"),
        (["adding", "4", "--speed", "9"], "--speed"),
        (["adding", "4", "--offset", "much"], "much"),
        (["adding", "4", "5"], "5"),
        (["subtracting"], "It has: adding, cursed"),
        ([""], "It has: adding, cursed"),
    ],
)
def test_wrong_parameters(
    arguments: list[str], complaint: str, command: Command, flows: Path
) -> None:
    """What does not fit the flow is said in a line or two, before anything runs, with exit code 2."""
    name, *rest = arguments
    ran = command("run", f"{flows}:{name}" if name else flows, *rest)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert complaint in ran.err
    assert "Traceback" not in ran.err
    assert command("ls", "--json").out.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("def broken(:\n", "is not valid Python"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("x = 1\n", "has no flows"),
        ("raise SystemExit(7)\n", "raised an error while it was loaded"),
    ],
)
def test_wrong_files(content: str | None, complaint: str, command: Command, tmp_path: Path) -> None:
    """A file that is not there or cannot be loaded is exit code 2, and says why."""
    file = tmp_path / "some_flows.py"
    if content is not None:
        file.write_text(content)
    ran = command("run", f"{file}:anything")
    assert ran.code == 2
    assert complaint in ran.err
    assert "dflow/entrypoints.py" not in ran.err


def test_parameters_that_no_command_line_can_give(command: Command, tmp_path: Path) -> None:
    """A signature that cannot be parsed is exit code 2, and names the flow."""
    file = tmp_path / "some_flows.py"
    file.write_text("from dflow import flow\n@flow\ndef odd(x: 'Missing'):\n    return x\n")
    ran = command("run", file, "1")
    assert ran.code == 2
    assert "'odd'" in ran.err


def test_a_failure_shows_the_users_code_only(command: Command, flows: Path) -> None:
    """A failed run is exit code 1, with type, message, and the frames of the user's code."""
    ran = command("run", f"{flows}:failing")
    assert ran.code == 1
    assert "ValueError: cannot take 3" in ran.err
    assert f'File "{flows}"' in ran.err
    assert "in picky" in ran.err
    assert "dflow/engine" not in ran.err
    assert "task_runners" not in ran.err
    assert ran.err.splitlines()[-1].startswith("Go on where it failed with: dflow resume ")


def test_a_flow_that_exits_has_failed(command: Command, flows: Path) -> None:
    """``sys.exit()`` in a flow is a failure of that run, not the exit of the command."""
    ran = command("run", f"{flows}:leaving")
    assert ran.code == 1
    assert "SystemExit: 5" in ran.err


def test_progress_in_a_pipe_is_plain(command: Command, flows: Path) -> None:
    """Without a terminal there are lines: the start, each task, the end; and nothing moves the cursor."""
    ran = command("run", f"{flows}:adding", "4")
    assert "STARTED" in ran.err
    assert "double | 4 of 4 done" in ran.err
    assert "\x1b" not in ran.err + ran.out


def test_a_home_that_cannot_be_used(
    command: Command, flows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that cannot be written is exit code 2, and names the folder."""
    for home in (flows, flows / "below"):
        monkeypatch.setenv("DFLOW_HOME", str(home))
        ran = command("run", f"{flows}:inner", "1")
        assert ran.code == 2
        assert str(flows) in ran.err
        assert "Traceback" not in ran.err


def test_a_setting_that_cannot_be_used(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting is exit code 2, and names the variable."""
    monkeypatch.setenv("DFLOW_DURABILITY", "eternal")
    ran = command("ls")
    assert ran.code == 2
    assert "DFLOW_DURABILITY" in ran.err


def test_work_outside_of_flows_is_not_resumed(command: Command) -> None:
    """The session of work outside of flows is listed, and resuming it is exit code 2 with the reason."""
    assert double(2) == 4
    ran = command("resume", "latest")
    assert ran.code == 2
    assert "work outside of flows" in ran.err
