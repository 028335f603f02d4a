"""What a body prints: it becomes log lines of its run (``log_prints``), or goes to the driver's prints.

While at least one such body runs in this process, ``sys.stdout`` is a stand-in that asks, for each
write, which run the writing thread or coroutine works for; everybody else's prints go where they always
went. In a worker process the stand-in stays, so that modules that keep ``sys.stdout`` keep the stand-in.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TextIO

LONGEST = 1_000_000
"""How many characters are kept at most until their line has ended."""

_sink: ContextVar[Lines | None] = ContextVar("dflow_prints", default=None)


class Lines:
    """Collects text, and says each whole line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rest: list[str] = []
        self._length = 0
        self._lock = threading.RLock()  # a finalizer may print in the middle of a print
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """Whether somebody hears what is said: in a fork of this process nobody does."""
        return os.getpid() == self._pid

    def write(self, text: str) -> int:
        """Take some text."""
        with self._lock:  # threads of the body's own may print too
            self._rest.append(text)
            self._length += len(text)
            lines = self._taken() if "\n" in text or self._length > LONGEST else []
        for line in lines:
            self._say(line)
        return len(text)

    def _taken(self) -> list[str]:
        *lines, rest = "".join(self._rest).split("\n")
        if len(rest) > LONGEST:
            lines, rest = [*lines, rest], ""
        self._rest, self._length = [rest], len(rest)
        return lines

    def finish(self) -> None:
        """Say what is left of a line that was not ended."""
        if not self._rest:
            return
        with self._lock:
            rest, self._rest, self._length = "".join(self._rest), [], 0
        if rest:
            self._say(rest)


class _Stdout:
    """Stands in for ``sys.stdout``."""

    def __init__(self, original: TextIO) -> None:
        self.original: Any = original
        self._write = original.write

    def write(self, text: str) -> int:
        sink = _sink.get()
        if sink is None or not sink.here or not isinstance(text, str):
            return self._write(text)
        return sink.write(text)

    def take_over(self) -> None:
        """Let writes to the original come here too: modules that were loaded before may have kept it."""
        with suppress(AttributeError):  # an output of another kind stays as it is
            self.original.write = self.write

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return _sink.get() is None and self.original.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


_lock = threading.Lock()
_users = 0


class captured:  # noqa: N801  (reads as a word after `with`)
    """Give each line that is printed inside to `say`."""

    __slots__ = ("_installed", "_lines", "_token")

    def __init__(self, say: Callable[[str], None]) -> None:
        self._lines = Lines(say)

    def __enter__(self) -> None:
        """Let prints come here."""
        self._installed = not _settled or not isinstance(sys.stdout, _Stdout)
        if self._installed:
            _install(+1)
        self._token = _sink.set(self._lines)

    def __exit__(self, *_: object) -> None:
        """Let them go where they went before, and say what is left."""
        _sink.reset(self._token)
        if self._installed:
            _install(-1)
        self._lines.finish()


def is_captured() -> bool:
    """Tell whether what is printed here goes to a run."""
    return _sink.get() is not None


@contextmanager
def uncaptured() -> Iterator[None]:
    """Let what is printed inside go where it always went, also inside of `captured`."""
    token = _sink.set(None)
    try:
        yield
    finally:
        _sink.reset(token)


_settled = False


def settle() -> None:
    """Let the stand-in stay, from now on: this is a worker process."""
    global _settled  # noqa: PLW0603  (one per process, as sys.stdout is)
    if not _settled:
        _install(+1)
        if isinstance(sys.stdout, _Stdout):
            sys.stdout.take_over()
        _settled = True


def _install(change: int) -> None:
    global _users  # noqa: PLW0603  (one per process, as sys.stdout is)
    with _lock:
        _users += change
        if _users and not isinstance(sys.stdout, _Stdout):
            sys.stdout = _Stdout(sys.stdout)
        elif not _users and isinstance(sys.stdout, _Stdout):
            sys.stdout = sys.stdout.original
