"""How many task runs are in which state: counted as they change, for progress and for what is yet to end."""

from __future__ import annotations

from collections import Counter

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

    def count(self, before: TaskRun | None, run: TaskRun) -> None:
        """Count a task run as it is now, and no more as it was."""
        key = (run.flow_run_id, run.task_name)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Counter()
        if before is not None:
            group[before.state_name] -= 1
            self.reused[key] += before.reused < run.reused
        group[run.state_name] += 1
        was_open = before is not None and not before.stage.final
        self.unfinished[run.flow_run_id] += (not run.stage.final) - was_open
