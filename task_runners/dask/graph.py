"""Parcels as Dask graphs: keys that are never used twice, and the tasks behind them."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dask.task_spec import Task, TaskRef
from dask.tokenize import normalize_token

from dflow.core.records import Stored
from task_runners.dask.execution import beside
from task_runners.dask.parcels import DaskKey, Entry, Parcel

CHUNK = 2000
"""How many parcels go into one graph: the scheduler takes a graph in one go."""
MAX_NAME = 80
"""How many characters of a task's name its keys show."""
CACHED = 8
"""How many large parts are kept on the cluster for dispatches to come."""

tickets = itertools.count(int.from_bytes(os.urandom(5)))
"""Numbers of dispatches and parcels: no two are equal, in this process or among the drivers of a run."""

Part = tuple[str, bytes]
"""The hash of some bytes, and the bytes."""


class Graph(dict[DaskKey, Any]):
    """A graph of explicit keys. Dask would hash all of any other dict, to name what is named already."""


_numbers = itertools.count()


@normalize_token.register(Graph)
def _name(_graph: Graph) -> tuple[str, int]:
    return "dflow-graph", next(_numbers)


def dask_key(entries: Sequence[Entry], run: str, ticket: int) -> DaskKey:
    """Return the key of a parcel. Its prefix is the task's name: Dask learns durations by it.

    Batches have prefixes of their own, those of one too: nothing waits for them in Dask, so that they may be
    given back. The digit makes Dask see where the name ends; `run` tells flow runs and drivers apart.
    """
    names = {entry.work.info.task_name for entry in entries if entry.work is not None}
    name = names.pop()[:MAX_NAME] if len(names) == 1 else "dflow"
    batch = entries[0].batch
    kind = "-batch" if len(entries) > 1 or (batch is not None and not batch.sole) else ""
    return f"{name}{kind}-0{run}", ticket


@dataclass(slots=True)
class Draft:
    """A graph in the making: its tasks, the parcels, the new parts and stored values among them."""

    graph: Graph = field(default_factory=Graph)
    parcels: list[Parcel] = field(default_factory=list)
    parts: dict[str, DaskKey] = field(default_factory=dict)
    shelf: dict[Stored, tuple[DaskKey, int]] = field(default_factory=dict)

    def add(self, parcel: Parcel, function: Callable[..., Any], *args: Any) -> None:
        """Add a parcel."""
        self.graph[parcel.dask_key] = Task(parcel.dask_key, function, *args)
        self.parcels.append(parcel)


@dataclass(frozen=True, slots=True)
class Sent:
    """A graph that was sent, and of which it is not known yet what became."""

    message: Mapping[str, Any]
    keys: tuple[DaskKey, ...]


class Keys(Protocol):
    """Dask keys that are held on a cluster."""

    def status(self, key: DaskKey) -> str:
        """Return pending, finished, error, lost or cancelled; cancelled too for a key that is not held."""

    def release(self, keys: Sequence[DaskKey]) -> None:
        """Let go of keys."""


THERE = ("pending", "finished")
"""The status of a key whose value is, or will be, on the cluster."""


class Parts:
    """Large parts that are nodes of their own, held on the cluster for dispatches to come."""

    def __init__(self, run: str, keys: Keys) -> None:
        self._run = run
        self._keys = keys
        self._held: OrderedDict[str, DaskKey] = OrderedDict()

    def refer(self, part: Part, draft: Draft) -> TaskRef:
        """Return a reference to a part; one that is not on the cluster is added to the draft."""
        name, data = part
        held = self._held.get(name)
        if name not in draft.parts and held is not None and self._keys.status(held) in THERE:
            self._held.move_to_end(name)
            return TaskRef(held)
        if name not in draft.parts:
            key = draft.parts[name] = (f"dflow-shared-0{self._run}{name}", next(tickets))
            draft.graph[key] = Task(key, beside, data)
        return TaskRef(draft.parts[name])

    def hold(self, draft: Draft) -> None:
        """Keep the draft's parts; let go of those that were not needed for longest."""
        for name, key in draft.parts.items():
            self._held[name] = key
            self._held.move_to_end(name)
        while len(self._held) > CACHED:
            _, oldest = self._held.popitem(last=False)
            self._keys.release([oldest])
