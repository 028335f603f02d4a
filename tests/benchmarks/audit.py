"""Whether every invariant holds over all journals of a home: ``python -m tests.benchmarks.audit HOME``.

In a process of its own, after what was measured, it takes nothing from that, neither time nor memory. It
prints how many runs and task runs it has seen, and every break, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dflow.core import invariants
from dflow.core.records import FlowStage, Stage
from dflow.core.replay import Table
from dflow.engine import system
from dflow.journal import SqliteJournal
from dflow.ports import RunEntry, RunReader

INTERRUPTED = "interrupted"
"""The name of flows that are made to end before their time."""


def audited(home: Path) -> dict[str, Any]:
    """Return what another process finds in the journals of a home."""
    command = [sys.executable, "-m", "tests.benchmarks.audit", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"runs": 0, "task_runs": 0, "broken": [f"The audit failed:\n{done.stderr}"]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def audit(home: Path) -> dict[str, Any]:
    """Look at every run of a home."""
    journal = SqliteJournal(home, is_alive=system.is_alive)
    found: dict[str, Any] = {"runs": 0, "task_runs": 0, "broken": []}
    try:
        for entry in journal.catalog.list():
            reader = journal.read(entry.id)
            try:
                count, broken = _examined(entry, reader)
            finally:
                reader.close()
            found["runs"] += 1
            found["task_runs"] += count
            found["broken"] += [f"{entry.name}: {sentence}" for sentence in broken]
    finally:
        journal.close()
    return found


def _examined(entry: RunEntry, reader: RunReader) -> tuple[int, list[str]]:
    table = Table()
    table.flow_runs.update((run.id, run) for run in reader.flow_runs())
    table.task_runs.update((run.id, run) for run in reader.task_runs())
    numbered = list(reader.events())
    broken = invariants.numbers_without_gaps(numbered)
    broken += invariants.check([event for _, event in numbered if event is not None], table)
    broken += reader.examine()
    broken += _unfinished(entry, table)
    return len(table.task_runs), broken


def _unfinished(entry: RunEntry, table: Table) -> Iterator[str]:
    """Yield what has not completed, though everything here must."""
    for run in table.task_runs.values():
        if run.stage is not Stage.COMPLETED:
            yield f"'{run.name}' is {run.state_name}: {run.message}"
    for flow_run in table.flow_runs.values():
        if flow_run.stage is not FlowStage.COMPLETED and entry.flow_name != INTERRUPTED:
            yield f"the flow run is {flow_run.state_name}: {flow_run.message}"


if __name__ == "__main__":
    print(json.dumps(audit(Path(sys.argv[1]))))
