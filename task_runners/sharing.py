"""What equal runners share in one process: made at the first use, ended once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Place(Generic[V]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thing: V | None = None


class Shared(Generic[K, V]):
    """Things by key. A fork of this process starts with none: what it inherits is its parent's.

    `make` makes one, `usable` tells whether it can still be used, `end` ends it.
    """

    def __init__(
        self, make: Callable[[K], V], usable: Callable[[V], bool], end: Callable[[V], None]
    ) -> None:
        self._make = make
        self._usable = usable
        self._end = end
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[K, _Place[V]] = {}

    def _place(self, key: K) -> _Place[V]:
        with self._lock:
            return self._places.setdefault(key, _Place())

    def get(self, key: K) -> V:
        """Return the thing of a key; those who ask meanwhile wait until it is made."""
        place = self._place(key)
        with place.lock:
            if place.thing is not None and not self._usable(place.thing):
                self._clear(place)
            if place.thing is None:
                place.thing = self._make(key)
            return place.thing

    def close(self, key: K) -> None:
        """End the thing of a key, if there is one."""
        place = self._place(key)
        with place.lock:
            self._clear(place)

    def close_all(self) -> None:
        """End everything."""
        with self._lock:
            keys = list(self._places)
        for key in keys:
            self.close(key)

    def _clear(self, place: _Place[V]) -> None:
        thing, place.thing = place.thing, None
        if thing is not None:
            self._end(thing)
