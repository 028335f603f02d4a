"""Work that an earlier driver of a flow run has left on a cluster: found again, and entered into the book."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable

from dflow.messages import Key
from task_runners.dask.book import Book
from task_runners.dask.parcels import DaskKey, Entry, Parcel
from task_runners.dask.payload import Summary
from task_runners.dask.works import label_of

Left = tuple[DaskKey, str, bytes | None]
"""A Dask key, its state, and what dispatches it is of."""

THERE = "memory"
"""The state of a key whose values are there."""


def parcels_of(
    left: Iterable[Left], under_way: Collection[Key], values: Collection[Key]
) -> list[Parcel]:
    """Return the parcels that hold dispatches which are asked for, each in the one that went last.

    Of the dispatches of a parcel the others are there too, ended: places count.
    """
    found: dict[Key, Entry] = {}
    parcels: list[Parcel] = []
    for dask_key, state, about in sorted(left, key=lambda each: each[0][1]):
        if about is None:
            continue
        summary: Summary = pickle.loads(about)
        parcel = Parcel(dask_key[1], dask_key, [])
        for ticket, task_run_id, dispatch, task_name, function, inside in summary:
            key = (task_run_id, dispatch)
            entry = Entry(
                key=key, label=label_of(task_name, function), number=ticket, ticket=ticket
            )
            entry.sources = tuple(parcel.entries[place] for place in inside)
            wanted = key in under_way or (state == THERE and key in values)
            entry.ended = key not in under_way
            entry.good = wanted and entry.ended
            if wanted:
                entry.parcel, before = parcel, found.get(key)
                if before is not None:
                    before.parcel, before.ended, before.good = None, True, False
                found[key] = entry
            parcel.entries.append(entry)
        parcels.append(parcel)
    return [parcel for parcel in parcels if any(e.parcel is parcel for e in parcel.entries)]


def enter(book: Book, parcels: Iterable[Parcel]) -> set[Key]:
    """Enter parcels into the book; return the dispatches that it has now."""
    keys: set[Key] = set()
    for parcel in parcels:
        book.adopt(parcel)
        keys.update(entry.key for entry in parcel.entries if entry.parcel is parcel)
    return keys
