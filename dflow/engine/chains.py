"""Chains of upstream failures: where each began, and the names along it."""

from __future__ import annotations

from dflow.core.records import TaskRun

CHAIN_NAMES = 8
"""How many names a chain of upstream failures shows, from the last to the root."""


class Chains:
    """For each task run that failed with an upstream: which one, and the names from it to the root."""

    def __init__(self) -> None:
        self._cause: dict[str, str] = {}
        self._names: dict[str, tuple[str, ...]] = {}

    def root(self, task_run_id: str) -> str:
        """Return the task run at whose failure a chain began."""
        while task_run_id in self._cause:
            task_run_id = self._cause[task_run_id]
        return task_run_id

    def link(self, run: TaskRun, cause: TaskRun) -> str:
        """Note that a task run fails because of another; return the chain, for people."""
        self._cause[run.id] = cause.id
        names = (run.name, *self._names.get(cause.id, (cause.name,)))
        if len(names) > CHAIN_NAMES:
            names = (*names[: CHAIN_NAMES - 2], "…", names[-1])
        self._names[run.id] = names
        return " ← ".join(names)

    def forget(self, task_run_id: str) -> None:
        """Forget why a task run failed: it is asked for again."""
        self._cause.pop(task_run_id, None)
        self._names.pop(task_run_id, None)
