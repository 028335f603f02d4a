"""From the call of a task to what its scope is asked for: who the task runs are, and how they are treated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from dflow.attempts.calls import Call
from dflow.attempts.context import prints_here
from dflow.attempts.tagging import around, joined
from dflow.core.events import MapCreated, MapItem, TaskCreated
from dflow.core.records import Upstream
from dflow.core.values import ResultOptions
from dflow.engine import calls
from dflow.engine.cache_keys import with_keys
from dflow.engine.map_futures import MapFutures
from dflow.engine.naming import Arguments, named
from dflow.engine.scope import Scope
from dflow.errors import DflowError
from dflow.messages import Callbacks, CallOptions, Placement

SURROUNDINGS = 16
"""In how many different surroundings (tags, prints) a task is remembered to have been called."""


class Treatments:
    """How the runs of one task are treated, wherever they are asked for.

    In the same surroundings that is the same object: what follows from it is worked out once (`Dispatcher`).
    """

    def __init__(self, tags: tuple[str, ...], placement: Placement, results: ResultOptions) -> None:
        self._tags = tags
        self._placement = placement
        self._results = results
        self._known: dict[tuple[Any, ...], tuple[CallOptions, tuple[str, ...]]] = {}

    def here(
        self,
        log_prints: bool | None,
        callbacks: Callbacks | None,
        *,
        direct: bool = False,
        limit: int | None = None,
    ) -> tuple[CallOptions, tuple[str, ...]]:
        """Return how runs that are asked for here are treated, and their tags.

        What the task leaves open is as in its parent.
        """
        tags = around()
        key = prints_here(log_prints), tags, direct, limit
        found = self._known.get(key)
        if found is None or found[0].callbacks is not callbacks:
            options = CallOptions(
                log_prints=key[0],
                here=direct,
                around=tags,
                placement=self._placement,
                max_in_flight=limit,
                callbacks=callbacks,
                results=self._results,
            )
            if len(self._known) >= SURROUNDINGS:
                self._known.clear()
            found = options, joined(self._tags, tags) if tags else self._tags
            self._known[key] = found
        return found


def one(
    task: Any, scope: Scope, arguments: Arguments, wait_for: Any, *, here: bool = False
) -> tuple[TaskCreated, Call, CallOptions]:
    """Return what one call of a task asks for; with `here` its body runs where it is called."""
    prepared = calls.prepare(scope, task.function, *arguments, wait_for)
    identified = scope.identify_all(task.name, (prepared.known,), task._known_as)
    task_run_id, number = identified[0]
    name, call = named(task._naming, prepared.call, number)
    options, tags = task._treated(direct=here)
    event = TaskCreated(
        at=scope.now(),
        task_run_id=task_run_id,
        flow_run_id=scope.flow_run_id,
        parent_id=scope.parent_id,
        task_name=task.name,
        name=name,
        upstreams=prepared.upstreams,
        policy=task._policy,
        tags=tags,
        source=task._source,
        asked=scope.generation,
    )
    return event, call, with_keys(options, task, event, (call,))


def many(
    task: Any,
    scope: Scope,
    limit: int | None,
    parts: Iterator[list[calls.Prepared]],
    common: tuple[Upstream, ...],
    apart: bool,
) -> MapFutures[Any]:
    """Ask for the task runs of a map, of which at most so many may be under way at once.

    Part by part, unless something of the user's may raise before all of them are there. What was asked for is
    cancelled when it is interrupted in between: nobody has its futures.
    """
    if task.cached is not None or task._naming is not None or limit is not None:
        parts = iter([list(chain.from_iterable(parts))])
    ids: list[str] = []
    names: list[str] = []
    paced = True
    try:
        for prepared in parts:
            paced = paced and (not ids or scope.keep_pace())
            event, sent, options = _part(task, scope, limit, prepared, common, apart)
            ids += [item.task_run_id for item in event.items]
            names += [item.name for item in event.items]
            if event.items:
                scope.submit(event, sent, options)
    except BaseException:
        with suppress(DflowError):
            for task_run_id in ids:
                scope.cancel(task_run_id)
            scope.drop(*ids)
        raise
    return MapFutures(scope, ids, names)


def _part(
    task: Any,
    scope: Scope,
    limit: int | None,
    prepared: list[calls.Prepared],
    common: tuple[Upstream, ...],
    apart: bool,
) -> tuple[MapCreated, list[Call], CallOptions]:
    """Return what some of the calls of a map ask for."""
    known = [item.known for item in prepared]
    identified = scope.identify_all(task.name, known, task._known_as, apart=apart)
    items, sent = [], []
    for (task_run_id, number), item in zip(identified, prepared, strict=True):
        name, call = named(task._naming, item.call, number)
        items.append(MapItem(task_run_id, name, item.upstreams))
        sent.append(call)
    options, tags = task._treated(limit=limit)
    event = MapCreated(
        at=scope.now(),
        flow_run_id=scope.flow_run_id,
        parent_id=scope.parent_id,
        task_name=task.name,
        items=tuple(items),
        upstreams=common,
        policy=task._policy,
        tags=tags,
        source=task._source,
        asked=scope.generation,
    )
    return event, sent, with_keys(options, task, event, sent)
