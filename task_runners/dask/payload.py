"""A dispatch as bytes: what travels in one Dask task, and how it is read on the worker.

For the scheduler it is opaque. Large parts that many dispatches share travel beside it, as nodes of the
graph, and are unpickled once per process.
"""

from __future__ import annotations

import pickle
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from dflow.attempts.calls import Call
from dflow.attempts.functions import ByValue
from dflow.attempts.packing import PackedCall, unpack
from dflow.errors import SerializationError
from dflow.messages import AttemptInfo, Kept
from dflow.results.pickling import loads

LARGE = 64_000
"""From how many bytes on a part travels beside the payload."""
KEPT = 8
"""How many unpickled shared parts a process keeps."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One dispatch: of which run, under which number, what to call, and where its values come from.

    Of a part that travels beside the payload only the hash is in it. `values` are pickled values of
    upstreams, by task run, `kept` those that are in result stores. `upstreams` are the task runs whose
    values Dask brings, some of the `kept` ones among them.
    """

    run: str
    ticket: int
    info: AttemptInfo
    call: PackedCall
    script_there: bool
    shared: str | None = None
    beside: tuple[str, ...] = ()
    values: Mapping[str, bytes] | None = None
    kept: Mapping[str, Kept] | None = None
    upstreams: tuple[str, ...] = ()


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


def call_of(payload: Payload, beside: Mapping[str, bytes]) -> Call:
    """Return the call of a dispatch; `beside` are the parts that came with it, by hash.

    Raises `SerializationError` when something cannot be loaded here.
    """
    packed = payload.call
    function = packed.function
    if isinstance(function, ByValue) and function.digest in beside:
        packed = replace(packed, function=ByValue(function.digest, beside[function.digest]))
    if payload.shared is None:
        return unpack(packed, shared={})
    return unpack(packed, shared=_shared_of(payload, beside))


def _shared_of(payload: Payload, beside: Mapping[str, bytes]) -> Mapping[str, Any]:
    name = payload.shared or ""
    with _lock:
        if name in _kept:
            _kept.move_to_end(name)
            return _kept[name]
    data = beside.get(name, payload.call.shared)
    if data is None:
        raise SerializationError(
            "Arguments that are shared by a map did not arrive. Please report it."
        )
    try:
        value: Mapping[str, Any] = loads(data)
    except Exception as error:
        raise SerializationError(
            f"The shared arguments of task '{payload.info.task_name}' cannot be loaded on the worker: "
            f"{error!r}. Check that the workers have the same packages as the driver."
        ) from error
    with _lock:
        _kept[name] = value
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return value


_lock = threading.Lock()
_kept: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
