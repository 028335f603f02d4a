"""Progress: what is counted, how fast it goes, which lines are worth printing."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from dflow.cli.groups import Groups
from dflow.cli.plain import PERIOD, Lines
from dflow.cli.screen import MARGIN, Screen
from dflow.engine.renewal import RESUMED
from dflow.engine.session import Session
from dflow.engine.tally import Tally


@dataclass
class Stage:
    """A session as far as progress looks at it, with a clock that the test sets."""

    at: float = 1000.0
    tally: Tally = field(default_factory=Tally)

    def session(self) -> Session:
        """Return it as a session."""
        clock = SimpleNamespace(monotonic=lambda: self.at, now=lambda: self.at)
        root = SimpleNamespace(flow_run_id="root", flow_run_name="calm-owl-1", flow_name="sweep")
        made: Any = SimpleNamespace(
            clock=clock, root=root, ledger=self, name_of=lambda _: "inner-0", again=None
        )
        return cast(Session, made)

    def set(self, task: str, flow_run: str = "root", **states: int) -> None:
        """Set the counts of a group."""
        self.tally.groups[flow_run, task] = Counter(states)


def test_states_are_counted_by_what_they_mean() -> None:
    """Each state counts as done, running, retrying, failed or cancelled; pending ones only in the total."""
    stage = Stage()
    stage.set(
        "train",
        Completed=3,
        Cached=2,
        Running=1,
        AwaitingRetry=1,
        TimedOut=1,
        Cancelled=1,
        Pending=4,
    )
    [group] = Groups(stage.session()).now()
    assert (group.total, group.done, group.ended) == (13, 5, 7)
    assert group.exceptions() == [
        ("running", 1),
        ("retrying", 1),
        ("failed", 1),
        ("cancelled", 1),
        ("cached", 2),
    ]


def test_pace_counts_from_when_a_group_began() -> None:
    """Waiting does not count, nor what had ended before: the rate is that of this process."""
    stage = Stage()
    groups = Groups(stage.session())
    stage.set("train", Completed=10, Pending=40)
    groups.now()
    stage.at += 60
    groups.now()
    stage.set("train", Completed=10, Pending=38, Running=2)
    groups.now()
    stage.at += 5
    stage.set("train", Completed=20, Pending=28, Running=2)
    [group] = groups.now()
    assert (group.rate, group.left, group.seconds) == (2.0, 15.0, 5.0)


def test_a_group_that_ended_keeps_its_duration() -> None:
    """The clock of a group stands still when its last task run has ended."""
    stage = Stage()
    groups = Groups(stage.session())
    stage.set("train", Running=2)
    groups.now()
    stage.at += 3
    stage.set("train", Completed=2)
    groups.now()
    stage.at += 100
    [group] = groups.now()
    assert (group.over, group.seconds, group.left) == (True, 3.0, None)


def test_groups_of_subflows_name_them() -> None:
    """A task of a subflow is shown with the name of the subflow's run."""
    stage = Stage()
    stage.set("train", flow_run="child", Running=1)
    assert [group.label for group in Groups(stage.session()).now()] == ["inner-0 / train"]


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    """A group has a line when it begins, one in a few seconds while it goes on, and one at its end."""
    stage = Stage()
    lines = Lines()
    lines.begin(stage.session())
    for done in range(101):
        stage.set("train", Completed=done, Running=100 - done)
        lines.say()
        stage.at += 0.2
    lines.end()
    said = capsys.readouterr().err.splitlines()
    assert "STARTED calm-owl-1 | flow 'sweep'" in said[0]
    assert "train | 0 of 100 done, 100 running" in said[1]
    assert "100 of 100 done, in 20.0 s" in said[-1]
    assert len(said) <= 3 + 20 / PERIOD


def test_many_short_groups_are_not_many_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A loop of direct calls grows its group again and again: still a line in a few seconds."""
    stage = Stage()
    lines = Lines()
    lines.begin(stage.session())
    for done in range(1, 50):
        stage.set("step", Completed=done)
        lines.say()
        stage.at += 0.2
    lines.end()
    said = capsys.readouterr().err.splitlines()
    assert len(said) <= 5
    assert "step | 49 of 49 done" in said[-1]


def drawn(screen: Screen, height: int = 20) -> list[str]:
    """Return what the screen draws, without colours."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=height)
    console.print(screen.draw())
    shown = cast(io.StringIO, console.file).getvalue()
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]


def test_the_table_shows_each_group() -> None:
    """A row has the task, how many are done, and what else there is; time left only when it is known."""
    stage = Stage()
    screen = Screen(Console(width=100, height=20))
    assert drawn(screen) == []
    screen.begin(stage.session())
    stage.set("[red]train", Running=2, Pending=8)
    drawn(screen)
    stage.at += 2
    stage.set("[red]train", Completed=3, Failed=1, Running=2, Pending=4)
    head, row = drawn(screen)
    assert head == "sweep  calm-owl-1  2.00 s"
    assert row.startswith("[red]train")
    assert row.endswith("3/10  2 running, 1 failed, 2.0/s, 3 s left")
    screen.end()
    assert drawn(screen)[0] == "sweep  calm-owl-1  2.00 s  closing …"
    assert drawn(screen)[1].endswith("3/10  2 unfinished, 1 failed")


def test_the_table_fits_into_the_terminal() -> None:
    """With more groups than lines those that ended first are hidden; at the end all are there."""
    stage = Stage()
    screen = Screen(Console(width=100, height=10))
    screen.begin(stage.session())
    for number in range(25):
        stage.set(f"task-{number}", Completed=1)
    for number in range(25, 30):
        stage.set(f"task-{number}", Running=1)
    shown = drawn(screen)
    assert len(shown) <= 10 - MARGIN + 1
    assert "and 24 tasks that ended" in shown[0]
    assert shown[-1].startswith("task-29")
    screen.end()
    screen.closing = False
    assert len(drawn(screen, height=50)) == 31


def test_lines_of_a_run_that_is_taken_up_say_what_is_reused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was done before is no news until it is asked for; the last line has the final number."""
    stage, lines = Stage(), Lines()
    session = stage.session()
    session.again = RESUMED
    stage.set("load", Completed=3)
    stage.set("fit", Cached=2)
    lines.begin(session)
    lines.say()
    assert capsys.readouterr().err == ""
    stage.tally.reused["root", "load"] = 1
    lines.say()
    assert "load | 3 of 3 done, 1 reused" in capsys.readouterr().err
    stage.tally.reused["root", "load"] = 3
    stage.tally.reused["root", "fit"] = 2
    lines.say(last=True)
    said = capsys.readouterr().err
    assert "load | 3 of 3 done, 3 reused" in said
    assert "fit | 2 of 2 done, 2 cached, 2 reused" in said
