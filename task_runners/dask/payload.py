"""A parcel as bytes: what travels in one Dask task, and how it is read on the worker.

For the scheduler it is opaque. What its dispatches have in common is in it once. Large parts that many share
travel beside it, as nodes of the graph, and are unpickled once per process.
"""

from __future__ import annotations

import pickle
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from dflow.attempts.calls import Call
from dflow.attempts.functions import ByValue, FunctionRef
from dflow.attempts.packing import PackedCall, unpack
from dflow.core.values import CacheAs
from dflow.errors import SerializationError
from dflow.messages import AttemptInfo, Kept, SharedInfo
from dflow.results.pickling import loads

LARGE = 64_000
"""From how many bytes on a part travels beside the payload."""
KEPT = 8
"""How many unpickled shared parts a process keeps."""


class Extra(msgspec.Struct):
    """What few dispatches have: an unusual attempt, and where its values come from, by task run.

    `values` are pickled values, `kept` those in result stores, `inside` the places of dispatches in the same
    parcel, `given` where in what Dask brings the value is, some of the `kept` ones among them.
    """

    confirm_start: bool = False
    cached: CacheAs | None = None
    named: bytes | None = None
    values: dict[str, bytes] = msgspec.field(default_factory=dict)
    kept: dict[str, Kept] = msgspec.field(default_factory=dict)
    inside: dict[str, int] = msgspec.field(default_factory=dict)
    given: dict[str, int] = msgspec.field(default_factory=dict)


Item = tuple[int, int, int, int, str, int, int, int, str, str, bytes, bool, Extra | None]
"""One dispatch: its ticket; where its shared info, its function and its shared arguments are (-1: none); its
task run, dispatch, generation, attempt, name, checkpoints and arguments; whether there are references among
these; and what few have."""


class Payload(msgspec.Struct):
    """A parcel: of which run, under which number, and its dispatches in the order in which they run.

    Of a part that travels beside it only the hash is in it: `beside` names those, in their order. A function
    or shared arguments without bytes are among them. `patience` is how many seconds one dispatch may take
    before those behind it are given back. When the values that it gave are lost, only those `again` are made.
    """

    run: str
    ticket: int
    script_there: bool
    patience: float
    infos: list[SharedInfo]
    functions: list[FunctionRef]
    shared: list[tuple[str, bytes | None]]
    beside: list[str]
    items: list[Item]
    again: tuple[int, ...] | None = None
    """The places of the dispatches that are to run, and nothing is given back; None for all."""


def digest(data: bytes) -> str:
    """Return the name of some bytes."""
    return blake2b(data, digest_size=16).hexdigest()


def encode(payload: Payload) -> bytes:
    """Return a payload as bytes.

    distributed looks for the text ``__main__`` in what it pickles, and pickles again when it finds it: then
    the bytes are hidden from it.
    """
    data = pickle.dumps(payload, protocol=5)
    return b"z" + zlib.compress(data, 1) if b"__main__" in data else b"p" + data


def decode(data: bytes) -> Payload:
    """Return the payload that was encoded."""
    rest = memoryview(data)[1:]
    payload: Payload = pickle.loads(zlib.decompress(rest) if data[:1] == b"z" else rest)
    return payload


def only(data: bytes, places: Iterable[int]) -> bytes:
    """Return a payload of which only these places run again, and those in it whose values they take."""
    payload = decode(data)
    found: set[int] = set()
    left = list(places)
    while left:
        place = left.pop()
        found.add(place)
        extra = payload.items[place][12]
        left += [] if extra is None else set(extra.inside.values()) - found
    payload.again = tuple(sorted(found))
    return encode(payload)


Summary = tuple[tuple[int, str, int, str, FunctionRef, tuple[int, ...]], ...]
"""Of each dispatch in a parcel: its ticket, task run, dispatch, task and function, and the places of those in
the same parcel that it depends on."""


def summary(data: bytes) -> bytes | None:
    """Return, pickled, what dispatches a parcel is of; None for bytes that are no parcel of this dflow."""
    try:
        payload = decode(data)
        found: Summary = tuple(
            (
                item[0],
                item[4],
                item[5],
                payload.infos[item[1]].task_name,
                _named_only(payload.functions[item[2]]),
                () if item[12] is None else tuple(item[12].inside.values()),
            )
            for item in payload.items
        )
    except Exception:
        return None
    return pickle.dumps(found, protocol=5)


def _named_only(function: FunctionRef) -> FunctionRef:
    return ByValue(function.digest, b"") if isinstance(function, ByValue) else function


def info_of(payload: Payload, item: Item) -> AttemptInfo:
    """Return what the attempt of an item knows of itself."""
    extra = item[12]
    return AttemptInfo(
        task_run_id=item[4],
        dispatch=item[5],
        generation=item[6],
        attempt=item[7],
        task_run_name=item[8],
        shared=payload.infos[item[1]],
        confirm_start=extra is not None and extra.confirm_start,
        checkpoints=item[9],
        cached=None if extra is None else extra.cached,
    )


def call_of(
    payload: Payload, item: Item, beside: Mapping[str, bytes], loaded: dict[int, Callable[..., Any]]
) -> Call:
    """Return the call of an item; `beside` are the parts that came with the parcel, by hash.

    `loaded` are the functions that were loaded for those before it. Raises `SerializationError` when
    something cannot be loaded here.
    """
    function, extra = payload.functions[item[2]], item[12]
    if isinstance(function, ByValue) and function.digest in beside:
        function = ByValue(function.digest, beside[function.digest])
    named = None if extra is None else extra.named
    packed = PackedCall(function, item[10], None, item[11], named)
    shared = {} if item[3] < 0 else _shared_of(payload, item, beside)
    call = unpack(packed, shared, loaded.get(item[2]))
    loaded[item[2]] = call.function
    return call


def _shared_of(payload: Payload, item: Item, beside: Mapping[str, bytes]) -> Mapping[str, Any]:
    name, there = payload.shared[item[3]]
    with _lock:
        if name in _kept:
            _kept.move_to_end(name)
            return _kept[name]
    data = beside.get(name, there)
    if data is None:
        raise SerializationError(
            "Arguments that are shared by a map did not arrive. Please report it."
        )
    try:
        value: Mapping[str, Any] = loads(data)
    except Exception as error:
        task_name = payload.infos[item[1]].task_name
        raise SerializationError(
            f"The shared arguments of task '{task_name}' cannot be loaded on the worker: "
            f"{error!r}. Check that the workers have the same packages as the driver."
        ) from error
    with _lock:
        _kept[name] = value
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return value


_lock = threading.Lock()
_kept: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
