"""Values from result stores that several dispatches need: nodes of their own, read once on the cluster.

From there they go from worker to worker as all values do. A worker that dies takes such a value with it, and
Dask reads it again; the body that made it does not run again.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict

from dask.task_spec import Task

from dflow.core.records import Stored
from dflow.messages import Kept
from task_runners.dask import execution
from task_runners.dask.graph import THERE, Draft, Keys, tickets
from task_runners.dask.parcels import DaskKey
from task_runners.values import DIRECT, ROOM


class Shelf:
    """The values that are, or will be, on the cluster."""

    def __init__(self, run: str, keys: Keys) -> None:
        self._run = run
        self._keys = keys
        self._held: OrderedDict[Stored, tuple[DaskKey, int]] = OrderedDict()
        self._bad: set[Stored] = set()

    def refer(self, kept: Kept, draft: Draft) -> DaskKey | None:
        """Return the key of the node of a value; None for one that is to be read by who needs it.

        That is one that is small, or that Dask could not read.
        """
        if kept.stored.size <= DIRECT or kept.stored in self._bad:
            return None
        if kept.stored in draft.shelf:
            return draft.shelf[kept.stored][0]
        if kept.stored in self._held:
            held, _ = self._held[kept.stored]
            status = self._keys.status(held)
            if status == "error":
                self._bad.add(kept.stored)
                return None
            if status in THERE:
                self._held.move_to_end(kept.stored)
                return held
        key = (f"dflow-stored-0{self._run}{kept.stored.digest}", next(tickets))
        draft.shelf[kept.stored] = key, kept.stored.size
        draft.graph[key] = Task(key, execution.read, pickle.dumps(kept, protocol=5))
        return key

    def hold(self, draft: Draft) -> None:
        """Keep the draft's values; let go of those that were not needed for longest."""
        for name, held in draft.shelf.items():
            self._held[name] = held
            self._held.move_to_end(name)
        while sum(size for _, size in list(self._held.values())[:-1]) > ROOM:
            _, (oldest, _) = self._held.popitem(last=False)
            self._keys.release([oldest])
