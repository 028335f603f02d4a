"""Fingerprints: the same inputs give the same bytes, in every process and under every hash seed.

Primitives are encoded canonically, arrays by their buffer, what another task run produces by the identity
of its producer. What cannot be encoded so raises `NoFingerprint`; nothing is ever guessed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from functools import partial
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any
from uuid import UUID  # noqa: TID251  (the type: no id is made here)

from dflow.messages import Ref

SIZE = 16
"""Bytes of a fingerprint."""
MAX_DEPTH = 100
"""How deep containers may be nested."""


class NoFingerprint(Exception):
    """A value has no fingerprint that would be the same in another process."""


class _Hash:
    """Collects what is to be hashed.

    `put` frames each piece by its length, so that no two inputs run together.
    """

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=SIZE)

    def put(self, tag: bytes, data: bytes | memoryview = b"") -> None:
        self._hash.update(b"%s:%d:" % (tag, len(data)))
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()


def fingerprint(value: Any) -> bytes:
    """Return 16 bytes that are the same for equal content. Raises `NoFingerprint`."""
    collected = _Hash()
    _feed(collected, value, 0)
    return collected.digest()


def _feed(to: _Hash, value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NoFingerprint(f"it is nested deeper than {MAX_DEPTH} levels")
    feed = _FEEDS.get(type(value))
    if feed is not None:
        feed(to, value, depth)
    elif isinstance(value, Enum | PurePath | type | FunctionType | BuiltinFunctionType | partial):
        _feed_named(to, value, depth)
    elif is_dataclass(value) and not isinstance(value, type):
        declared = {f.name: getattr(value, f.name, None) for f in fields(value)}
        _feed_fields(to, value, declared | getattr(value, "__dict__", {}), depth)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        _feed_fields(to, value, dict(zip(value._fields, value, strict=True)), depth)
    else:
        _feed_foreign(to, value, depth)


def _feed_items(tag: bytes) -> Callable[[_Hash, Any, int], None]:
    def feed(to: _Hash, value: Any, depth: int) -> None:
        to.put(tag, b"%d" % len(value))
        for item in value:
            _feed(to, item, depth + 1)

    return feed


def _feed_unordered(to: _Hash, value: Any, depth: int) -> None:
    to.put(b"S", b"%d" % len(value))
    for digest in sorted(_digest(item, depth) for item in value):
        to.put(b"-", digest)


def _feed_dict(to: _Hash, value: dict[Any, Any], depth: int) -> None:
    to.put(b"D", b"%d" % len(value))
    for digest, item in sorted(
        ((_digest(key, depth), item) for key, item in value.items()), key=_first
    ):
        to.put(b"-", digest)
        _feed(to, item, depth + 1)


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _digest(value: Any, depth: int) -> bytes:
    inner = _Hash()
    _feed(inner, value, depth + 1)
    return inner.digest()


def _feed_named(to: _Hash, value: Any, depth: int) -> None:
    if isinstance(value, Enum):
        to.put(b"E", _name(type(value)))
        _feed(to, value.value if isinstance(value, Flag) else value.name, depth + 1)
    elif isinstance(value, PurePath):
        to.put(b"P", _text(str(value)))
    elif isinstance(value, partial):
        to.put(b"p")
        for part in (value.func, value.args, value.keywords):
            _feed(to, part, depth + 1)
    else:
        to.put(b"F", _name(value))


def _name(value: Any) -> bytes:
    """Return ``module:qualname``; only what is found under its name has one."""
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if value is not found and value is not getattr(found, "function", None):
        raise NoFingerprint(f"'{qualname or value!r}' has no name by which it is found again")
    return _text(f"{'__main__' if module == '__mp_main__' else module}:{qualname}")


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _feed_fields(to: _Hash, value: Any, content: dict[str, Any], depth: int) -> None:
    to.put(b"C", _name(type(value)))
    to.put(b"-", b"%d" % len(content))
    for name, item in sorted(content.items()):
        to.put(b"-", _text(name))
        _feed(to, item, depth + 1)


def _feed_foreign(to: _Hash, value: Any, depth: int) -> None:
    """Feed what belongs to a library that is only known if the user has imported it."""
    numpy, pydantic = sys.modules.get("numpy"), sys.modules.get("pydantic")
    if numpy is not None and type(value) is numpy.ndarray:
        _feed_array(to, b"A", value)
    elif numpy is not None and isinstance(value, numpy.generic):
        _feed_array(to, b"G", numpy.asarray(value))
    elif pydantic is not None and isinstance(value, pydantic.BaseModel):
        more = (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})
        _feed_fields(to, value, vars(value) | more, depth)
    elif isinstance(value, ModuleType):
        to.put(b"M", value.__name__.encode())
    else:
        kind = type(value)
        raise NoFingerprint(f"a '{kind.__module__}.{kind.__qualname__}' has no canonical form")


def _feed_array(to: _Hash, tag: bytes, array: Any) -> None:
    if array.dtype.hasobject:
        raise NoFingerprint("an array of Python objects has no canonical form")
    to.put(tag, _text(f"{array.dtype.str}{array.shape}{array.dtype!r}"))
    contiguous = array if array.flags.c_contiguous else array.copy(order="C")
    to.put(b"-", memoryview(contiguous.reshape(-1).view("u1")) if contiguous.nbytes else b"")


def _feed_time(tag: bytes) -> Callable[[_Hash, Any, int], None]:
    """Feed a time of day, with the zone it is in: equal moments in two zones are not the same."""
    return lambda to, value, depth: to.put(
        tag, _text(f"{value.isoformat()} {value.fold} {value.tzinfo}")
    )


_FEEDS: dict[type, Callable[[_Hash, Any, int], None]] = {
    type(None): lambda to, value, depth: to.put(b"N"),
    bool: lambda to, value, depth: to.put(b"b", b"1" if value else b"0"),
    int: lambda to, value, depth: to.put(b"i", b"%x" % value),
    float: lambda to, value, depth: to.put(b"f", value.hex().encode()),
    complex: lambda to, value, depth: to.put(b"c", repr(value).encode()),
    str: lambda to, value, depth: to.put(b"s", _text(value)),
    bytes: lambda to, value, depth: to.put(b"y", value),
    bytearray: lambda to, value, depth: to.put(b"Y", bytes(value)),
    list: _feed_items(b"L"),
    tuple: _feed_items(b"T"),
    set: _feed_unordered,
    frozenset: _feed_unordered,
    dict: _feed_dict,
    range: lambda to, value, depth: _feed_items(b"r")(
        to, (value.start, value.stop, value.step), depth
    ),
    slice: lambda to, value, depth: _feed_items(b"l")(
        to, (value.start, value.stop, value.step), depth
    ),
    datetime: _feed_time(b"d"),
    date: lambda to, value, depth: to.put(b"a", value.isoformat().encode()),
    time: _feed_time(b"t"),
    timedelta: lambda to, value, depth: to.put(b"e", repr(value).encode()),
    Decimal: lambda to, value, depth: to.put(b"m", str(value).encode()),
    UUID: lambda to, value, depth: to.put(b"u", value.bytes),
    Ref: lambda to, value, depth: to.put(
        b"W" if value.may_fail else b"R", value.task_run_id.encode()
    ),
}
