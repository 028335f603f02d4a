"""What becomes of the value that a body has returned: in the journal, in a result store, or where it is."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any, Final

from msgspec import Struct

from dflow.attempts.context import RunContext
from dflow.attempts.logs import RunLogger
from dflow.core.records import Held, Stored
from dflow.core.values import Keeping
from dflow.errors import ResultStoreError, SerializationError
from dflow.messages import AttemptInfo, OverQuota, Storing
from dflow.results import files, sharing
from dflow.results.pickling import dumps_small
from dflow.results.serializers import DEFAULT, Serialized

MANY: Final = 1000
"""How many warnings are remembered before they are forgotten again."""
_warned: set[tuple[int, str, str]] = set()
_left: dict[tuple[int, str, str], int] = {}
"""How many bytes this process may still keep of each run without anybody asking for it."""
_leaving = threading.Lock()


class Place(Struct, frozen=True):
    """Where a value is: pickled in `value`, in a result store, or only with who made it."""

    held: Held = Held.RUNNER
    value: bytes | None = None
    stored: Stored | None = None


class Returned(Struct, frozen=True, kw_only=True):
    """A value that a body has returned, after so many seconds.

    `what` says whose it is, `name` is the path in a store that its user has chosen, and `stem` how its file
    is called otherwise. One that `must_travel` has to be pickled to be of use.
    """

    value: Any
    what: str
    stem: str
    seconds: float
    name: str | None = None
    must_travel: bool = False


def check(keeping: Keeping | None) -> None:
    """See, before a body runs whose value is to be kept, whether it could be. Raises as `files.check` does.

    What would be kept by itself does not hold up its body: that it is not kept is said afterwards.
    """
    if keeping is not None and keeping.persist:
        files.check(keeping.storage, keeping.serializer)


async def put(
    returned: Returned, small: int, keeping: Keeping | None, context: RunContext, *, native: bool
) -> Place:
    """Put a value where it is to be: in the journal if it has at most `small` bytes, else as `keeping` says.

    What goes wrong is raised where somebody asked for the value to be kept (`SerializationError`,
    `ResultStoreError`), and else only said. A `native` caller, on a loop, does not hold it up by writing.
    """
    pickled = _small(returned, small) if returned.name is None else None
    if pickled is not None and keeping is not None and _goes_by_another(keeping):
        pickled = _small_by_another(returned, small, keeping)
    if pickled is not None:
        return Place(Held.JOURNAL, pickled)
    if keeping is None or not _is_kept(returned, keeping):
        return Place()
    _tell(context)
    store = _put_as_asked if keeping.persist else _put_by_itself
    if native:
        return await asyncio.to_thread(store, returned, keeping, context)
    return store(returned, keeping, context)


def _tell(context: RunContext) -> None:
    """Tell the driver of a body with a deadline that it has ended; storing its value may take longer."""
    info = context.info
    if isinstance(info, AttemptInfo) and info.timeout is not None:
        context.link.send(Storing(info.key))


def _goes_by_another(keeping: Keeping) -> bool:
    """Tell whether somebody asked for another serializer than pickle, compressed or not."""
    return bool(keeping.persist) and keeping.serializer.rpartition("/")[2] != DEFAULT


def _small_by_another(returned: Returned, limit: int, keeping: Keeping) -> bytes | None:
    """Return what the journal keeps of a value that goes by its own serializer; None if that is too large."""
    packed = _packed(returned, keeping)
    return dumps_small(Serialized(packed.serializer, b"".join(packed.parts)), limit)


def _is_kept(returned: Returned, keeping: Keeping) -> bool:
    if keeping.persist is None:
        return returned.seconds >= keeping.seconds and keeping.quota > 0
    return keeping.persist


def _put_as_asked(returned: Returned, keeping: Keeping, _: RunContext) -> Place:
    return Place(Held.STORED, stored=_written(returned, keeping, _packed(returned, keeping)))


def _put_by_itself(returned: Returned, keeping: Keeping, context: RunContext) -> Place:
    """Put a value that nobody asked to be kept into its store, if it can be."""
    try:
        packed = _packed(returned, keeping)
        if not _taken_from_quota(packed.size, keeping):
            context.link.send(OverQuota(packed.size))
            return Place()
        return Place(Held.STORED, stored=_written(returned, keeping, packed))
    except SerializationError as error:
        if keeping.serializer != DEFAULT:  # what cannot be pickled cannot travel either
            _warn(context, keeping, error)
    except ResultStoreError as error:
        _warn(context, keeping, error)
    return Place()


def _taken_from_quota(size: int, keeping: Keeping) -> bool:
    """Take so many bytes from what is left, if there are as many.

    The driver told what was left when it sent the attempt out, with many others perhaps: what this process
    has written since counts too.
    """
    key = os.getpid(), keeping.storage, keeping.folder
    with _leaving:
        left = min(keeping.quota, _left.get(key, keeping.quota))
        if len(_left) >= MANY:
            _left.clear()
        _left[key] = left - size if size <= left else left
    return size <= left


def _warn(context: RunContext, keeping: Keeping, error: Exception) -> None:
    """Say, once for each run and store, that a value is not kept."""
    key = os.getpid(), keeping.storage, keeping.folder
    if key in _warned:
        return
    if len(_warned) >= MANY:
        _warned.clear()
    _warned.add(key)
    RunLogger(context).warning(
        "Its value is not kept, for a resume: %s Other values that cannot be kept there are not told of.",
        error,
    )


def _packed(returned: Returned, keeping: Keeping) -> files.Packed:
    try:
        return files.pack(returned.value, keeping.serializer)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            f"The result of {returned.what} cannot be written by serializer '{keeping.serializer}': it is a "
            f"'{_kind(returned.value)}' ({error}). Return what it is made from, or choose another "
            "result_serializer=."
        ) from error


def _written(returned: Returned, keeping: Keeping, packed: files.Packed) -> Stored:
    if keeping.token:
        unseen = sharing.problem(keeping.storage, keeping.token)
        if unseen is not None:
            raise ResultStoreError(unseen)
    path = returned.name or f"{keeping.folder}/{returned.stem}.{os.urandom(4).hex()}"
    automatic = keeping.persist is None
    return files.write(packed, keeping.storage, path, automatic=automatic, sync=keeping.sync)


def _small(returned: Returned, limit: int) -> bytes | None:
    try:
        return dumps_small(returned.value, limit)
    except Exception as error:
        if not returned.must_travel:
            return None
        raise SerializationError(
            f"The result of {returned.what} cannot travel from its worker: "
            f"it is a '{_kind(returned.value)}' ({error}). Return what it is made from."
        ) from error


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
