"""What workers rely on that distributed does not promise: as `wire`, for the code that runs beside bodies.

Where a worker lacks something, public means are used, or less is known of it.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from task_runners.dask import names, wire
from task_runners.dask.parcels import BATCH


def post(worker: Any, run: str, topic: str, letters: Mapping[str, Any]) -> None:
    """Send letters of attempts up from any thread: the public `log_event` checks and keeps it all."""
    if hasattr(worker, "batched_send"):
        worker.loop.add_callback(worker.batched_send, {"op": wire.LETTERS, "run": run, **letters})
    else:
        worker.log_event(topic, letters)


def waiting(worker: Any) -> list[Any]:
    """Return a worker's records of the batches that are with it and may wait for a thread, from its loop.

    Those that are at work for Dask may have begun: it does not know how many threads there are for them.
    """
    state = getattr(worker, "state", None)
    there = [*getattr(state, "ready", ()), *getattr(state, "executing", ())]
    return [task for task in there if isinstance(task.key, tuple) and BATCH in task.key[0]]


def threads(worker: Any) -> int:
    """Return how many threads of a worker run tasks."""
    return int(getattr(getattr(worker, "state", None), "nthreads", 1))


def present_task(worker: Any) -> Any:
    """Return a worker's record of the task that the calling thread runs, or None."""
    return getattr(getattr(worker, "state", None), "tasks", {}).get(worker.get_current_task())


def plug_in(worker: Any, plugin: Any) -> None:
    """Add a plugin to a worker, from any thread, unless it has it. Drivers can do so by public means only."""

    async def plugged() -> None:
        # A plugin that takes the place of another of its name tears that down.
        if plugin.name not in getattr(worker, "plugins", (plugin.name,)):
            await worker.plugin_add(plugin, plugin.name)

    worker.loop.add_callback(plugged)


def leaves(worker: Any) -> bool:
    """Tell whether a worker was told to leave: what begins there now would not come to its end."""
    return getattr(getattr(worker, "status", None), "name", "") in wire.LEAVING


def keep(worker: Any, places: list[int]) -> None:
    """Let the scheduler know, with the end of the present task, which of its dispatches gave it their values.

    `TaskState.metadata` travels with that message; there is no public way to it from within a task.
    """
    metadata = getattr(present_task(worker), "metadata", None)
    if metadata is not None:
        metadata[wire.PLACES] = places


def will_not_run(worker: Any, run: str, key: Any) -> None:
    """Let the scheduler know that a task that waits here will not run, in the loop of the worker.

    Dask may want to move it elsewhere: what this worker answers to that goes the same way, behind this.
    """
    if names.is_fed(run) and hasattr(worker, "batched_send"):
        worker.batched_send({"op": wire.GIVEN_BACK, "keys": [key]})
