"""What stands for any value that can be pickled: the same bytes only for the same content.

Where a canonical form is known that is the fingerprint. Of anything else it is a hash of the pickle, made so
that luck plays no part in it: not what is shared inside, not the order of sets, not the addresses of functions.
Two that are equal may still differ here, and are then taken for different; two that differ never agree.
"""

from __future__ import annotations

import io
import pickle
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from dflow.results.fingerprints import SIZE, NoFingerprint, fingerprint
from dflow.results.sources import source_digest

LIMIT = 32_000_000
"""How many bytes of a pickle are looked at: what is larger has no content here, as making it takes long."""


def content(value: Any) -> bytes:
    """Return bytes that stand for the content of a value. Raises `NoFingerprint` if it has none here."""
    try:
        return fingerprint(value)
    except NoFingerprint:
        return _pickled(value)


def _pickled(value: Any) -> bytes:
    hashing = _Hashing()
    pickler = _Pickler(hashing, protocol=5)
    pickler.fast = True  # what is shared inside is written as often as it is there
    try:
        pickler.dump(value)
    except NoFingerprint:
        raise
    except Exception as error:
        raise NoFingerprint(f"it cannot be pickled: {error!r:.200}") from None
    return hashing.digest()


class _Hashing(io.RawIOBase):
    """A file that keeps nothing but a hash of what is written to it."""

    def __init__(self) -> None:
        self._hash = blake2b(b"pickle", digest_size=SIZE)
        self._left = LIMIT

    def write(self, data: Any) -> int:
        count = memoryview(data).nbytes
        self._left -= count
        if self._left < 0:
            raise NoFingerprint(f"its pickle has more than {LIMIT} bytes")
        self._hash.update(data)
        return count

    def digest(self) -> bytes:
        return self._hash.digest()


class _Pickler(pickle.Pickler):
    """Pickles for nobody to read: what has no form of its own is written as what stands for it."""

    def persistent_id(self, obj: Any) -> Any:
        """Return what stands for functions, classes, modules and sets."""
        if isinstance(obj, set | frozenset):
            return type(obj).__name__, sorted(content(item) for item in obj)
        if isinstance(obj, FunctionType):
            return _function(obj)
        if isinstance(obj, type | BuiltinFunctionType | ModuleType):
            return fingerprint(obj)  # by its name; one that is not found by it has none
        if type(obj) is object or isinstance(obj, CodeType):
            raise NoFingerprint(f"a '{type(obj).__name__}' is told from others by nothing in it")
        return None


def _function(function: FunctionType) -> Any:
    """Return what stands for a function: its name, or where it has none its code and what it has taken in."""
    try:
        return fingerprint(function)
    except NoFingerprint:
        cells = [_contents(cell) for cell in function.__closure__ or ()]
        given = function.__defaults__, function.__kwdefaults__
        where = function.__module__, function.__qualname__
        return "function", where, source_digest(function), cells, given


def _contents(cell: Any) -> Any:
    try:
        return (cell.cell_contents,)
    except ValueError:  # it has no value yet
        return ()
