"""What a session knows of result stores: whether workers share them, and how much it may keep by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dflow.attempts.context import FlowInfo
from dflow.core.records import FlowRun, Held, TaskRun
from dflow.core.replay import Table
from dflow.core.values import Keeping, ResultOptions
from dflow.errors import ResultStoreError
from dflow.ports import OpenRunner
from dflow.results import files, sharing
from dflow.settings import Settings


def keeping_of(settings: Settings, root_id: str) -> Keeping:
    """Return what becomes of values in a root flow run that says nothing of it."""
    return Keeping(
        storage=settings.result_storage,
        folder=files.folder_of(root_id),
        seconds=settings.persist_seconds,
        quota=settings.result_quota,
        sync=settings.durability == "full",
    )


class Persisting:
    """Decides what becomes of the values of one root flow run, as far as only its driver can.

    `table` has those that are recorded already; `warn` shows and records a line of the run.
    """

    def __init__(
        self,
        root_id: str,
        settings: Settings,
        table: Table,
        warn: Callable[[str], None],
    ) -> None:
        self._root_id = root_id
        self._quota = settings.result_quota
        self._warn = warn
        self._kept: dict[str, int] = {}
        self._used = 0
        self._said_over = False
        self._lock = threading.Lock()
        self._tokens: dict[str, str] = {}
        self._unseen: dict[tuple[int, str], str | None] = {}
        self._told: set[tuple[int, str]] = set()
        for task_run in table.task_runs.values():
            self.note(task_run)
        for flow_run in table.flow_runs.values():
            self.note(flow_run)

    # The quota ----------------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """How many bytes may still be kept without anybody asking for it."""
        return max(0, self._quota - self._used)

    def note(self, run: TaskRun | FlowRun) -> None:
        """Count what is kept of a run, as its record is now."""
        if run.stored is None and not self._kept:
            return
        stored = run.stored if run.held is Held.STORED else None
        size = stored.size if stored is not None and stored.automatic else 0
        before = self._kept.pop(run.id, 0)
        if size:
            self._kept[run.id] = size
        self._used += size - before

    def over(self, size: int) -> None:
        """Say, once, that a value of so many bytes was not kept for want of quota."""
        if self._said_over:
            return
        self._said_over = True
        self._warn(
            f"A result of {size:,} bytes is not kept: of the {self._quota:,} bytes that a run keeps by "
            f"itself {self.left:,} are left. A resume computes such results again. Give tasks "
            "persist_result=True, or set DFLOW_RESULT_QUOTA to more bytes."
        )

    # Whether stores are shared --------------------------------------------------------------------------

    def look(
        self, runner: OpenRunner | None, flow: FlowInfo, options: ResultOptions, *, may_raise: bool
    ) -> None:
        """See whether the workers of a runner share the store that is asked for, the first time that it is.

        Raises `ResultStoreError` if they do not and values are to be kept there; of values that would be
        kept by themselves it says, once, that they are not.
        """
        if runner is None or runner.shares_memory or flow.keeping is None:
            return
        keeping = options.over(flow.keeping)
        key = (id(runner), keeping.storage)
        if keeping.persist is False:
            return
        with self._lock:
            if key not in self._unseen:
                self._unseen[key] = self._problem(runner, keeping.storage)
        problem = self._unseen[key]
        if problem is None:
            return
        if keeping.persist and may_raise:
            raise ResultStoreError(problem)
        if keeping.persist is None and key not in self._told:
            self._told.add(key)
            self._warn(f"Results are not kept by themselves, for a resume: {problem}")

    def _problem(self, runner: OpenRunner, storage: str) -> str | None:
        """Return why workers do not share a store; where the driver cannot write, whether they can."""
        if storage not in self._tokens:
            try:
                self._tokens[storage] = sharing.leave(storage, self._root_id)
            except ResultStoreError:
                return _problem_in(runner.each_host(sharing.unusable, storage))
        found = runner.each_host(sharing.problem, storage, self._tokens[storage])
        return _problem_in(found)

    def close(self) -> None:
        """Leave nothing in the stores but what is kept."""
        for storage, token in self._tokens.items():
            with suppress(ResultStoreError):  # it goes with the folder of the run
                sharing.remove(storage, token)

    # What attempts are told ------------------------------------------------------------------------------

    def keepings(
        self, runner: OpenRunner | None, flow: FlowInfo, options: ResultOptions
    ) -> tuple[Keeping | None, Keeping | None]:
        """Return what becomes of a task run's value, and of those in its flow run that say nothing of it."""
        if flow.keeping is None:
            return None, None
        around = self._as_it_is(runner, flow.keeping)
        own = options.over(flow.keeping)
        return around if own == flow.keeping else self._as_it_is(runner, own), around

    def _as_it_is(self, runner: OpenRunner | None, keeping: Keeping) -> Keeping:
        """Return what becomes of values as far as is known now."""
        if runner is None or runner.shares_memory:
            return replace(keeping, quota=self.left, token="")
        unseen = self._unseen.get((id(runner), keeping.storage))
        persist = False if unseen and keeping.persist is None else keeping.persist
        token = self._tokens.get(keeping.storage, "")
        return replace(keeping, quota=self.left, token=token, persist=persist)


def _problem_in(found: Mapping[str, Any]) -> str | None:
    return next((problem for problem in found.values() if isinstance(problem, str)), None)
