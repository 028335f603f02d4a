"""Signals: while flows run in the main thread, SIGTERM interrupts them as Ctrl-C does.

Around async flows Ctrl-C is noted too: asyncio turns it into the cancellation of a coroutine, which by itself
could have any reason. What else handles a signal goes on to handle it; all is put back after the last flow.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


@dataclass(slots=True, eq=False)
class Interruption:
    """Whether a flow was stopped from outside of the program."""

    happened: bool = False


_running: list[Interruption] = []
_before: dict[int, Any] = {}


@contextmanager
def noting_interrupts(*, native: bool) -> Iterator[Interruption]:
    """Turn SIGTERM into `Terminated`, unless the program handles it; note Ctrl-C if the flow is async."""
    mine = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield mine
        return
    _running.append(mine)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _put(signal.SIGTERM, _terminate)
    if native and signal.SIGINT not in _before and callable(signal.getsignal(signal.SIGINT)):
        _put(signal.SIGINT, _interrupt)
    try:
        yield mine
    finally:
        _running.remove(mine)
        if not _running:
            _restore()


def _put(number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
    _before[number] = signal.signal(number, handler)


def _restore() -> None:
    for number, ours in ((signal.SIGTERM, _terminate), (signal.SIGINT, _interrupt)):
        before = _before.pop(number, None)
        if before is not None and signal.getsignal(number) is ours:
            signal.signal(number, before)


def _note() -> None:
    for interruption in _running:
        interruption.happened = True


def _terminate(_number: int, _frame: FrameType | None) -> None:
    _note()
    raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:
    _note()
    _before[signal.SIGINT](number, frame)
