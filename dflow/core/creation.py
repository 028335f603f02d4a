"""How task runs come into being: waiting, or *ready*, which is created and dispatched in one.

A creation is ready when nothing stands in the way of what it makes. It stands for the creation of task runs
that wait, followed at once by `UpstreamsMet` for each of them: one event instead of many.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import Stage, TaskRun

Created = tuple[TaskRun, tuple[do.Command, ...]]


def create(event: ev.TaskCreated) -> Created:
    """Return the task run that `event` brought into being, and what is to be done."""
    run = TaskRun(
        id=event.task_run_id,
        flow_run_id=event.flow_run_id,
        parent_id=event.parent_id,
        task_name=event.task_name,
        name=event.name,
        created_at=event.at,
        changed_at=event.at,
        upstreams=event.upstreams,
        policy=event.policy,
        stage=Stage.DISPATCHED if event.ready else Stage.WAITING,
        generation=event.generation,
        dispatch=1 if event.ready else 0,
        tags=event.tags,
        source=event.source,
        asked=event.asked,
    )
    return run, (_order(run.id, event),)


def create_all(event: ev.MapCreated) -> Iterator[Created]:
    """Yield each task run that a map brought into being, and what is to be done."""
    if not event.items:
        return
    common = create(_single(event, event.items[0]))[0]
    for item in event.items:
        needs = (*event.upstreams, *item.upstreams) if item.upstreams else event.upstreams
        own = replace(common, id=item.task_run_id, name=item.name, upstreams=needs)
        yield own, (_order(own.id, event),)


def ids_of(event: ev.TaskCreated | ev.MapCreated) -> list[str]:
    """Return the ids of the task runs that an event makes."""
    if isinstance(event, ev.MapCreated):
        return [item.task_run_id for item in event.items]
    return [event.task_run_id]


def unfold(event: ev.MapCreated) -> Iterator[ev.TaskCreated]:
    """Yield the creation of each item of a map."""
    for item in event.items:
        yield _single(event, item)


def _single(event: ev.MapCreated, item: ev.MapItem) -> ev.TaskCreated:
    return ev.TaskCreated(
        at=event.at,
        task_run_id=item.task_run_id,
        flow_run_id=event.flow_run_id,
        parent_id=event.parent_id,
        task_name=event.task_name,
        name=item.name,
        upstreams=(*event.upstreams, *item.upstreams),
        policy=event.policy,
        generation=event.generation,
        tags=event.tags,
        source=event.source,
        asked=event.asked,
        ready=event.ready,
    )


def _order(task_run_id: str, event: ev.TaskCreated | ev.MapCreated) -> do.Command:
    if event.ready:
        return do.Dispatch(task_run_id, 1, event.generation, 1)
    return do.Consider(task_run_id)
