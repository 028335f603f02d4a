"""Who waits for which runs to be shown as final."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol

from dflow.core.records import FlowRun, TaskRun

Call = Callable[[], None]


class Gone(Protocol):
    """Who has ended, and left."""

    def __contains__(self, run_id: str) -> bool: ...


class Awaited:
    """The calls that wait for runs. `shown` has the runs that are shown, `gone` knows who ended and left."""

    def __init__(self, shown: Mapping[str, TaskRun | FlowRun], gone: Gone) -> None:
        self._shown = shown
        self._gone = gone
        self._waiting: dict[str, list[Call]] = {}
        self._lock = threading.Lock()
        self._over = False

    def when_final(self, run_id: str, then: Call) -> None:
        """Call `then` once the run is shown as final: now, or later in the tracker's thread."""
        with self._lock:
            if not (self._over or self._is_final(run_id)):
                self._waiting.setdefault(run_id, []).append(then)
                return
        then()

    def when_all_final(self, run_ids: Iterable[str], then: Call) -> None:
        """Call `then` once each of these runs has been shown as final: now, or later in the tracker's thread.

        They are looked at one after the other, each once: waiting for many costs no more than for one.
        """
        self._go_on(iter(run_ids), then)

    def _go_on(self, left: Iterator[str], then: Call) -> None:
        with self._lock:
            if not self._over:
                for run_id in left:
                    if not self._is_final(run_id):
                        waiting = self._waiting.setdefault(run_id, [])
                        waiting.append(partial(self._go_on, left, then))
                        return
        then()

    def _is_final(self, run_id: str) -> bool:
        run = self._shown.get(run_id)
        if run is None and run_id not in self._gone:
            run = self._shown.get(run_id)  # it may have come back between the looks
            return run is not None and run.stage.final
        return run is None or run.stage.final

    def take(self, records: Mapping[str, TaskRun | FlowRun]) -> list[Call]:
        """Return the calls that need not wait any more now that these records are shown."""
        calls: list[Call] = []
        with self._lock:
            for run_id in self._waiting.keys() & records.keys():
                if records[run_id].stage.final:
                    calls += self._waiting.pop(run_id)
        return calls

    def end(self) -> list[Call]:
        """Let nobody wait any more: nothing will be shown. Return the calls that have waited."""
        with self._lock:
            self._over = True
            calls = [call for waiting in self._waiting.values() for call in waiting]
            self._waiting.clear()
        return calls
