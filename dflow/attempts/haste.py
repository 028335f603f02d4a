"""Whether the program was asked to end once more while it was ending: then nobody waits any more.

Ctrl-C ends a run in order: clusters close, bodies get a moment. A second one says that this takes too long.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHAIN = 100
"""How many exceptions are looked at that led to the one by which a program ends."""

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
    """Tell whether the last thing that ended this program was a Ctrl-C while an earlier one was handled.

    One that the program raises itself in place of the first counts, too: nobody can tell them apart.
    """
    error: BaseException | None = getattr(sys, "last_value", None)
    interrupts = 0
    for _ in range(CHAIN):
        if error is None or not (interrupts or isinstance(error, KeyboardInterrupt)):
            break
        interrupts += isinstance(error, KeyboardInterrupt)
        error = error.__context__
    return interrupts > 1
