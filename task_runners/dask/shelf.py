"""Values from result stores that several dispatches need: nodes of their own, read once on the cluster.

From there they go from worker to worker as all values do. A worker that dies takes such a value with it, and
Dask reads it again; the body that made it does not run again.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from dask.task_spec import Task, TaskRef

from dflow.core.records import Stored
from dflow.messages import Kept
from task_runners.dask import execution
from task_runners.dask.graph import DaskKey, Draft, tickets
from task_runners.values import DIRECT, ROOM


class Shelf:
    """The values that are, or will be, on the cluster."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._held: OrderedDict[Stored, tuple[Any, int]] = OrderedDict()
        self._bad: set[Stored] = set()

    def refer(self, kept: Kept, draft: Draft) -> TaskRef | None:
        """Return a reference to the node of a value; None for one that is to be read by who needs it.

        That is one that is small, or that Dask could not read.
        """
        if kept.stored.size <= DIRECT or kept.stored in self._bad:
            return None
        if kept.stored in draft.shelf:
            return TaskRef(draft.shelf[kept.stored][0])
        held = self._held.get(kept.stored)
        if held is not None and held[0].status == "error":
            self._bad.add(kept.stored)
            return None
        if held is not None and held[0].status in ("pending", "finished"):
            self._held.move_to_end(kept.stored)
            return TaskRef(held[0].key)
        key = (f"dflow-stored-0{self._run}{kept.stored.digest}", next(tickets))
        draft.shelf[kept.stored] = key, kept.stored.size
        draft.graph[key] = Task(key, execution.read, pickle.dumps(kept, protocol=5))
        return TaskRef(key)

    def hold(self, futures: Mapping[DaskKey, Any], draft: Draft) -> None:
        """Keep the futures of the draft's values; let go of those that were not needed for longest."""
        for name, (key, size) in draft.shelf.items():
            self._held[name] = futures[key], size
            self._held.move_to_end(name)
        while sum(size for _, size in list(self._held.values())[:-1]) > ROOM:
            _, (oldest, _) = self._held.popitem(last=False)
            oldest.release()
