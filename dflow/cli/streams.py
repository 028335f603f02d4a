"""Where the command prints: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dflow.cli import text
from dflow.states import TYPE_OF_NAME, StateType

WIDE = 200
"""Columns that tables may take where nobody looks at a terminal."""

_COLOURS = {
    StateType.COMPLETED: "green",
    StateType.FAILED: "red",
    StateType.CRASHED: "red",
    StateType.RUNNING: "cyan",
    StateType.SCHEDULED: "yellow",
    StateType.PAUSED: "yellow",
    StateType.CANCELLING: "magenta",
    StateType.CANCELLED: "magenta",
}


def out() -> Console:
    """Return the console on standard output. It reads no markup."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console on standard error. It reads no markup."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def say(message: str, style: str = "") -> None:
    """Print a message for people on standard error, after what standard output holds back."""
    sys.stdout.flush()
    err().print(Text(message, style), soft_wrap=True)


def complain(message: str, hint: str = "") -> None:
    """Print what went wrong, and perhaps what to do, on standard error."""
    say(f"Error: {text.block(message)}", "red")
    if hint:
        say(hint)


def warn(message: str) -> None:
    """Print a warning on standard error."""
    say(f"Warning: {text.block(message)}", "yellow")


def print_json(data: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def table(*headings: str) -> Table:
    """Return an empty table without lines; a heading that begins with ``>`` aligns to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        right = heading.startswith(">")
        made.add_column(
            heading.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    return made


def state(name: str) -> Text:
    """Return the name of a state in its colour."""
    kind = TYPE_OF_NAME.get(name)
    return Text(text.name(name), _COLOURS.get(kind, "") if kind else "")
