"""The value of a cached attempt goes into the cache by the attempt itself, before anybody hears of its end.

So a driver that dies meanwhile takes nothing from the cache. Whatever goes wrong is only said.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from msgspec import structs

from dflow.attempts import clock
from dflow.attempts.context import RunContext
from dflow.attempts.logs import RunLogger
from dflow.attempts.parameters import by_name
from dflow.attempts.persisting import Place
from dflow.core.records import Held
from dflow.core.values import CacheAs, Keeping
from dflow.errors import ResultStoreError
from dflow.messages import AttemptInfo
from dflow.results import cache
from dflow.results.cache import CacheRecord
from dflow.results.fingerprints import NoFingerprint, content


def keeping_of(info: AttemptInfo) -> Keeping | None:
    """Return what becomes of the value of an attempt: one for the cache is kept, whatever its size."""
    if info.cached is None:
        return info.keeping
    given = info.keeping or Keeping(storage=info.cached.storage, folder="")
    return replace(
        given,
        folder=cache.folder_of(info.cached.key),
        persist=True if given.persist else None,
        seconds=0.0,
        quota=sys.maxsize,
    )


def stem_of(info: AttemptInfo) -> str:
    """Return how the file of the value is called, but for what tells it from others of the same attempt."""
    stem = f"{info.task_run_id}.{info.dispatch}"
    return stem if info.cached is None else f"{info.cached.key}-{stem}"


async def cached(place: Place, context: RunContext, *, native: bool) -> Place:
    """Note in the cache where the value of an attempt is, if it is a cached one; return the place.

    A `native` caller, on a loop, does not hold it up by writing.
    """
    info = context.info
    if not isinstance(info, AttemptInfo) or info.cached is None:
        return place
    if place.held is Held.RUNNER:
        RunLogger(context).warning("Its value is not in the cache: it could not be kept.")
        return place
    changed = _changed(context, info.cached)
    if changed is not None:
        RunLogger(context).warning(
            "Its value is not in the cache: argument '%s' was changed after the call, or by the body. Give "
            "the call a copy of it.",
            changed,
        )
        return place
    if place.stored is not None and place.stored.automatic:
        place = structs.replace(place, stored=structs.replace(place.stored, automatic=False))
    if native:
        await asyncio.to_thread(_record, place, info, info.cached, context)
    else:
        _record(place, info, info.cached, context)
    return place


def _changed(context: RunContext, cached_as: CacheAs) -> str | None:
    """Return the name of an argument that is not what it was when the key was made; None if all are."""
    if not cached_as.given:
        return None
    arguments = by_name(*context.notes["call"])
    for name, digest in cached_as.given:
        try:
            if content(arguments[name]) != digest:
                return name
        except NoFingerprint:
            return name
    return None


def _record(place: Place, info: AttemptInfo, cached_as: CacheAs, context: RunContext) -> None:
    now, seconds = clock.now(), cached_as.seconds
    record = CacheRecord(
        key=cached_as.key,
        created=now,
        expires=None if seconds is None else now + seconds,
        value=place.value,
        stored=place.stored,
        task_run=info.task_run_name,
        flow_run=info.flow_run_name,
        task_run_id=info.task_run_id,
        maker=cached_as.maker,
    )
    try:
        cache.write(cached_as.storage, record)
    except ResultStoreError as error:
        RunLogger(context).warning("Its value is not in the cache: %s", error)
