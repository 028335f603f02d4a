"""Task runs as Dask graphs: keys that are never used twice, and the tasks behind them."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from dask.task_spec import Task, TaskRef
from dask.tokenize import normalize_token

from dflow.attempts.functions import ByValue
from dflow.attempts.packing import PackedCall
from dflow.core.records import Stored
from dflow.messages import Along, Blob, Kept, Work
from task_runners.dask.book import DaskKey, Entry
from task_runners.dask.execution import beside
from task_runners.dask.payload import LARGE, Payload, digest, encode

CHUNK = 2000
"""How many task runs go into one graph: the scheduler takes a graph in one go."""
MAX_NAME = 80
"""How many characters of a task's name its keys show."""
CACHED = 8
"""How many large parts are kept on the cluster for dispatches to come."""

tickets = itertools.count(1)
"""Numbers of dispatches: no two in this process are equal."""

Part = tuple[str, bytes]
"""The hash of some bytes, and the bytes."""


class Graph(dict[DaskKey, Any]):
    """A graph of explicit keys. Dask would hash all of any other dict, to name what is named already."""


_numbers = itertools.count()


@normalize_token.register(Graph)
def _name(_graph: Graph) -> tuple[str, int]:
    return "dflow-graph", next(_numbers)


def dask_key(work: Work, run: str, ticket: int) -> DaskKey:
    """Return the key of a dispatch. Its prefix is the task's name: Dask learns durations by it.

    The digit makes Dask see where the name ends; `run` tells flow runs and drivers apart.
    """
    return f"{work.info.task_name[:MAX_NAME]}-0{work.info.root_id[-8:]}{run}", ticket


class Encoder:
    """Turns works into Dask tasks whose payload travels."""

    def __init__(self, run: str, script_there: bool, dumps: Callable[[Any], bytes]) -> None:
        self._run = run
        self._script_there = script_there
        self._dumps = dumps
        self._digests: OrderedDict[int, tuple[bytes, str]] = OrderedDict()

    def encode(
        self,
        work: Work,
        entry: Entry,
        ups: Sequence[str],
        inputs: Mapping[str, Along],
    ) -> tuple[bytes, list[Part]]:
        """Return the payload of a work, and the parts beside it.

        `ups` are the task runs whose values Dask brings, `inputs` what goes along of others, or tells what it
        brings.
        Raises whatever pickling one of those raises.
        """
        call, parts, shared = self._split(work.call)
        payload = Payload(
            run=self._run,
            ticket=entry.ticket,
            info=work.info,
            call=call,
            script_there=self._script_there,
            shared=shared,
            beside=tuple(name for name, _ in parts),
            values={
                name: given.data if isinstance(given, Blob) else self._dumps(given.value)
                for name, given in inputs.items()
                if not isinstance(given, Kept)
            },
            kept={name: given for name, given in inputs.items() if isinstance(given, Kept)},
            upstreams=tuple(ups),
        )
        return encode(payload), parts

    def _split(self, call: PackedCall) -> tuple[PackedCall, list[Part], str | None]:
        """Take out of a call what is large and shared by many."""
        parts: list[Part] = []
        function, shared = call.function, None
        if isinstance(function, ByValue) and len(function.data) > LARGE:
            parts.append((function.digest, function.data))
            call = replace(call, function=ByValue(function.digest, b""))
        if call.shared is not None:
            shared = self._digest(call.shared)
            if len(call.shared) > LARGE:
                parts.append((shared, call.shared))
                call = replace(call, shared=None)
        return call, parts, shared

    def _digest(self, data: bytes) -> str:
        """Return the hash of bytes, which many calls have in common: worked out once."""
        known = self._digests.get(id(data))
        if known is None or known[0] is not data:
            known = self._digests[id(data)] = (data, digest(data))
            if len(self._digests) > CACHED:
                self._digests.popitem(last=False)
        return known[1]


@dataclass(slots=True)
class Draft:
    """A graph in the making: its tasks, the dispatches, the new parts and stored values among them."""

    graph: Graph = field(default_factory=Graph)
    entries: list[Entry] = field(default_factory=list)
    parts: dict[str, DaskKey] = field(default_factory=dict)
    shelf: dict[Stored, tuple[DaskKey, int]] = field(default_factory=dict)

    def add(self, entry: Entry, function: Callable[..., Any], *args: Any) -> None:
        """Add a dispatch."""
        self.graph[entry.dask_key] = Task(entry.dask_key, function, *args)
        self.entries.append(entry)


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
