"""Whether the program was asked to end once more while it was ending: then nobody waits any more.

Ctrl-C ends a run in order: clusters close, bodies get a moment. A second one says that this takes too long.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_asked = threading.Event()


def hurry() -> None:
    """Let whatever ends from now on end at once."""
    _asked.set()


@contextmanager
def hurried_by_interrupts() -> Iterator[None]:
    """Let whatever ends from now on end at once if this, which ends something, is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        hurry()
        raise


def calm() -> None:
    """Let things end in order again: something new begins."""
    _asked.clear()


def in_haste() -> bool:
    """Tell whether nobody wants to wait."""
    return _asked.is_set()


def interrupted_twice() -> bool:
    """Tell whether this program has ended by a Ctrl-C that came while an earlier one was being handled."""
    error: BaseException | None = getattr(sys, "last_value", None)
    if not isinstance(error, KeyboardInterrupt):
        return False
    while error is not None:
        error = error.__context__
        if isinstance(error, KeyboardInterrupt):
            return True
    return False
