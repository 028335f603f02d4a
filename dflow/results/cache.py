"""The cache: values that are found again by a key, in a result store.

For each key there is one small file, written whole and after the value. It holds a small value itself,
pickled, or says where a larger one is. Whatever cannot be read, or is not what it should be, is not there.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from dflow.core.plain import plain
from dflow.core.records import Stored
from dflow.core.values import Maker
from dflow.errors import MissingResult
from dflow.results.stores import LocalStore, Store, store

VERSION: Final = 1
FOLDER: Final = "cache"
MAGIC: Final = b"dflow cache "
SUFFIX: Final = ".key"
AT_ONCE: Final = 16
"""How many files of a store far away are read at once."""

_log = logging.getLogger("dflow.results")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """A value that was computed before: itself, pickled, or where it is; by whom, and until when it is good.

    Times are seconds since 1970 in UTC. `task_run` and `flow_run` are names, for people, and `maker` is the
    function that was called.
    """

    key: str
    created: float
    expires: float | None = None
    value: bytes | None = None
    stored: Stored | None = None
    task_run: str = ""
    flow_run: str = ""
    task_run_id: str = ""
    maker: Maker = Maker()  # noqa: RUF009  (it is frozen)

    def good(self, at: float) -> bool:
        """Tell whether it has not expired."""
        return self.expires is None or at < self.expires


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many keys were deleted, how many bytes they had with their values, and how many keys are left."""

    keys: int
    size: int
    left: int


def folder_of(key: str) -> str:
    """Return the folder of a key and its values. The names of the values begin with the key and a dash."""
    return f"{FOLDER}/{key[0]}"


def path_of(key: str) -> str:
    """Return the name of a key's file in its store."""
    return f"{folder_of(key)}/{key}{SUFFIX}"


def write(storage: str, record: CacheRecord) -> None:
    """Keep a record, in place of any for its key. Raises `ResultStoreError`."""
    store(storage).write(path_of(record.key), [encoded(record)])


def forget(storage: str, key: str) -> None:
    """Delete the record of a key, whose value turned out not to be there. Raises `ResultStoreError`."""
    store(storage).delete(path_of(key))


def look(storage: str, keys: Iterable[str], at: float) -> dict[str, CacheRecord]:
    """Return the records that are there, and good, for some keys. Raises `ResultStoreError`.

    Of a large value no more is looked at than its size.
    """
    where, wanted = store(storage), list(keys)
    if isinstance(where, LocalStore) or len(wanted) == 1:
        found = [_look(where, key, at) for key in wanted]
    else:
        with ThreadPoolExecutor(min(AT_ONCE, len(wanted) or 1)) as threads:
            found = list(threads.map(lambda key: _look(where, key, at), wanted))
    return {record.key: record for record in found if record is not None}


def _look(where: Store, key: str, at: float) -> CacheRecord | None:
    try:
        data = where.read(path_of(key))
    except MissingResult:
        return None
    record = decoded(bytes(data), key)
    if record is None or not record.good(at):
        return None
    stored = record.stored
    if stored is not None and store(stored.storage).size(stored.path) != stored.size:
        _log.debug("The value of cache key %s is not in its store any more.", key)
        return None
    return record


# As bytes ----------------------------------------------------------------------------------------


def encoded(record: CacheRecord) -> bytes:
    """Return a record as bytes: version and checksum, a line of JSON, the value."""
    fields = plain(record) | {"value": record.value is not None}
    content = json.dumps(fields).encode() + b"\n" + (record.value or b"")
    return b"%s%d %08x\n" % (MAGIC, VERSION, zlib.crc32(content)) + content


def decoded(data: bytes, key: str) -> CacheRecord | None:
    """Return the record of a key; None if these bytes are not one: damaged, foreign, of a later version."""
    head, _, content = data.partition(b"\n")
    try:
        version, checksum = head.removeprefix(MAGIC).split()
        if not head.startswith(MAGIC) or int(version) != VERSION:
            raise ValueError(f"it is not of version {VERSION}")
        if int(checksum, 16) != zlib.crc32(content):
            raise ValueError("its checksum is another one")
        line, _, value = content.partition(b"\n")
        record = _record(json.loads(line), value)
        if record.key != key:
            raise ValueError("it is that of another key")
        return record
    except (ValueError, TypeError, KeyError) as problem:
        _log.warning(
            "The file of cache key %s cannot be used, so its value is computed: %s.", key, problem
        )
        return None


def _record(fields: dict[str, Any], value: bytes) -> CacheRecord:
    stored = fields["stored"]
    fields["stored"] = None if stored is None else Stored(**stored)
    fields["value"] = value if fields["value"] else None
    fields["maker"] = Maker(**fields["maker"])
    return CacheRecord(**fields)


# Cleaning ----------------------------------------------------------------------------------------


def clean(storage: str, at: float, older_than: float | None = None) -> Cleaned:
    """Delete what has expired at the time `at`, and what is older than `older_than` seconds, if that is said.

    The values go with their keys: also those that others have overwritten, and those of files that cannot be
    read any more. Raises `ResultStoreError`.
    """
    where = store(storage)
    keys, size, left = 0, 0, 0
    for folder in _folders():
        sizes = where.sizes(folder)
        for name in [name for name in sizes if name.endswith(SUFFIX)]:
            key = name.removesuffix(SUFFIX)
            if _is_wanted(where, key, at, older_than):
                left += 1
                continue
            keys += 1
            size += _delete(where, folder, key, sizes)
    return Cleaned(keys, size, left)


def _folders() -> Iterator[str]:
    for digit in "0123456789abcdef":  # few, since a store far away lists them one by one
        yield f"{FOLDER}/{digit}"


def _is_wanted(where: Store, key: str, at: float, older_than: float | None) -> bool:
    try:
        record = decoded(bytes(where.read(path_of(key))), key)
    except MissingResult:
        return False
    if record is None:
        return False
    return record.good(at) and (older_than is None or record.created > at - older_than)


def _delete(where: Store, folder: str, key: str, sizes: Mapping[str, int]) -> int:
    """Delete the file of a key, then its values; return how many bytes that were."""
    names = [f"{key}{SUFFIX}", *(name for name in sizes if name.startswith(f"{key}-"))]
    for name in names:
        where.delete(f"{folder}/{name}")
    return sum(sizes.get(name, 0) for name in names)


def size(storage: str) -> int:
    """Return how many bytes keys and values in a store take. Raises `ResultStoreError`."""
    where = store(storage)
    return sum(sum(where.sizes(folder).values()) for folder in _folders())
