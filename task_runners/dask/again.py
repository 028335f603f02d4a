"""What Dask runs again by itself, and how much of it: called by the feed, on the scheduler.

By itself Dask runs a task again whose worker was told to leave, or whose value is lost and wanted: all of it,
though the driver may know that some of that has ended, or has begun.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

from task_runners.dask import payload, wire

_log = logging.getLogger("dflow.runners")


def as_lost(task: Any) -> None:
    """Let a parcel whose values are lost run again only as far as these are made by it.

    A value that came with its outcome, and that nothing waits for in Dask, is not made again at all.
    """
    data, places = wire.payload_of(task), wire.kept(task)
    if data is not None and places is not None and (places or not task.waiters):
        wire.change_payload(task, payload.only(data, places))


def not_at_all(task: Any) -> None:
    """Let a parcel whose worker leaves err when Dask runs it again: its driver sends what has not begun.

    One that makes lost values again goes on elsewhere: nobody else would.
    """
    data = wire.payload_of(task)
    if data is not None and payload.decode(data).again is None:
        wire.change_payload(task, payload.only(data, ()))


def listen(scheduler: Any) -> None:
    """Let parcels that workers have given back run nowhere, though Dask may have moved them."""
    wire.handle(scheduler, wire.GIVEN_BACK, functools.partial(_given_back, scheduler))


def _given_back(scheduler: Any, keys: Iterable[Any] = (), **_: Any) -> None:
    try:
        for key in keys:
            task = scheduler.tasks.get(key)
            if task is not None:
                not_at_all(task)
    except Exception:
        _log.exception("What a worker gave back could not be noted on the scheduler.")
