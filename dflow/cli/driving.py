"""Driving a flow run to its end: progress while it runs, and what is said when it has ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from dflow.cli import exits, failures, plain, screen, streams, text
from dflow.engine import process, taking_up
from dflow.engine.session import Session
from dflow.errors import EnvironmentProblem

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
            value = _call(call, display)
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


def _call(call: Callable[[], Any], display: Display) -> Any:
    """Call, and let go of clusters, so that nothing of theirs comes after what is said at the end."""
    try:
        return call()
    finally:
        display.end()
        with suppress(KeyboardInterrupt):  # whoever presses Ctrl-C again does not want to wait
            process.shutdown()


class Display(Protocol):
    """Shows how far a run is, from `begin` on."""

    def begin(self, session: Session) -> None:
        """Take the session of a run that begins; only the first counts."""

    def end(self) -> None:
        """Show what it has come to: nothing more will happen."""


def _progress() -> AbstractContextManager[Display]:
    """Return the display: a table in a terminal, lines elsewhere."""
    if sys.stderr.isatty() and not streams.err().is_dumb_terminal:
        return screen.shown()
    return plain.shown()


def handle(session: Session) -> str:
    """Return what to call a run on the command line: its name if that is unique and plain, else its id."""
    root = session.root
    catalog = process.process().journal.catalog
    return taking_up.handle(catalog, root.flow_run_id, root.flow_run_name)


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception as error:
        shown = f"<a '{type(value).__name__}' that cannot be shown: {type(error).__name__}>"
    return shown if len(shown) <= RESULT else shown[: RESULT - 1] + "…"


def _say_completed(session: Session, closing: Callable[[str], str]) -> None:
    name = handle(session)
    streams.say(f"Recorded as {_named(session)}.\n{closing(name)}")


def _look_at_it(name: str) -> str:
    return f"Look at it with: dflow show {name}"


def _say_failed(session: Session, error: BaseException) -> None:
    name = handle(session)
    if isinstance(error, EnvironmentProblem):
        streams.complain(str(error))
    else:
        streams.say(text.block(failures.explain(error)).rstrip(), "red")
    streams.say(f"Failed. Recorded as {_named(session)}.\n{_look_at_it(name)}")
    streams.say(f"Go on where it failed with: dflow resume {name}")


def _say_interrupted(sessions: list[Session]) -> None:
    if not sessions:
        streams.say("Interrupted.")
        return
    streams.say(f"Interrupted. Resume with: dflow resume {handle(sessions[0])}")


def _named(session: Session) -> str:
    root = session.root
    return f"{text.name(root.flow_run_name)} ({root.flow_run_id})"
