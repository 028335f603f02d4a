"""What equal runners share in one process: made at the first use, ended once.

What nobody has used for its patience is ended too; whoever asks for it later gets a new one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from dflow.attempts import clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LOOKS = 5
"""How often it is looked, within the patience for a thing, whether it is used."""
GOODBYE = 1.0
"""Seconds in which the thread that looks ends, unless there is something new for it to look at."""


class _Place(Generic[V]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thing: V | None = None
        self.used_at = 0.0


class Shared(Generic[K, V]):
    """Things by key. A fork of this process starts with none: what it inherits is its parent's.

    `make` makes one, `usable` tells whether it can still be used, `end` ends it. `patience` is for how many
    seconds one is kept that is not in use, None for ever; `in_use` tells whether it is.
    """

    def __init__(
        self,
        make: Callable[[K], V],
        usable: Callable[[V], bool],
        end: Callable[[V], None],
        *,
        in_use: Callable[[V], bool] = lambda thing: True,
        patience: Callable[[V], float | None] = lambda thing: None,
    ) -> None:
        self._make = make
        self._usable = usable
        self._end = end
        self._in_use = in_use
        self._patience = patience
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[K, _Place[V]] = {}
        self._changed = threading.Event()
        self._watcher: threading.Thread | None = None

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
            place.used_at = clock.monotonic()
            if self._patience(place.thing) is not None:
                self._watch()
            return place.thing

    def close(self, key: K) -> None:
        """End the thing of a key, if there is one."""
        place = self._place(key)
        with place.lock:
            self._clear(place)
        self._see()

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

    # What nobody uses ---------------------------------------------------------------------------------

    def _watch(self) -> None:
        """See that there is a thread which looks."""
        with self._lock:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._run, name="dflow-idle", daemon=True)
                self._watcher.start()
            self._changed.set()

    def _see(self) -> None:
        """Let the thread see that something was closed; wait for its end if that was all."""
        with self._lock:
            watcher = self._watcher
            left = any(place.thing is not None for place in self._places.values())
        self._changed.set()
        if watcher is not None and watcher is not threading.current_thread() and not left:
            watcher.join(GOODBYE)

    def _run(self) -> None:
        while True:
            self._changed.clear()
            with self._lock:
                places = list(self._places.values())
            waits = [wait for place in places if (wait := self._look(place)) is not None]
            with self._lock:
                if not waits and not self._changed.is_set():
                    self._watcher = None
                    return
            self._changed.wait(min(*waits, threading.TIMEOUT_MAX) if waits else 0.0)

    def _look(self, place: _Place[V]) -> float | None:
        """End the thing of a place if its time has come; else return in how many seconds to look again."""
        with place.lock:
            patience = None if place.thing is None else self._patience(place.thing)
            if place.thing is None or patience is None:
                return None
            now = clock.monotonic()
            if self._in_use(place.thing):
                place.used_at = now
            left = place.used_at + patience - now
            if left <= 0.0:
                self._clear(place)
                return None
            return min(left, patience / LOOKS)
