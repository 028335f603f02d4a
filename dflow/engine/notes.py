"""Notes of what becomes of watched task runs: each begin and end, also of those that come together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dflow.core.records import TaskRun


@dataclass(frozen=True, slots=True)
class Noted:
    """An attempt of a watched task run has begun, or the task run has ended, or both at once."""

    run: TaskRun
    began: bool
    ended: bool


class Notes:
    """What hooks are to be told of, in the order in which it happened."""

    def __init__(self) -> None:
        self._watched: set[str] = set()
        self._noted: list[Noted] = []

    def watch(self, task_run_ids: Iterable[str]) -> None:
        """Note what becomes of these task runs from now on."""
        self._watched.update(task_run_ids)

    def forget(self, task_run_ids: Iterable[str]) -> None:
        """Watch these task runs no more."""
        self._watched.difference_update(task_run_ids)

    def compare(self, before: TaskRun | None, run: TaskRun) -> bool:
        """Note what has changed, if the task run is watched; tell whether its end was noted."""
        if not self._watched or before is None or run.id not in self._watched:
            return False
        began = len(run.attempts) > len(before.attempts)
        ended = run.stage.final and not before.stage.final
        if began or ended:
            self._noted.append(Noted(run, began, ended))
        return ended

    def take(self) -> list[Noted]:
        """Return what was noted since the last time."""
        noted, self._noted = self._noted, []
        return noted
