"""What tests of journals make up: processes, runs, histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from dflow.core import events as ev
from dflow.core.records import FlowRun, Held, TaskRun, Upstream
from dflow.core.replay import Table
from dflow.journal import SqliteJournal
from dflow.messages import LogEntry
from dflow.ports import Batch, Holder, RunEntry

RUN = "run-1"

OpenAt = Callable[..., SqliteJournal]
"""Opens the journal in a folder, with options."""


@dataclass
class World:
    """Tells which holders live: those on the host ``here`` that are not `dead`; others it cannot see."""

    dead: set[int] = field(default_factory=set)

    def __call__(self, holder: Holder) -> bool | None:
        """Tell whether a holder lives, or None where that cannot be seen."""
        return holder.pid not in self.dead if holder.host == "here" else None


def holder(pid: int = 1, host: str = "here") -> Holder:
    """Return a process that may drive runs."""
    return Holder(pid=pid, host=host, boot_id="boot", started_at=1.0, user="ada")


def entry(run_id: str = RUN, name: str = "", at: float = 1.0, **details: Any) -> RunEntry:
    """Return a run for the catalog."""
    return RunEntry(run_id, name or f"name-of-{run_id}", "train", at, details=details)


def flow_created(run_id: str = RUN) -> ev.FlowRunCreated:
    """Return the beginning of a root flow run."""
    return ev.FlowRunCreated(
        at=1.0, flow_run_id=run_id, root_id=run_id, parent_id=None, flow_name="train", name="n"
    )


def task_created(task_run_id: str, task_name: str = "prepare", at: float = 2.0) -> ev.TaskCreated:
    """Return the beginning of a task run."""
    return ev.TaskCreated(
        at=at,
        task_run_id=task_run_id,
        flow_run_id=RUN,
        parent_id=RUN,
        task_name=task_name,
        name=f"{task_name}-{task_run_id}",
    )


def mapped(*task_run_ids: str) -> ev.MapCreated:
    """Return the beginning of the task runs of a map."""
    items = tuple(
        ev.MapItem(task_run_id=t, name=t, upstreams=(Upstream("a"),)) for t in task_run_ids
    )
    return ev.MapCreated(at=2.0, flow_run_id=RUN, parent_id=RUN, task_name="score", items=items)


def life(task_run_id: str, value: bytes | None = b"value", at: float = 2.0) -> list[ev.Event]:
    """Return the whole life of a task run that goes well."""
    return [
        task_created(task_run_id, at=at),
        ev.UpstreamsMet(at=at + 1, task_run_id=task_run_id),
        ev.AttemptStarted(at=at + 2, task_run_id=task_run_id, dispatch=1, worker="tcp://w:1"),
        ev.AttemptSucceeded(
            at=at + 3,
            task_run_id=task_run_id,
            dispatch=1,
            started_at=at + 2,
            seconds=1.0,
            worker="tcp://w:1",
            held=Held.JOURNAL if value is not None else Held.RUNNER,
            value=value,
        ),
    ]


def log(message: str, task_run_id: str | None = None, at: float = 3.0) -> LogEntry:
    """Return a line that a run said."""
    return LogEntry(at, RUN, task_run_id, 1, 20, "dflow", message, worker="w")


class Driver:
    """Turns events into the batches that a driver writes: with the records that they leave."""

    def __init__(self) -> None:
        self.table = Table()

    def batch(self, events: Sequence[ev.Event], logs: Sequence[LogEntry] = ()) -> Batch:
        """Return the batch for events, as the next ones of the history."""
        left = [run for event in events for run, _ in self.table.apply(event)]
        task_runs = [run for run in left if isinstance(run, TaskRun)]
        flow_runs = [run for run in left if isinstance(run, FlowRun)]
        return Batch(tuple(events), tuple(task_runs), tuple(flow_runs), tuple(logs))


def without_value(event: ev.Event) -> ev.Event:
    """Return an event as the history keeps it."""
    changed: Any = event
    return structs.replace(changed, value=None) if hasattr(event, "value") else event
