"""The command in a process of its own: exit codes, signals, pipes, terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command, start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_is_resumed(
    number: signal.Signals, command: Command, flows: Path, tmp_path: Path
) -> None:
    """A live run is refused; a stopped one says how to resume it, reads as Interrupted, and is resumed."""
    gate = tmp_path / "gate"
    with start("run", f"{flows}:waiting", gate) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        refused = command("resume", "latest")
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert refused.code == 2
    assert f"process {process.pid} on" in refused.err

    [run] = json.loads(command("ls", "--json").out)
    assert (run["state"], run["resumable"], run["driver"]) == ("Interrupted", True, None)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert err.splitlines()[-1] == f"Interrupted. Resume with: dflow resume {run['name']}"
        assert "Traceback" not in err

    gate.touch()
    resumed = command("resume", run["name"])
    assert (resumed.code, resumed.out) == (0, "'through'\n")
    again = command("resume", run["id"])
    assert again.code == 0
    assert "nothing to resume" in again.err


def test_a_record_that_lost_its_end_is_told(
    command: Command, flows: Path, tmp_path: Path, dflow_home: Path
) -> None:
    """After a log was lost, those who look are warned, doctor lists it, and resume does it again."""
    gate = tmp_path / "gate"
    with start("run", f"{flows}:waiting", gate) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        events = json.loads(command("doctor", "latest", "--json").out)["events"]
        process.kill()
    (log,) = dflow_home.glob("runs/*/journal.sqlite-wal")
    log.unlink()
    lost = f"lacks its last {events} events"

    assert lost in command("show", "latest").err
    assert lost in command("logs", "latest").err
    ran = command("doctor", "latest")
    assert (ran.code, lost in ran.out) == (1, True)
    gate.touch()
    with start("resume", "latest") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "'through'\n")
    assert lost in err
    assert command("show", "latest").err == ""
    assert lost in command("logs", "latest").out
    assert command("doctor", "latest").code == 0


def test_the_module_is_the_command(flows: Path) -> None:
    """``python -m dflow.cli`` exits with the code of the command, and its data goes through a pipe."""
    with start("run", f"{flows}:failing", "4") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "ValueError: cannot take 3" in err
    with start("ls", "--json") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)[0]["state"] == "Failed"


def test_hostile_names_are_harmless_in_the_log(flows: Path) -> None:
    """The lines that tell how a run goes have names and messages as text, on one line each."""
    with start("run", f"{flows}:cursed", "--text", "short") as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "FAILED  [red]evil[/red]\\n\\x1b[2J" in err
    assert all(line.isprintable() and len(line) < 1000 for line in err.splitlines())


def test_a_pipe_that_is_closed(command: Command, flows: Path) -> None:
    """``dflow show … | head -1`` ends quietly."""
    command("run", f"{flows}:adding", "500")
    read, write = os.pipe()
    os.close(read)
    with start("show", "latest", "--all", stdout=write) as process:
        os.close(write)
        _, err = process.communicate(timeout=30)
    assert err == ""


def in_a_terminal(*arguments: object) -> tuple[int, str]:
    """Run the command in a terminal; return its exit code and what appeared."""
    ours, theirs = pty.openpty()
    with start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end is closed
                data = b""
            if not data:
                break
            shown += data
        process.wait(timeout=30)
    os.close(ours)
    return process.returncode, shown.decode()


def test_progress_in_a_terminal(flows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows a table in place, with prints above it, and gets its cursor back."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, shown = in_a_terminal("run", f"{flows}:adding", "4")
    assert code == 0
    assert "━" in shown
    assert "4/4" in shown
    assert "\x1b[32m" in shown or "38;5" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "STARTED" not in shown


def test_prints_of_children_go_above_the_table(
    flows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process and its children print stands on lines of its own, above the table."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    _, shown = in_a_terminal("run", f"{flows}:noisy")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    # A table that is drawn anew begins with a carriage return, as does what is printed over it.
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    for line in ("from here", "from a child", "and its errors"):
        assert line in lines
    table = max(number for number, line in enumerate(lines) if "━" in line)
    assert any(line.startswith("half a line") for line in lines[:table])
    assert "Recorded as" in lines[table + 1]


def test_no_color(flows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR nothing is coloured."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    _, shown = in_a_terminal("run", f"{flows}:failing")
    assert "━" in shown
    assert "\x1b[3" not in shown
    assert "\x1b[9" not in shown


def test_a_dumb_terminal_gets_lines(flows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot move its cursor gets plain lines."""
    monkeypatch.setenv("TERM", "dumb")
    _, shown = in_a_terminal("run", f"{flows}:adding", "4")
    assert "STARTED" in shown
    assert "\x1b" not in shown


def test_looking_needs_no_cluster() -> None:
    """The commands that only look load neither Dask nor the progress display."""
    program = (
        "import sys; from dflow.cli import main; main(['ls']); "
        "print(*sorted({'dask', 'distributed', 'numpy', 'rich.live'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == ""
