"""Chains of upstream failures: at which task run each began, and how it reads."""

from __future__ import annotations

from dflow.core.records import TaskRun

CHAIN_NAMES = 8
"""How many names a chain of upstream failures shows, from the last to the root."""


class Chains:
    """Which failure each task run that did not run owes to which."""

    def __init__(self) -> None:
        self._cause: dict[str, str] = {}
        self._names: dict[str, tuple[str, ...]] = {}

    def root(self, task_run_id: str) -> str:
        """Return the task run at whose failure the chain began; one that is in no chain is its own."""
        while task_run_id in self._cause:
            task_run_id = self._cause[task_run_id]
        return task_run_id

    def add(self, run: TaskRun, cause: TaskRun) -> str:
        """Note that the failure of `cause` takes `run` with it; return the chain: "c ← b ← a"."""
        names = (run.name, *self._names.get(cause.id, (cause.name,)))
        if len(names) > CHAIN_NAMES:
            names = (*names[: CHAIN_NAMES - 2], "…", names[-1])
        self._cause[run.id], self._names[run.id] = cause.id, names
        return " ← ".join(names)

    def forget(self, task_run_id: str) -> None:
        """Forget why a task run failed: it is asked for again."""
        self._cause.pop(task_run_id, None)
        self._names.pop(task_run_id, None)
