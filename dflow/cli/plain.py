"""Progress where nobody looks at a terminal: a line when a group begins, now and then, and when it ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dflow.cli import groups, text
from dflow.engine.session import Session
from dflow.ports import Clock

POLL = 0.2
"""Seconds between two looks."""
PERIOD = 5.0
"""Seconds between two lines on a group that goes on."""


@contextmanager
def shown() -> Iterator[Lines]:
    """Print how far a run is."""
    lines = Lines()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            lines.say()

    thread = threading.Thread(target=watch, name="dflow-progress", daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        over.set()
        thread.join()


class Lines:
    """Decides which lines are worth printing."""

    def __init__(self) -> None:
        self._groups: groups.Groups | None = None
        self._said: dict[str, tuple[float, groups.Group]] = {}
        self._taken_up = False

    def begin(self, session: Session) -> None:
        """Take the session of a run that begins; only the first counts."""
        if self._groups is None:
            self._groups = groups.Groups(session)
            self._taken_up = session.again is not None
            if not self._taken_up:  # of a run that is taken up the log tells more
                flow = f"flow '{text.name(session.root.flow_name)}'"
                self._print(session.clock, "STARTED", session.root.flow_run_name, flow)

    def end(self) -> None:
        """Print how each group ended."""
        self.say(last=True)

    def say(self, *, last: bool = False) -> None:
        """Print what is new since the last time."""
        if self._groups is None:
            return
        now = self._groups.clock.monotonic()
        for group in self._groups.now():
            if self._worth_a_line(group, now, last):
                self._said[group.label] = now, group
                self._print(self._groups.clock, "TASKS", group.label, words(group))

    def _worth_a_line(self, group: groups.Group, now: float, last: bool) -> bool:
        if group.label not in self._said:
            as_it_was = self._taken_up and group.over and not group.reused
            return last or not as_it_was
        at, before = self._said[group.label]
        if _counts(group) == _counts(before):
            return False
        return last or now - at >= PERIOD or (group.over and not before.ended)

    def _print(self, clock: Clock, what: str, who: str, message: str) -> None:
        at = text.clock(clock.now())
        sys.stderr.write(f"{at} {what:<7} {text.name(who)} | {message}\n")
        sys.stderr.flush()


def _counts(group: groups.Group) -> tuple[int, ...]:
    return group.ended, group.total, group.running, group.reused


def words(group: groups.Group) -> str:
    """Return a group in words."""
    parts = [f"{group.done} of {group.total} done"]
    parts += [f"{number} {word}" for word, number in group.exceptions()]
    if group.over and group.seconds:
        parts.append(f"in {text.took(group.seconds)}")
    elif group.rate and group.left is not None:
        parts += [f"{group.rate:.1f}/s", text.left(group.left)]
    return ", ".join(parts)
