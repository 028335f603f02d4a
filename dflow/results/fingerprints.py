"""Fingerprints: the same inputs give the same bytes, in every process and under every hash seed.

Primitives are encoded canonically, arrays by their buffer, what another task run produces by the identity
of its producer. What cannot be encoded so raises `NoFingerprint`; nothing is ever guessed.

There are two kinds. `fingerprint` says which call is meant: a function is known by its name, a path by its
text, and it is made from what a later pass of the same flow is sure to have again. `content` says what a
value holds, for keys of caches: functions count with their code, their defaults and what they close over,
files with their size and time, and an object of any class with the state that it would be pickled with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path, PurePath
from types import BuiltinFunctionType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import UUID  # noqa: TID251  (the type: no id is made here)

from dflow.messages import Ref
from dflow.results import foreign, plain_values, taking_apart
from dflow.results.foreign import Array, Items, NoForm
from dflow.results.plain_values import LARGE, SIZE
from dflow.results.source import code_digest, origin

MAX_DEPTH = 100
"""How deep containers may be nested."""


class NoFingerprint(Exception):
    """A value has no fingerprint that would be the same in another process."""


@dataclass(slots=True)
class _Walk:
    """One look at a value: what is open on the way to where it is, and what it has been through already."""

    deep: bool
    files: bool = True
    open: dict[int, int] = field(default_factory=dict)
    known: dict[int, tuple[Any, bytes]] = field(default_factory=dict)


class _Hash:
    """Collects what is to be hashed.

    `put` frames each piece by its length, so that no two inputs run together.
    """

    __slots__ = ("_hash", "walk")

    def __init__(self, walk: _Walk) -> None:
        self._hash = blake2b(digest_size=SIZE)
        self.walk = walk

    def put(self, tag: bytes, data: bytes | memoryview = b"") -> None:
        if len(data) > LARGE:
            self.put_pieces(tag, len(data), [memoryview(data)])
            return
        self._hash.update(b"%s:%d:" % (tag, len(data)))
        self._hash.update(data)

    def put_pieces(self, tag: bytes, size: int, pieces: Iterable[memoryview]) -> None:
        self._hash.update(b"%s:%d:" % (tag, size))
        inner = sha256(usedforsecurity=False) if size > LARGE else self._hash
        for piece in pieces:
            inner.update(piece)
        if inner is not self._hash:
            self._hash.update(inner.digest())

    def digest(self) -> bytes:
        return self._hash.digest()


def fingerprint(value: Any) -> bytes:
    """Return 16 bytes that say which call is meant by these inputs. Raises `NoFingerprint`."""
    return plain_values.digest(value) or _made(value, _Walk(deep=False, files=False))


def content(value: Any, *, files: bool = True) -> bytes:
    """Return 16 bytes that are the same for equal content. Raises `NoFingerprint`.

    Without `files` a path is its text, whatever is there.

    >>> content({"lr": 0.1, "layers": [3, 4]}) == content({"layers": [3, 4], "lr": 0.1})
    True
    """
    return plain_values.digest(value) or _made(value, _Walk(deep=True, files=files))


def _made(value: Any, walk: _Walk) -> bytes:
    collected = _Hash(walk)
    try:
        _feed(collected, value, 0)
    except NoForm as problem:
        raise NoFingerprint(str(problem)) from None
    except RecursionError:
        raise NoFingerprint("it is nested too deep") from None
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
    for digest in sorted(_digest(to, item, depth) for item in value):
        to.put(b"-", digest)


def _feed_dict(to: _Hash, value: dict[Any, Any], depth: int) -> None:
    to.put(b"D", b"%d" % len(value))
    for digest, item in sorted(
        ((_digest(to, key, depth), item) for key, item in value.items()), key=_first
    ):
        to.put(b"-", digest)
        _feed(to, item, depth + 1)


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _digest(to: _Hash, value: Any, depth: int) -> bytes:
    inner = _Hash(to.walk)
    _feed(inner, value, depth + 1)
    return inner.digest()


def _feed_fields(to: _Hash, value: Any, content: dict[str, Any], depth: int) -> None:
    _feed_class(to, b"C", type(value), depth)
    to.put(b"-", b"%d" % len(content))
    for name, item in sorted(content.items()):
        to.put(b"-", _text(name))
        _feed(to, item, depth + 1)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


# What has a name -----------------------------------------------------------------------------------


def _feed_named(to: _Hash, value: Any, depth: int) -> None:
    if isinstance(value, Enum):
        _feed_class(to, b"E", type(value), depth)
        _feed(to, value.value if isinstance(value, Flag) else value.name, depth + 1)
        if to.walk.deep and not isinstance(value, Flag):
            _feed(to, value.value, depth + 1)
    elif isinstance(value, PurePath):
        to.put(b"P", _text(str(value)))
        if to.walk.files and isinstance(value, Path):
            _feed(to, taking_apart.of_path(value), depth + 1)
    elif isinstance(value, partial):
        to.put(b"p")
        for part in (value.func, value.args, value.keywords):
            _feed(to, part, depth + 1)
    elif to.walk.deep and isinstance(value, FunctionType):
        _feed_once(to, value, depth, _feed_function)
    elif to.walk.deep and isinstance(value, type) and taking_apart.is_users(value):
        _feed_once(to, value, depth, _feed_definition)
    else:
        to.put(b"F", _name(value))


def _feed_class(to: _Hash, tag: bytes, cls: type, depth: int) -> None:
    """Feed the class of a value: its name, or what it is made of if it is not found by that."""
    if to.walk.deep and "<locals>" in cls.__qualname__:
        to.put(tag)
        _feed_once(to, cls, depth, _feed_definition)
    else:
        to.put(tag, _name(cls))


def _name(value: Any) -> bytes:
    """Return ``module:qualname``; only what is found under its name has one."""
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if value is not found and value is not getattr(found, "function", None):
        raise NoFingerprint(f"'{qualname or value!r}' has no name by which it is found again")
    return _text(f"{'__main__' if module == '__mp_main__' else module}:{qualname}")


def _feed_function(to: _Hash, value: FunctionType, depth: int) -> None:
    if taking_apart.is_installed(value.__module__):
        to.put(b"F", _text(f"{value.__module__}:{value.__qualname__}"))
        if "<" not in value.__qualname__:
            return
    to.put(b"f", _text(origin(value)))
    to.put(b"-", code_digest(value.__code__))
    for part in (taking_apart.closure_of(value), value.__defaults__, value.__kwdefaults__):
        _feed(to, part, depth + 1)


def _feed_definition(to: _Hash, cls: type, depth: int) -> None:
    """Feed what a class is made of."""
    to.put(b"K", _text(cls.__qualname__))
    for base in cls.__bases__:
        _feed(to, base, depth + 1)
    _feed_dict(to, taking_apart.of_class(cls), depth)


def _feed_once(to: _Hash, value: Any, depth: int, feed: Callable[[_Hash, Any, int], None]) -> None:
    """Feed the digest of a value that may hold itself, or be held several times: it is made once."""
    walk = to.walk
    if id(value) in walk.open:
        to.put(b"@", b"%d" % walk.open[id(value)])
        return
    if id(value) not in walk.known:
        walk.open[id(value)] = len(walk.open)
        inner = _Hash(walk)
        feed(inner, value, depth)
        del walk.open[id(value)]
        walk.known[id(value)] = value, inner.digest()
    to.put(b"O", walk.known[id(value)][1])


# What belongs to libraries, and objects ----------------------------------------------------------------


def _feed_foreign(to: _Hash, value: Any, depth: int) -> None:
    """Feed what belongs to a library that is only known if the user has imported it, and any other object."""
    deep = to.walk.deep
    numpy, pydantic = sys.modules.get("numpy"), sys.modules.get("pydantic")
    if numpy is not None and foreign.is_array(numpy, value, deep=deep):
        _feed_array(to, b"A", value, depth)
    elif numpy is not None and isinstance(value, numpy.generic):
        _feed_array(to, b"G", numpy.asarray(value), depth)
    elif pydantic is not None and isinstance(value, pydantic.BaseModel):
        more = (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})
        _feed_fields(to, value, vars(value) | more, depth)
    elif isinstance(value, ModuleType):
        to.put(b"M", value.__name__.encode())
    elif (parts := foreign.parts_of(value)) is not None:
        kind = type(value)
        to.put(b"X", _text(f"{kind.__module__.partition('.')[0]}:{kind.__qualname__}"))
        for part in parts:
            _feed_part(to, part, depth)
    elif deep:
        _feed_once(to, value, depth, _feed_object)
    else:
        kind = type(value)
        raise NoFingerprint(f"a '{kind.__module__}.{kind.__qualname__}' has no canonical form")


def _feed_part(to: _Hash, part: Any, depth: int) -> None:
    if isinstance(part, Array):
        _feed_array(to, b"A", part.array, depth)
    elif isinstance(part, Items):
        _feed_many(to, part.items, depth)
    else:
        _feed(to, part, depth + 1)


def _feed_array(to: _Hash, tag: bytes, array: Any, depth: int) -> None:
    if array.dtype == object:
        to.put(tag, _text(f"|O{array.shape}"))
        _feed_many(to, array.ravel().tolist(), depth)
        return
    if array.dtype.hasobject:
        raise NoFingerprint("an array of records with Python objects has no canonical form")
    to.put(tag, _text(f"{array.dtype.str}{array.shape}{array.dtype!r}"))
    to.put_pieces(b"-", array.nbytes, foreign.pieces(array))


_QUICK = frozenset({str, int, float, bool, type(None)})


def _feed_many(to: _Hash, items: list[Any], depth: int) -> None:
    """Feed a long list: of plain values all at once."""
    if _QUICK.issuperset(map(type, items)):
        to.put(b"Q", json.dumps(items).encode())
    else:
        _feed_items(b"L")(to, items, depth)


def _feed_object(to: _Hash, value: Any, depth: int) -> None:
    """Feed an object of any class: what it says of its content, or the state that it is pickled with."""
    kind = type(value)
    if kind is object:
        raise NoFingerprint("a plain 'object' is told from others by nothing that is in it")
    to.put(b"Z", _text(f"{kind.__module__}:{kind.__qualname__}"))
    if isinstance(value, MethodType):
        parts: Any = (value.__func__, value.__self__)
    elif callable(getattr(kind, "__dflow_content__", None)):
        parts = value.__dflow_content__()
    else:
        if "<locals>" in kind.__qualname__:
            _feed_class(to, b"C", kind, depth)
        maker, *parts = taking_apart.of_object(value)
        to.put(b"-", _text(maker))
    _feed(to, parts, depth + 1)


def _feed_time(tag: bytes) -> Callable[[_Hash, Any, int], None]:
    """Feed a time of day, with the zone it is in: equal moments in two zones are not the same."""
    return lambda to, value, depth: to.put(
        tag, _text(f"{value.isoformat()} {value.fold} {value.tzinfo}")
    )


_FEEDS: dict[type, Callable[[_Hash, Any, int], None]] = {
    type(None): lambda to, value, depth: to.put(b"N"),
    EllipsisType: lambda to, value, depth: to.put(b"..."),
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
