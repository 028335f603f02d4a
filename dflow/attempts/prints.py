"""``log_prints``: what a body prints becomes log lines of its run.

While at least one such body runs in this process, ``sys.stdout`` is a stand-in that asks, for each
write, which run the writing thread or coroutine works for; everybody else's prints go where they always
went.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

_sink: ContextVar[Lines | None] = ContextVar("dflow_prints", default=None)


class Lines:
    """Collects text, and says each whole line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Take some text."""
        with self._lock:  # threads of the body's own may print too
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)

    def finish(self) -> None:
        """Say what is left of a line that was not ended."""
        if self._rest:
            self._say(self._rest)
            self._rest = ""


class _Stdout:
    """Stands in for ``sys.stdout``."""

    def __init__(self, original: TextIO) -> None:
        self.original = original

    def write(self, text: str) -> int:
        sink = _sink.get()
        return self.original.write(text) if sink is None else sink.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


_lock = threading.Lock()
_users = 0


@contextmanager
def captured(say: Callable[[str], None]) -> Iterator[None]:
    """Give each line that is printed inside to `say`."""
    lines = Lines(say)
    _install(+1)
    token = _sink.set(lines)
    try:
        yield
    finally:
        _sink.reset(token)
        _install(-1)
        lines.finish()


@contextmanager
def uncaptured() -> Iterator[None]:
    """Let what is printed inside go where it always went, also inside of `captured`."""
    token = _sink.set(None)
    try:
        yield
    finally:
        _sink.reset(token)


def _install(change: int) -> None:
    global _users  # noqa: PLW0603  (one per process, as sys.stdout is)
    with _lock:
        _users += change
        if _users and not isinstance(sys.stdout, _Stdout):
            sys.stdout = _Stdout(sys.stdout)
        elif not _users and isinstance(sys.stdout, _Stdout):
            sys.stdout = sys.stdout.original
