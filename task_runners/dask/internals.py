"""What we use of distributed that is not public, each with the reason. Nothing else may.

Each piece does without: when distributed no longer has what it relies on, a message is less exact or a topic
is kept a little longer, or, for `pull`, the error names what is missing. The places of tasks on their workers
are in `places`.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar

from distributed import Nanny, Scheduler, SchedulerPlugin, Worker
from distributed.utils import sync
from distributed.utils_comm import gather_from_workers

DEATHS = "dflow-deaths"
"""The topic on which nannies of our own tell how a worker process has ended."""


class ReportingNanny(Nanny):
    """Tells how its worker process ended: there is no public way to learn the exit code.

    `never_started` is called when the first process ends before it was a worker: some releases of
    distributed wait for it for ever. `residents` are the addresses of the workers of this process's
    scheduler, by the addresses of their nannies.
    """

    never_started: ClassVar[Callable[[int], None]]
    residents: ClassVar[dict[str, str]] = {}

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        if self.status.name in ("undefined", "created", "init", "starting"):
            type(self).never_started(exitcode)
        worker = self.residents.pop(self.address, None)
        if worker and self.status.name == "running":  # one that closes ends its worker itself
            self.log_event(DEATHS, {"worker": worker, "exitcode": exitcode})
        super()._on_worker_exit_sync(exitcode)


class Residents(SchedulerPlugin):
    """Notes whose worker is whose, as soon as a worker can be given work.

    Its nanny asks for its address every 50 ms only; a body can have ended the process before.
    """

    name = "dflow-residents"

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """A worker is one of the cluster."""
        ReportingNanny.residents[scheduler.workers[worker].nanny or ""] = worker


def keep_preload() -> None:
    """Leave what a fork server has loaded as it is: distributed would load numpy and pandas here for it."""
    utils = sys.modules.get("distributed.utils")
    if hasattr(utils, "_forkserver_preload_set"):
        setattr(utils, "_forkserver_preload_set", True)  # noqa: B010  (not in its types)


def pull(worker: Worker, key: Any, timeout: float) -> list[Any]:
    """Return [the value of a Dask key], from this worker or another one, or [] if nobody has it.

    A task may not make a future of a key that it only knows the name of (it would have to ask for the key
    as a client of its own), so the worker's connections to its peers are used, as by `Worker` itself.
    """

    async def ask() -> list[Any]:
        if key in worker.data:
            return [worker.data[key]]
        who_has = await worker.scheduler.who_has(keys=[key])
        data, *_ = await gather_from_workers(who_has, rpc=worker.rpc, who=worker.address)
        return [data[key]] if key in data else []

    found: list[Any] = sync(worker.loop, ask, callback_timeout=timeout)
    return found


def forget_topic(topic: str, dask_scheduler: Scheduler | None = None) -> None:
    """Let the scheduler drop a topic: what was logged to it stays there for ever otherwise."""
    topics: Any = getattr(getattr(dask_scheduler, "_broker", None), "_topics", {})
    topics.pop(topic, None)


def count_tasks(dask_scheduler: Scheduler | None = None) -> int:
    """Return how many tasks a scheduler knows."""
    return len(dask_scheduler.tasks) if dask_scheduler is not None else 0


class HideCancelled(logging.Filter):
    """Hides what a client or a worker was in the middle of when we closed it: we know why it did not end."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be shown."""
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, asyncio.CancelledError)


class HideFailedBodies(logging.Filter):
    """Hides Dask's report of a body that failed or was withdrawn: the driver tells of it, in our words."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be shown."""
        ours = any(name in str(record.args) for name in ("BodyFailed(", "TakenBack("))
        return not (ours and str(record.msg).startswith("Compute Failed"))


class HideHeartbeats(logging.Filter):
    """Hides that a worker did not reach its scheduler: mostly we are closing both; else the driver tells."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be shown."""
        return not str(record.msg).startswith(
            "Failed to communicate with scheduler during heartbeat"
        )


class HideClosed(logging.Filter):
    """Hides that something was being sent when a connection ended: the driver says what has become of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be shown."""
        return not str(record.msg).startswith("Batched Comm Closed")


_FILTERS = (
    ("distributed.batched", HideClosed()),
    ("distributed.client", HideCancelled()),
    ("distributed.worker", HideCancelled()),
    ("distributed.worker", HideFailedBodies()),
    ("distributed.worker", HideHeartbeats()),
)


def hide_noise() -> None:
    """Install the filters in this process; a second time changes nothing."""
    for name, hide in _FILTERS:
        logging.getLogger(name).addFilter(hide)


def own_variables() -> tuple[ContextVar[Any], ...]:
    """Return Dask's own context variables, by which bodies find their worker and its client."""
    modules = [sys.modules.get(f"distributed.{name}") for name in ("worker", "client")]
    named = [value for module in modules for value in vars(module or object).values()]
    return tuple(value for value in named if isinstance(value, ContextVar))
