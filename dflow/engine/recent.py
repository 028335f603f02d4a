"""Small values that came lately, in memory: who asks for one soon does not have to ask the journal."""

from __future__ import annotations

from collections import OrderedDict

BOUND = 16_000_000
"""Bytes that the values of one session take at most."""
OVERHEAD = 300
"""Bytes that one takes beside itself, about."""


class Recent:
    """The pickled values that were recorded last, up to a bound; the oldest go first.

    Only the tracker's thread adds to it; any thread may look.
    """

    def __init__(self, bound: int = BOUND) -> None:
        self._bound = bound
        self._left = bound
        self._values: OrderedDict[str, bytes] = OrderedDict()

    def get(self, run_id: str) -> bytes | None:
        """Return the value of a run, if it is here."""
        return self._values.get(run_id)

    def note(self, run_id: str, value: bytes | None) -> None:
        """Note that this is the value of a run from now on; None: it has none that the journal keeps."""
        before = self._values.pop(run_id, None)
        if before is not None:
            self._left += len(before) + OVERHEAD
        if value is None:
            return
        self._values[run_id] = value
        self._left -= len(value) + OVERHEAD
        while self._left < 0:
            self._left += len(self._values.popitem(last=False)[1]) + OVERHEAD
