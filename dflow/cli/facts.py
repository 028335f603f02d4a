"""What is recorded of runs, as data: what ``--json`` prints, and what the commands show.

Keys are stable: new ones may come, none changes its meaning. Times are ISO 8601 in UTC, durations seconds;
both are null while they are not known.
"""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from dflow.cli import measures, text
from dflow.cli.attempts import AttemptFacts, ErrorFacts, attempt_facts, error_facts
from dflow.cli.measures import UsageFacts
from dflow.core.asked import given_again, left_behind
from dflow.core.records import FlowRun, Held, TaskRun
from dflow.messages import LogEntry
from dflow.results.stores import shown
from dflow.runs import Listed
from dflow.states import FINAL_TYPES, TYPE_OF_NAME, StateType


class DriverFacts(TypedDict):
    """The process that drives a run."""

    pid: int
    host: str
    user: str


class RunFacts(TypedDict):
    """A root flow run, as ``dflow ls --json`` lists it.

    `state` is as of now: a run whose driver is gone reads as ``Interrupted``. `driver` is null without one.
    `sizes` are bytes: of its record, and of what it has beside that; null where they were not measured.
    """

    id: str
    name: str
    flow: str
    state: str
    message: str
    created_at: str
    changed_at: str
    seconds: float | None
    alive: bool
    resumable: bool
    driver: DriverFacts | None
    sizes: dict[str, int] | None


class FlowRunFacts(TypedDict):
    """A flow run: the root, or a subflow of `parent_id`. `generation` is how often its body was begun."""

    id: str
    parent_id: str | None
    flow: str
    name: str
    state: str
    message: str
    created_at: str
    changed_at: str
    generation: int
    tags: list[str]
    error: ErrorFacts | None


class LinkFacts(TypedDict):
    """Another run."""

    id: str
    name: str
    state: str


class GroupFacts(TypedDict):
    """The task runs of one task in one flow run; `states` counts them by the names of their states.

    `reused` is the number of those whose recorded values were given, not made, in the last pass; `usage` is
    what their bodies took.
    """

    flow_run_id: str
    flow_run: str
    task: str
    total: int
    states: dict[str, int]
    reused: int
    usage: UsageFacts


class KeptFacts(TypedDict):
    """Where a value is kept: ``record``, or ``store`` with its URL and the path there, size, serializer."""

    where: str
    storage: str | None
    path: str | None
    bytes: int | None
    serializer: str | None


class TaskRunFacts(TypedDict):
    """A task run. `message` says why it is in its state: for ``UpstreamFailed`` the chain of failures.

    `kept` is null for a value that is not kept.

    `generation` is its own; `asked` is that of its flow run in which it was last asked for, `reused` that in
    which its value was last given without running it again. Both are 0 where that is not known, or was never.
    """

    id: str
    flow_run_id: str
    parent_id: str
    task: str
    name: str
    state: str
    message: str
    created_at: str
    changed_at: str
    seconds: float | None
    generation: int
    asked: int
    reused: int
    tags: list[str]
    attempts: list[AttemptFacts]
    kept: KeptFacts | None


class LogFacts(TypedDict):
    """A log line, as ``dflow logs --json`` prints it. `task_run_id` is null for what a flow says itself.

    `run` is the name of the task run or flow run, where names are known.
    """

    at: str
    level: str
    run: str
    flow_run_id: str
    task_run_id: str | None
    attempt: int
    worker: str
    logger: str
    message: str


class Recorded(TypedDict):
    """A run with all that is recorded of it, as ``dflow show --json`` prints it.

    The first of `flow_runs` is the root. `parameters` are as Python shows them, shortened; `command` is how
    the run was started, in which `folder`; `git` is the commit that was checked out there. `runner` is where
    its tasks went when it began. `left_behind` are the ids of finished task runs that its last pass did not
    ask for; `rerun_of` is the run of which it is a rerun as a run of its own, `reruns` are such of it.
    """

    run: RunFacts
    parameters: dict[str, str]
    command: str
    folder: str
    entrypoint: dict[str, str]
    versions: dict[str, str]
    git: str | None
    runner: dict[str, Any]
    rerun_of: LinkFacts | None
    reruns: list[LinkFacts]
    left_behind: list[str]
    flow_runs: list[FlowRunFacts]
    groups: list[GroupFacts]
    task_runs: list[TaskRunFacts]


def of_listed(listed: Listed, now: float, sizes: Mapping[str, int] | None = None) -> RunFacts:
    """Return the facts of a run from its entry in the catalog."""
    entry = listed.entry
    holder = entry.holder if listed.alive else None
    return RunFacts(
        id=entry.id,
        name=entry.name,
        flow=entry.flow_name,
        state=listed.state_name,
        message=entry.message,
        created_at=text.iso(entry.created_at),
        changed_at=text.iso(entry.changed_at),
        seconds=_seconds(listed, now),
        alive=listed.alive,
        resumable=listed.resumable,
        driver=DriverFacts(pid=holder.pid, host=holder.host, user=holder.user) if holder else None,
        sizes=None if sizes is None else dict(sizes),
    )


def _seconds(listed: Listed, now: float) -> float | None:
    """Return from when to when a run went; for one that was cut short nobody knows."""
    entry = listed.entry
    if listed.alive:
        return max(0.0, now - entry.created_at)
    if TYPE_OF_NAME[listed.state_name] in FINAL_TYPES:
        return max(0.0, entry.changed_at - entry.created_at)
    return None


