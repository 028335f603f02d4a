"""Python's collector of cycles, while there are sessions: it looks less often.

What the engine makes is freed by counting, nothing of it is in a cycle; but each new record of a task run
counts as one more thing to look through, and by default the collector looks after every 700 of them. That
was a fifth to a third of the driver's work for large maps. So it looks after every `EVERY` instead, from the
first session to the end of the last one. Who has set another pace, or sets one meanwhile, keeps it.
"""

from __future__ import annotations

import gc
import threading

EVERY = 10_000
"""After how many new objects the collector looks for cycles among the youngest."""
USUAL = 2_000
"""Who has set it to more than this has set it."""

_lock = threading.Lock()
_sessions = 0
_before: tuple[int, int, int] | None = None


def less_often() -> None:
    """Let the collector look less often until `as_before` has been called once for each call of this."""
    global _sessions, _before  # noqa: PLW0603  (there is one collector in a process)
    with _lock:
        _sessions += 1
        found = gc.get_threshold()
        if _sessions == 1 and 0 < found[0] <= USUAL:
            _before = found
            gc.set_threshold(EVERY, *found[1:])


def as_before() -> None:
    """Let the collector go back to its own pace, if this was the last session."""
    global _sessions, _before  # noqa: PLW0603  (there is one collector in a process)
    with _lock:
        _sessions -= 1
        before = _before
        if _sessions or before is None:
            return
        _before = None
        if gc.get_threshold() == (EVERY, *before[1:]):
            gc.set_threshold(*before)
