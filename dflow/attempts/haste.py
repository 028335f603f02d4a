"""Whether the program was asked to end once more while it was ending: then nobody waits any more.

Ctrl-C ends a run in order: clusters close, bodies get a moment. A second one says that this takes too long.
"""

from __future__ import annotations

import threading

_asked = threading.Event()


def hurry() -> None:
    """Let whatever ends from now on end at once."""
    _asked.set()


def calm() -> None:
    """Let things end in order again: something new begins."""
    _asked.clear()


def in_haste() -> bool:
    """Tell whether nobody wants to wait."""
    return _asked.is_set()
