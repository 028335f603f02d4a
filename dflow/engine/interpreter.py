"""What is set otherwise in Python while there are sessions: when it collects cycles, and changes threads.

What the engine makes is freed by counting, nothing of it is in a cycle; but each new record of a task run
counts as one more thing to look through, and by default the collector looks after every 700 of them. That
was a fifth to a third of the driver's work for large maps. So it looks after every `EVERY` instead.

A thread that computes keeps the others from running for 5 milliseconds at a time, each time that they have
let go of the interpreter: the tracker does so with each statement of SQLite. While the body of a flow
computed, a map took two to three times as long as else; with turns of `TURN` less than twice as long.

Both hold from the first session to the end of the last one. Who has set something else, or does so meanwhile,
keeps it.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

EVERY = 10_000
"""After how many new objects the collector looks for cycles among the youngest."""
USUAL = 2_000
"""Who has set it to more than this has set it."""
TURN = 0.001
"""Seconds after which a thread that computes lets another one run that waits."""
USUAL_TURN = 0.005
"""The same by default."""


class _Setting:
    """One setting of the interpreter: how to get it, how to set it, and what it is to be instead."""

    def __init__(
        self, get: Callable[[], Any], put: Callable[[Any], None], instead: Callable[[Any], Any]
    ) -> None:
        self._get, self._put, self._instead = get, put, instead
        self._before: Any = None

    def change(self) -> None:
        """Set it, if nobody else has."""
        self._before = self._get()
        self._put(self._instead(self._before))

    def restore(self) -> None:
        """Set it to what it was, if it is as `change` has left it."""
        if self._get() == self._instead(self._before):
            self._put(self._before)


def _less_often(found: tuple[int, int, int]) -> tuple[int, int, int]:
    return (EVERY, *found[1:]) if 0 < found[0] <= USUAL else found


def _sooner(found: float) -> float:
    return TURN if found == USUAL_TURN else found


_SETTINGS = (
    _Setting(gc.get_threshold, lambda found: gc.set_threshold(*found), _less_often),
    _Setting(sys.getswitchinterval, sys.setswitchinterval, _sooner),
)
_lock = threading.Lock()
_sessions = 0


def a_session_begins() -> None:
    """Set what is to hold until `a_session_ends` has been called once for each call of this."""
    global _sessions  # noqa: PLW0603  (there is one interpreter in a process)
    with _lock:
        _sessions += 1
        if _sessions == 1:
            for setting in _SETTINGS:
                setting.change()


def a_session_ends() -> None:
    """Let all be as it was, if this was the last session."""
    global _sessions  # noqa: PLW0603  (there is one interpreter in a process)
    with _lock:
        _sessions -= 1
        if not _sessions:
            for setting in _SETTINGS:
                setting.restore()
