"""Signs of life: while a session is open, its driver tells the catalog that it lives."""

from __future__ import annotations

import logging
import threading

from dflow.engine.session import Session
from dflow.errors import JournalError, RunTakenOver
from dflow.ports import Catalog, Clock

PERIOD = 15.0
"""Seconds between two signs of life; other hosts take a driver for dead after 60 s without one."""

_log = logging.getLogger("dflow.engine")


class Watch:
    """A thread that gives signs of life until it is stopped, or the run was taken over."""

    def __init__(
        self, session: Session, catalog: Catalog, run_id: str, epoch: int, clock: Clock
    ) -> None:
        self._session = session
        self._catalog = catalog
        self._run_id = run_id
        self._epoch = epoch
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="dflow-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(PERIOD):
            try:
                self._catalog.heartbeat(self._run_id, self._epoch, self._clock.now())
                self._session.caches.renew()
            except RunTakenOver as error:
                _log.error("%s", error)
                self._session.tracker.fail(error)
                return
            except JournalError as error:
                _log.warning("No sign of life could be given: %s", error)
