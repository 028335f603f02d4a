"""How many task runs are in which state: counted as they change, for progress and for what is yet to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dflow.core.records import TaskRun


class Tally:
    """Counts task runs.

    `groups` counts those of one task in one flow run by the names of their states, `reused` those of them
    whose recorded values were given here, `unfinished` those of each flow run that have not ended.
    """

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], Counter[str]] = {}
        self.reused: Counter[tuple[str, str]] = Counter()
        self.unfinished: Counter[str] = Counter()

    def made(self, runs: Sequence[TaskRun]) -> None:
        """Count task runs of one task in one flow run that have come into being together, in one state."""
        first, count = runs[0], len(runs)
        self._group((first.flow_run_id, first.task_name))[first.state_name] += count
        self.unfinished[first.flow_run_id] += count

    def count(self, before: TaskRun | None, run: TaskRun) -> None:
        """Count a task run as it is now, and no more as it was."""
        is_open = not run.stage.final
        was_open = before is not None and not before.stage.final
        if is_open != was_open:
            self.unfinished[run.flow_run_id] += 1 if is_open else -1
        if before is None:
            self._group((run.flow_run_id, run.task_name))[run.state_name] += 1
            return
        if before.state_name != run.state_name:
            group = self._group((run.flow_run_id, run.task_name))
            group[before.state_name] -= 1
            group[run.state_name] += 1
        if before.reused < run.reused:
            self.reused[run.flow_run_id, run.task_name] += 1

    def _group(self, key: tuple[str, str]) -> Counter[str]:
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Counter()
        return group
