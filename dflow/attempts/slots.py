"""The slot of a body on its worker, which others may use while the body waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Slot:
    """Gives the slot of one body back for as long as anything of that body waits.

    Whoever waits does so in ``with slot():``, in whatever thread or coroutine of the body. The first one to
    wait leaves the slot. The last one to stop asks for it again, and goes on when it is there. Somebody who
    begins to wait in the meantime takes the question back: while one of them waits, what they wait for may
    need the slot.

    `leave` lets others have the slot, or takes the question back; `come_back` asks for the slot, and returns
    at once what is to be called to wait until it is there or the question is taken back. Neither may raise.
    """

    def __init__(
        self, leave: Callable[[], None], come_back: Callable[[], Callable[[], object]]
    ) -> None:
        self._leave = leave
        self._come_back = come_back
        self._waiting = 0
        # Reentrant: a coroutine that is dropped while it waits ends in whatever thread collects it.
        self._lock = threading.RLock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait for something inside."""
        with self._lock:
            self._waiting += 1
            if self._waiting == 1:
                self._leave()
        try:
            yield
        finally:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            self._waiting -= 1
            if self._waiting:
                return
            until_there = self._come_back()
        until_there()
