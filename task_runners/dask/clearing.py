"""What waits on a worker behind bodies that take their time is given back: none of it waits for an hour.

Dask moves short tasks to no other worker once they are with one. And a body that has waited, and has come
back to its slot, counts for Dask as one that left it: what is sent then is at work for Dask, and stands in
the pool of threads behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from task_runners.dask import payload, wire, worker_wire
from task_runners.dask.parcels import DaskKey

LOOK = 0.1
"""Seconds between two looks at what waits."""
AGAIN = 0.05, 0.5
"""Seconds until the look after one that found something, as that may have come here again: at first, and at
most, where it does so each time."""
IN_VAIN = 0.5
"""Seconds after which what waits is given back though bodies do not hold all threads, as far as is known."""

GiveBack = Callable[[str, Any], None]
"""Gives a parcel of a flow run back, by the worker's record of it, unless it was taken up."""


class MayLeave(Protocol):
    """The place of a body."""

    @property
    def left(self) -> bool:
        """Whether its thread has left the pool."""


class Clearing:
    """Looks, in the loop of one worker, at what waits there, as long as a body takes its time."""

    def __init__(self, worker: Any, give_back: GiveBack) -> None:
        self._worker = worker
        self._give_back = give_back
        self._slow: list[tuple[Callable[[], bool], MayLeave]] = []
        self._since: dict[DaskKey, float] = {}
        self._seen: set[DaskKey] = set()
        self._again = AGAIN[0] / 2
        self._timer: Any = None

    def begin(self, still: Callable[[], bool], place: MayLeave) -> None:
        """Look from now on, as long as a body is `still` at work. May be called in any thread."""
        self._worker.loop.add_callback(self._begin, still, place)

    def _begin(self, still: Callable[[], bool], place: MayLeave) -> None:
        self._slow.append((still, place))
        if self._timer is not None:
            self._worker.loop.remove_timeout(self._timer)
        self._look()

    def _look(self) -> None:
        """Give back what waits in vain, and look again after a time."""
        self._slow = [(still, place) for still, place in self._slow if still()]
        found = self._clear()
        least, most = AGAIN
        self._again = min(2 * self._again, most) if found else least / 2
        later = self._worker.loop.call_later
        pause = self._again if found else LOOK
        self._timer = later(pause, self._look) if self._slow else None

    def _clear(self) -> bool:
        """Give back what waits in vain; return whether there was anything."""
        now = self._worker.loop.time()
        held = sum(not place.left for _, place in self._slow)
        waiting = {task.key: task for task in worker_wire.waiting(self._worker)} if held else {}
        self._since = {key: self._since.get(key, now) for key in waiting}
        self._seen &= waiting.keys()
        none_free = held >= worker_wire.threads(self._worker)
        new = [
            key
            for key, since in self._since.items()
            if key not in self._seen and (none_free or now - since >= IN_VAIN)
        ]
        for key in new:
            self._seen.add(key)
            data = wire.payload_of(waiting[key])
            found = None if data is None else payload.decode(data)
            if found is not None and found.again is None:
                self._give_back(found.run, waiting[key])
        return bool(new)
