"""Serializers: how the values of runs become bytes in a result store, and values again.

Each has a name, by which tasks and flows ask for it (``result_serializer=``) and which is recorded with what
it wrote. ``"pickle"`` takes nearly everything, ``"json"`` what JSON can give back as it was; before either,
or before one that a user has registered, ``"compressed/"`` may stand.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from dflow.errors import DefinitionError, SerializationError
from dflow.results import containers
from dflow.results.pickling import dumps_apart, loads

Part = bytes | bytearray | memoryview
"""Bytes, of whatever kind."""
DEFAULT: Final = "pickle"
COMPRESSED: Final = "compressed/"
LEVEL: Final = 1
"""How hard is tried to make it small: the quickest way, as most of a model's bytes are noise."""
_CHUNK: Final = 2**20


class Serializer(Protocol):
    """What a serializer must have: an object, or a module, with these two functions.

    >>> class Reversed:
    ...     def dumps(self, value: bytes) -> bytes:
    ...         return value[::-1]
    ...     def loads(self, data: bytearray) -> bytes:
    ...         return bytes(data[::-1])
    >>> register_serializer("reversed", Reversed())
    """

    def dumps(self, value: Any) -> Part | Sequence[Part]:
        """Return a value as bytes, in one piece or several. Raise whatever says why that cannot be."""

    def loads(self, data: bytearray) -> Any:
        """Return the value of which these are the bytes."""


def register_serializer(name: str, serializer: Serializer) -> None:
    """Let tasks and flows write their results by a serializer of yours: ``result_serializer="name"``.

    `serializer` is an object, or a module, with ``dumps(value)``, which returns bytes, and ``loads(data)``,
    which gets them as a bytearray. Call this in a module that workers import too, such as the one in which
    the task is defined: results are written and read there. Raises `DefinitionError`.

    >>> import marshal
    >>> register_serializer("marshal", marshal)
    >>> from dflow import task
    >>> @task(persist_result=True, result_serializer="marshal")
    ... def count(rows: int) -> list[int]:
    ...     return list(range(rows))
    >>> len(count(100_000))
    100000
    """
    given: Any = name
    if not isinstance(given, str) or not given.strip() or "/" in given:
        raise DefinitionError(f"A serializer must have a name without '/', not {name!r:.100}.")
    if name in _OURS:
        raise DefinitionError(
            f"The serializer '{name}' is one of dflow's own. Give yours another name."
        )
    for method in ("dumps", "loads"):
        if not callable(getattr(serializer, method, None)):
            raise DefinitionError(
                f"The serializer '{name}' has no function '{method}'. It needs dumps(value) and loads(data)."
            )
    _registered[name] = serializer


def find(name: str) -> Serializer:
    """Return the serializer of a name. Raises `SerializationError` if there is none in this process."""
    if name.startswith(COMPRESSED):
        return _Compressed(find(name.removeprefix(COMPRESSED)))
    found = _OURS.get(name) or _registered.get(name)
    if found is None:
        known = ", ".join(f"'{one}'" for one in (*_OURS, *_registered))
        raise SerializationError(
            f"The serializer '{name}' is not registered in this process. Known are {known}, each also as "
            f"'{COMPRESSED}…'. Call register_serializer('{name}', …) in a module that is imported here too, "
            "such as the one in which the task is defined."
        )
    return found


# Pickle ----------------------------------------------------------------------------------------------


class _Pickle:
    """cloudpickle by our rules; arrays are written from where they are, and read to where they stay."""

    def dumps(self, value: Any) -> list[Part]:
        """Return a container."""
        return list(containers.parts(*dumps_apart(value)))

    def loads(self, data: bytearray) -> Any:
        """Return the value in a container; its arrays keep the memory of it."""
        pickled, buffers = containers.parse(data)
        return loads(pickled, buffers)


# JSON ------------------------------------------------------------------------------------------------


class _Json:
    """JSON in UTF-8, for what comes back as the same value: others can read it, too."""

    def dumps(self, value: Any) -> bytes:
        """Return the text. Raises TypeError for what JSON would give back as something else."""
        for path, odd in _not_json(value, "it"):
            raise TypeError(
                f"{path} is a '{type(odd).__name__}', which JSON does not give back as it was"
            )
        try:
            return json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # of lone surrogates, which have to be escaped
            return json.dumps(value).encode()

    def loads(self, data: bytearray) -> Any:
        """Return the value."""
        return json.loads(data)


_SAME: Final = (str, int, float, bool, type(None))


def _not_json(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what JSON would turn into something else, with the path to it."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                yield f"the key {key!r} of {path}", key
            elif type(item) not in _SAME:
                yield from _not_json(item, f"{path}[{key!r}]")
    elif kind is list:
        for index, item in enumerate(value):
            if type(item) not in _SAME:
                yield from _not_json(item, f"{path}[{index}]")
    elif kind not in _SAME:
        yield path, value


# Compressed ------------------------------------------------------------------------------------------


class _Compressed:
    """What another serializer makes, as ``gzip`` would compress it."""

    def __init__(self, inner: Serializer) -> None:
        self._inner = inner

    def dumps(self, value: Any) -> list[Part]:
        """Return the compressed bytes, in pieces."""
        compressing = zlib.compressobj(LEVEL, wbits=31)
        made = [compressing.compress(part) for part in in_parts(self._inner.dumps(value))]
        return [*made, compressing.flush()]

    def loads(self, data: bytearray) -> Any:
        """Return the value."""
        decompressing, whole = zlib.decompressobj(wbits=31), bytearray()
        with memoryview(data) as view:
            for start in range(0, len(view), _CHUNK):
                whole += decompressing.decompress(view[start : start + _CHUNK])
        whole += decompressing.flush()
        if not decompressing.eof:
            raise ValueError("It is cut short.")
        return self._inner.loads(whole)


def in_parts(made: Part | Sequence[Part]) -> Sequence[Part]:
    """Return what a serializer has made as a sequence of parts."""
    return [made] if isinstance(made, bytes | bytearray | memoryview) else made


# In pickles ------------------------------------------------------------------------------------------


class Serialized:
    """What a serializer has made of a value: its pickle is loaded as the value that the serializer gives."""

    def __init__(self, serializer: str, data: bytes) -> None:
        self._made = serializer, data

    def __reduce__(self) -> tuple[Callable[[str, bytes], Any], tuple[str, bytes]]:
        return loaded, self._made


def loaded(serializer: str, data: bytes) -> Any:
    """Return a value from what a serializer has made of it. Old journals name this function: it stays."""
    return find(serializer).loads(bytearray(data))


_OURS: Final[dict[str, Serializer]] = {DEFAULT: _Pickle(), "json": _Json()}
_registered: dict[str, Serializer] = {}
