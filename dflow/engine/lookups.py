"""Which task runs are looked up in the cache before they go, and how far that is.

One that has to pass a gate is looked up twice: before the gate, where what is found needs no place; and
behind it, where it also becomes the one that computes the value if it is not there.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from dflow.core.records import Held, TaskRun
from dflow.engine.claims import LookUp


@dataclass(slots=True)
class _Question:
    """How far a task run is: which looks were begun, and the number of the one whose answer is awaited.

    One whose value was outdated is computed `anew`.
    """

    anew: bool = False
    looked: bool = False
    led: bool = False
    awaited: int | None = None


class Lookups:
    """The questions of one ledger."""

    def __init__(self) -> None:
        self._open: dict[str, _Question] = {}
        self._numbers = itertools.count(1)

    def put(
        self, task_run_ids: Iterable[str], cached: Collection[str], runs: Mapping[str, TaskRun]
    ) -> None:
        """Let those task runs be looked up before they go that are `cached`; nothing of them is out.

        Of the `runs` of earlier passes a rerun has outdated some: these have to run.
        """
        if not cached and not self._open:
            return
        for task_run_id in task_run_ids:
            if task_run_id in cached:
                before = runs.get(task_run_id)
                anew = before is not None and before.held is Held.OUTDATED
                self._open[task_run_id] = _Question(anew)
            else:
                self._open.pop(task_run_id, None)

    def before_gate(self, task_run_id: str) -> LookUp | None:
        """Return what has to be asked before a gate, if anything."""
        question = self._open.get(task_run_id)
        if question is None or question.looked:
            return None
        return self._ask(question, task_run_id, lead=False)

    def behind_gate(self, task_run_id: str) -> LookUp | None:
        """Return what has to be asked where there is no gate any more, if anything."""
        question = self._open.get(task_run_id)
        if question is None or question.led:
            return None
        return self._ask(question, task_run_id, lead=True)

    def _ask(self, question: _Question, task_run_id: str, *, lead: bool) -> LookUp:
        question.looked, question.led = True, lead
        question.awaited = next(self._numbers)
        return LookUp(task_run_id, question.awaited, lead, question.anew)

    def under_way(self, task_run_id: str) -> bool:
        """Tell whether an answer is awaited."""
        question = self._open.get(task_run_id)
        return question is not None and question.awaited is not None

    def answered(self, order: LookUp) -> bool:
        """Note an answer; return whether it is one that is awaited."""
        question = self._open.get(order.run_id)
        if question is None or question.awaited != order.number:
            return False
        question.awaited = None
        return True

    def close(self, task_run_id: str) -> None:
        """Ask nothing more about a task run."""
        self._open.pop(task_run_id, None)
