"""Driving a flow run to its end: progress while it runs, and what is said when it has ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dflow import runs
from dflow.cli import exits, failures, plain, screen, streams, text
from dflow.engine import process
from dflow.engine.session import Session
from dflow.errors import EnvironmentProblem, RunNotFound

RESULT = 1000
"""How many characters of a result are shown."""


def drive(call: Callable[[], Any], closing: Callable[[str], str] | None = None) -> int:
    """Run or resume a flow by `call`, show how it goes, and return the exit code.

    `closing` returns what is said at the end of a run that completed, from what it is called on the command
    line. Whatever `call` raises before a run has begun is raised here.
    """
    sessions: list[Session] = []
    try:
        with (
            _progress() as display,
            process.watched(display.begin),
            process.watched(sessions.append),
        ):
            value = call()
    except KeyboardInterrupt:
        _say_interrupted(sessions)
        return exits.INTERRUPTED
    except (Exception, SystemExit) as error:
        if not sessions:
            raise
        _say_failed(sessions[0], error)
        return exits.FAILED
    if value is not None:
        streams.out().print(text.block(_shown(value)), soft_wrap=True)
    if sessions:
        _say_completed(sessions[0], closing or _look_at_it)
    return exits.COMPLETED


class Display(Protocol):
    """Shows how far a run is, from `begin` on."""

    def begin(self, session: Session) -> None:
        """Take the session of a run that begins; only the first counts."""


def _progress() -> AbstractContextManager[Display]:
    """Return the display: a table in a terminal, lines elsewhere."""
    console = streams.err()
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return screen.shown(console)
    return plain.shown()


def handle(session: Session) -> str:
    """Return what to call a run on the command line: its name if that is unique and plain, else its id."""
    root = session.root
    plainly = root.flow_run_name.replace("-", "").replace("_", "")
    if not (plainly.isascii() and plainly.isalnum()) or root.flow_run_name.startswith("-"):
        return root.flow_run_id
    try:
        found = runs.find(root.flow_run_name).entry.id
    except RunNotFound:
        found = ""
    return root.flow_run_name if found == root.flow_run_id else root.flow_run_id


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception as error:
        shown = f"<a '{type(value).__name__}' that cannot be shown: {type(error).__name__}>"
    return shown if len(shown) <= RESULT else shown[: RESULT - 1] + "…"


def _say_completed(session: Session, closing: Callable[[str], str]) -> None:
    name = handle(session)
    process.shutdown()
    streams.say(f"Recorded as {_named(session)}. {closing(name)}")


def _look_at_it(name: str) -> str:
    return f"Look at it with: dflow show {name}"


def _say_failed(session: Session, error: BaseException) -> None:
    name = handle(session)
    process.shutdown()
    if isinstance(error, EnvironmentProblem):
        streams.complain(str(error))
    else:
        streams.say(text.block(failures.explain(error)).rstrip(), "red")
    streams.say(f"Failed. Recorded as {_named(session)}. {_look_at_it(name)}")
    streams.say(f"Go on where it failed with: dflow resume {name}")


def _say_interrupted(sessions: list[Session]) -> None:
    if not sessions:
        streams.say("Interrupted.")
        return
    name = handle(sessions[0])
    streams.say(f"Interrupted. Resume with: dflow resume {name}")


def _named(session: Session) -> str:
    root = session.root
    return f"{text.name(root.flow_run_name)} ({root.flow_run_id})"