def of_record(
    listed: Listed,
    flow_runs: Iterable[FlowRun],
    task_runs: Iterable[TaskRun],
    links: tuple[LinkFacts | None, list[LinkFacts]],
    now: float,
    sizes: Mapping[str, int] | None = None,
) -> Recorded:
    """Return all facts of a run, from its entry and its record."""
    details: Mapping[str, Any] = listed.entry.details
    trigger: Mapping[str, Any] = details.get("trigger") or {}
    flows = list(flow_runs)
    tasks = list(task_runs)
    return Recorded(
        run=of_listed(listed, now, sizes),
        parameters=dict(details.get("parameters") or {}),
        command=_command([str(word) for word in trigger.get("command") or ()]),
        folder=str(trigger.get("folder") or ""),
        entrypoint=dict(details.get("entrypoint") or {}),
        versions=dict(details.get("versions") or {}),
        git=details.get("git"),
        runner=dict(details.get("runner") or {}),
        rerun_of=links[0],
        reruns=links[1],
        left_behind=_left_behind(listed, flows, tasks),
        flow_runs=[of_flow_run(run, listed.alive) for run in flows],
        groups=_groups(flows, tasks, listed.alive),
        task_runs=[of_task_run(run, listed.alive) for run in tasks],
    )


def _command(words: list[str]) -> str:
    """Return a command as it is typed; ours by its name, wherever it is installed."""
    if words and (Path(words[0]).name == "dflow" or words[0].endswith("/dflow/cli/__main__.py")):
        words = ["dflow", *words[1:]]
    return shlex.join(words)


def state_now(run: TaskRun | FlowRun, alive: bool) -> str:
    """Return the state of a run as of now: without a driver nothing is running."""
    running = run.state_type in (StateType.RUNNING, StateType.CANCELLING)
    return "Interrupted" if running and not alive else run.state_name


def link(listed: Listed) -> LinkFacts:
    """Return what names another run."""
    return LinkFacts(id=listed.entry.id, name=listed.entry.name, state=listed.state_name)


def _left_behind(listed: Listed, flows: list[FlowRun], tasks: list[TaskRun]) -> list[str]:
    """Return what the last pass did not ask for; while it goes on it may still do that."""
    if listed.alive or not (flows and flows[0].stage.final):
        return []
    left = left_behind({run.id: run for run in tasks}, {run.id: run for run in flows})
    return [run.id for run in left]


def _groups(flows: list[FlowRun], tasks: list[TaskRun], alive: bool) -> list[GroupFacts]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    members: dict[tuple[str, str], list[TaskRun]] = {}
    reused: Counter[tuple[str, str]] = Counter()
    around = {run.id: run for run in flows}
    for run in tasks:
        key = run.flow_run_id, run.task_name
        counts.setdefault(key, Counter())[state_now(run, alive)] += 1
        members.setdefault(key, []).append(run)
        flow_run = around.get(run.flow_run_id)
        reused[key] += flow_run is not None and given_again(run, flow_run)
    names = {run.id: run.name for run in flows}
    return [
        GroupFacts(
            flow_run_id=flow_run_id,
            flow_run=names.get(flow_run_id, flow_run_id),
            task=task,
            total=states.total(),
            states=dict(states),
            reused=reused[flow_run_id, task],
            usage=measures.of_runs(members[flow_run_id, task]),
        )
        for (flow_run_id, task), states in counts.items()
    ]


def of_flow_run(run: FlowRun, alive: bool) -> FlowRunFacts:
    """Return the facts of a flow run from its record."""
    return FlowRunFacts(
        id=run.id,
        parent_id=run.parent_id,
        flow=run.flow_name,
        name=run.name,
        state=state_now(run, alive),
        message=run.message,
        created_at=text.iso(run.created_at),
        changed_at=text.iso(run.changed_at),
        generation=run.generation,
        tags=list(run.tags),
        error=error_facts(run.error),
    )


def of_task_run(run: TaskRun, alive: bool) -> TaskRunFacts:
    """Return the facts of a task run from its record."""
    attempts = [attempt_facts(attempt) for attempt in run.attempts]
    return TaskRunFacts(
        id=run.id,
        flow_run_id=run.flow_run_id,
        parent_id=run.parent_id,
        task=run.task_name,
        name=run.name,
        state=state_now(run, alive),
        message=run.message,
        created_at=text.iso(run.created_at),
        changed_at=text.iso(run.changed_at),
        seconds=attempts[-1]["seconds"] if attempts else None,
        generation=run.generation,
        asked=run.asked,
        reused=run.reused,
        tags=list(run.tags),
        attempts=attempts,
        kept=_kept(run),
    )


def _kept(run: TaskRun) -> KeptFacts | None:
    if run.held is Held.JOURNAL:
        return KeptFacts(where="record", storage=None, path=None, bytes=None, serializer=None)
    if run.held is Held.STORED and run.stored is not None:
        return KeptFacts(
            where="store",
            storage=shown(run.stored.storage),
            path=run.stored.path,
            bytes=run.stored.size,
            serializer=run.stored.serializer,
        )
    return None


def of_log(entry: LogEntry, name: str = "") -> LogFacts:
    """Return the facts of a log line, which the run `name` said."""
    return LogFacts(
        at=text.iso(entry.at),
        level=logging.getLevelName(entry.level),
        run=name or entry.task_run_id or entry.flow_run_id,
        flow_run_id=entry.flow_run_id,
        task_run_id=entry.task_run_id,
        attempt=entry.attempt,
        worker=entry.worker,
        logger=entry.logger,
        message=entry.message,
    )
