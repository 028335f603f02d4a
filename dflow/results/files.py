"""Values as files in result stores: packed, written under a name that tells them apart, read and checked.

A file is what its `Stored` says, by size and digest, or it is not taken for the value. Nothing is
unpickled but by `read`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from dflow.core.records import Stored
from dflow.errors import MissingResult, ResultDamaged, SerializationError
from dflow.results.serializers import Part, find, in_parts
from dflow.results.stores import shown, store

RUNS: Final = "runs"
"""The folder of a store in which each root flow run has its own."""
FEW: Final = 3
"""Up to how many files of one folder are looked at one by one, rather than by a listing of all of it."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A value as bytes, by which serializer."""

    parts: Sequence[Part]
    size: int
    serializer: str


def folder_of(root_id: str) -> str:
    """Return the folder in a store of what is kept of a root flow run."""
    return f"{RUNS}/{root_id}"


_checked: set[tuple[int, str, str]] = set()
"""The stores that this process has seen to be ready, and the serializers it has found."""


def check(storage: str, serializer: str) -> None:
    """See, before there is a value, whether it could be kept here; once in each process if it could.

    Raises `SerializationError` for an unknown serializer, `ResultStoreError` as `Store.ready` does.
    """
    key = os.getpid(), storage, serializer
    if key not in _checked:
        find(serializer)
        store(storage).ready()
        _checked.add(key)


def pack(value: Any, serializer: str) -> Packed:
    """Return a value as bytes. Raises `SerializationError`, and whatever its serializer raises."""
    parts = in_parts(find(serializer).dumps(value))
    return Packed(parts, sum(memoryview(part).nbytes for part in parts), serializer)


def write(
    packed: Packed, storage: str, path: str, *, automatic: bool = False, sync: bool = False
) -> Stored:
    """Write a value, and return what is to be recorded of it. Raises `ResultStoreError`."""
    digest = blake2b(digest_size=16)
    for part in packed.parts:
        digest.update(part)
    store(storage).write(path, packed.parts, sync=sync)
    return Stored(storage, path, packed.size, digest.hexdigest(), packed.serializer, automatic)


def read(stored: Stored, name: str) -> Any:
    """Return the value of the run called `name`.

    Raises `MissingResult` if its file is gone, `ResultDamaged` if it is not what was written,
    `SerializationError` if it cannot be loaded in this process, and `ResultStoreError`.
    """
    try:
        data = store(stored.storage).read(stored.path)
    except MissingResult as error:
        raise MissingResult(f"The value of '{name}' is gone: {error}") from None
    fault = _fault(stored, len(data), _digest(data))
    if fault is not None:
        raise ResultDamaged(f"The value of '{name}' is damaged: {fault}")
    serializer = find(stored.serializer)
    try:
        return serializer.loads(data)
    except Exception as error:
        raise SerializationError(
            f"The value of '{name}' cannot be loaded here from {_place(stored)}: {error!r}. Check that the "
            "packages and modules of its run are here too."
        ) from error


def _digest(data: bytearray) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _place(stored: Stored) -> str:
    return f"'{stored.path}' in the result store '{shown(stored.storage)}'"


def _fault(stored: Stored, size: int, digest: str) -> str | None:
    """Return what is wrong with a file of this size and digest."""
    if size != stored.size:
        what = f"has {size} bytes instead of {stored.size}"
    elif digest != stored.digest:
        what = "holds other bytes than were written"
    else:
        return None
    return (
        f"{_place(stored)} {what}. Another task run may have written under that name "
        "(result_storage_key=), or the file was changed. Resume the run to compute it again."
    )


# Looking at what is there ------------------------------------------------------------------------------


def gone(kept: Mapping[str, Stored]) -> set[str]:
    """Return those ids whose files are not there, or have another size. Raises `ResultStoreError`.

    One listing tells it of all files of one folder.
    """
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run_id, stored in kept.items():
        folders[stored.storage, stored.path.rpartition("/")[0]].append(run_id)
    lost: set[str] = set()
    for (storage, folder), ids in folders.items():
        sizes = _sizes(storage, folder, [kept[run_id].path for run_id in ids])
        lost.update(run_id for run_id in ids if sizes.get(kept[run_id].path) != kept[run_id].size)
    return lost


def _sizes(storage: str, folder: str, paths: Sequence[str]) -> dict[str, int | None]:
    """Return the sizes of files, all of one folder, by their paths."""
    here = store(storage)
    if len(paths) <= FEW or not folder:
        return {path: here.size(path) for path in paths}
    return {f"{folder}/{name}": size for name, size in here.sizes(folder).items()}


def fault(stored: Stored, *, deep: bool = False) -> str | None:
    """Return what is wrong with a file, or None; only `deep` reads it. Raises `ResultStoreError`."""
    try:
        if deep:
            data = store(stored.storage).read(stored.path)
            return _fault(stored, len(data), _digest(data))
        size = store(stored.storage).size(stored.path)
    except MissingResult:
        size = None
    if size is None:
        return f"{_place(stored)} is not there. Resume the run to compute it again."
    return _fault(stored, size, stored.digest)


def delete_run(storages: Iterable[str], root_id: str) -> None:
    """Delete what is kept of a root flow run in these stores. Raises `ResultStoreError`.

    Files whose names their users have chosen (``result_storage_key=``) are theirs, and stay.
    """
    for storage in set(storages):
        store(storage).delete_folder(folder_of(root_id))
