"""Parcels as payloads: what its dispatches have in common once, the rest in few bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dflow.attempts.functions import ByValue, FunctionRef
from dflow.messages import AtRunner, Blob, Kept, SharedInfo, Work
from task_runners.dask.graph import CACHED, Part
from task_runners.dask.parcels import DaskKey, Entry, Parcel
from task_runners.dask.payload import LARGE, Extra, Item, Payload, digest, encode


class Encoder:
    """Turns parcels into what travels."""

    def __init__(self, run: str, script_there: bool, dumps: Callable[[Any], bytes]) -> None:
        self._run = run
        self._script_there = script_there
        self._dumps = dumps
        self._digests: OrderedDict[int, tuple[bytes, str]] = OrderedDict()

    def begin(self, parcel: Parcel, patience: float) -> Encoding:
        """Begin with a parcel."""
        return Encoding(self, self._run, self._script_there, parcel, patience)

    def dumps(self, value: Any) -> bytes:
        """Return a value as bytes. Raises whatever pickling it raises."""
        return self._dumps(value)

    def digest(self, data: bytes) -> str:
        """Return the hash of bytes, which many calls have in common: worked out once."""
        known = self._digests.get(id(data))
        if known is None or known[0] is not data:
            known = self._digests[id(data)] = (data, digest(data))
            if len(self._digests) > CACHED:
                self._digests.popitem(last=False)
        return known[1]


class Encoding:
    """One parcel on its way to a payload.

    `parts` are the large parts that travel beside it, `keys` the Dask keys of which the values are brought.
    """

    def __init__(
        self, encoder: Encoder, run: str, script_there: bool, parcel: Parcel, patience: float
    ) -> None:
        self._encoder = encoder
        self._parcel = parcel
        self._infos: dict[int, int] = {}
        self._functions: dict[int, int] = {}
        self._shared: dict[int, int] = {}
        self.parts: dict[str, bytes] = {}
        self.keys: dict[DaskKey, int] = {}
        self._payload = Payload(
            run, parcel.ticket, script_there, patience, infos=[], functions=[], shared=[], beside=[], items=[]
        )  # fmt: skip

    def add(self, entry: Entry, work: Work, on_shelf: Mapping[str, DaskKey]) -> None:
        """Add the next dispatch; `on_shelf` are the keys under which stored values are brought."""
        info, call = work.info, work.call
        shared = -1 if call.shared is None else self._place_of_shared(call.shared)
        item: Item = (
            entry.ticket,
            self._place_of_info(info.shared),
            self._place_of_function(call.function),
            shared,
            info.task_run_id,
            info.dispatch,
            info.generation,
            info.attempt,
            info.task_run_name,
            info.checkpoints,
            call.arguments,
            call.has_refs,
            self._extra(entry, work, on_shelf),
        )
        self._payload.items.append(item)

    def done(self) -> tuple[bytes, Sequence[Part], Sequence[DaskKey]]:
        """Return the payload, the parts beside it, and the keys of what it takes."""
        self._payload.beside = list(self.parts)
        return encode(self._payload), list(self.parts.items()), list(self.keys)

    def _place_of_info(self, info: SharedInfo) -> int:
        place = self._infos.get(id(info))
        if place is None:
            place = self._infos[id(info)] = len(self._payload.infos)
            self._payload.infos.append(info)
        return place

    def _place_of_function(self, function: FunctionRef) -> int:
        place = self._functions.get(id(function))
        if place is None:
            place = self._functions[id(function)] = len(self._payload.functions)
            if isinstance(function, ByValue) and len(function.data) > LARGE:
                self.parts[function.digest] = function.data
                function = ByValue(function.digest, b"")
            self._payload.functions.append(function)
        return place

    def _place_of_shared(self, data: bytes) -> int:
        place = self._shared.get(id(data))
        if place is None:
            place = self._shared[id(data)] = len(self._payload.shared)
            name = self._encoder.digest(data)
            if len(data) > LARGE:
                self.parts[name] = data
                self._payload.shared.append((name, None))
            else:
                self._payload.shared.append((name, data))
        return place

    def _extra(self, entry: Entry, work: Work, on_shelf: Mapping[str, DaskKey]) -> Extra | None:
        info, call = work.info, work.call
        if (
            not work.inputs
            and not info.confirm_start
            and info.cached is None
            and call.named is None
        ):
            return None
        extra = Extra(info.confirm_start, info.cached, call.named)
        by_key = {source.key: source for source in entry.sources}
        for name, given in work.inputs.items():
            if name in on_shelf:
                extra.given[name] = self._place_of_key(on_shelf[name])
            if isinstance(given, AtRunner):
                self._add_source(extra, name, by_key[given.key])
            elif isinstance(given, Kept):
                extra.kept[name] = given
            else:
                data = given.data if isinstance(given, Blob) else self._encoder.dumps(given.value)
                extra.values[name] = data
        return extra

    def _add_source(self, extra: Extra, name: str, source: Entry) -> None:
        stored = source.stored
        if source.copy is not None:
            extra.values[name] = source.copy
        elif stored is not None:
            extra.kept[name] = Kept(source.key, source.name, stored)
        elif source.parcel is self._parcel:
            extra.inside[name] = source.place
        elif source.parcel is not None:
            extra.given[name] = self._place_of_key(source.parcel.dask_key)

    def _place_of_key(self, key: DaskKey) -> int:
        return self.keys.setdefault(key, len(self.keys))


def kept_by(entry: Entry, work: Work) -> dict[str, Kept]:
    """Return what a dispatch takes out of result stores."""
    found = {name: given for name, given in work.inputs.items() if isinstance(given, Kept)}
    for source in entry.sources:
        if source.copy is None and source.stored is not None:
            found[source.key[0]] = Kept(source.key, source.name, source.stored)
    return found
