"""Where and when task runs go on Dask: resources, workers and priorities.

They travel as annotations of the graph, by key. Resources and priorities are Dask's own. The workers that a
task run names are found by a plugin on the scheduler: Dask itself would look a name up once, when the graph
comes, and take a name that it does not know for that of a host; a worker that comes later, or comes back at
another address, would not be found.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False
# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from dflow.messages import Placement
from task_runners.dask.parcels import Parcel

STEP = 1_000
"""What a priority of the user's weighs against a step further down the graph."""
FIRST = 10_000_000_000
"""The priority of what goes before everything else."""
SHOWN = 8
"""How many workers are named when none can take a task run."""
SAID = 1_000
"""How many of the sayings are remembered, so as not to be repeated."""

WISH = "dflow"
"""The annotation that the plugin reads."""


def described(placement: Placement) -> str:
    """Return what a placement asks of a worker, in words."""
    wants = [f"{name}: {amount:g}" for name, amount in placement.resources]
    if placement.workers:
        wants.append("worker " + " or ".join(f"'{name}'" for name in placement.workers))
    return ", ".join(wants)


class Table:
    """An annotation by key, which Dask calls with each key of a graph."""

    def __init__(self, values: Mapping[Any, Any], default: Any) -> None:
        self._values = values
        self._default = default

    def __call__(self, key: Any) -> Any:
        """Return the annotation of a key."""
        return self._values.get(key, self._default)


def on_graph(parcels: Sequence[Parcel], topic: str) -> dict[str, Any]:
    """Return what a graph of parcels is annotated with; on `topic` the plugin tells of them."""
    weights = {each.dask_key: _weight(each) for each in parcels}
    least = min(weights.values(), default=0)
    given: dict[str, Any] = {}
    if any(weight != least for weight in weights.values()):
        given["priority"] = Table(weights, max(weights.values()))
    elif least:
        given["priority"] = least
    placed = [each for each in parcels if each.placement.resources or each.placement.workers]
    if placed:
        given["resources"] = Table({p.dask_key: dict(p.placement.resources) for p in placed}, {})
        given[WISH] = Table({p.dask_key: _wish(p.placement, topic) for p in placed}, None)
    return given


def _weight(parcel: Parcel) -> int:
    """Return the priority of a parcel: that of the user, and what is further down the graph goes first."""
    return parcel.placement.priority * STEP + min(parcel.depth, STEP - 1)


def _wish(placement: Placement, topic: str) -> dict[str, Any]:
    return {
        "topic": topic,
        "workers": list(placement.workers),
        "wants": described(placement),
    }


class Places(SchedulerPlugin):
    """On the scheduler: finds the workers that are named, and tells of what no worker can take."""

    name = "dflow-places"
    idempotent = True

    def __init__(self) -> None:
        self._named: dict[Any, list[str]] = {}
        self._said: dict[Any, None] = {}
        self._scheduler: Any = None

    async def start(self, scheduler: Scheduler) -> None:
        """Remember the scheduler."""
        self._scheduler = scheduler

    def update_graph(
        self, scheduler: Scheduler, *, annotations: Mapping[str, Mapping[Any, Any]], **_: Any
    ) -> None:
        """Tie new tasks to the workers that they name, before any of them goes."""
        different: dict[Any, tuple[Any, Any]] = {}
        wishes = {key: wish for key, wish in annotations.get(WISH, {}).items() if wish is not None}
        for key in sorted(
            wishes
        ):  # the first in the order of submission is the one that is told of
            task: Any = scheduler.tasks[key]
            wish = wishes[key]
            if wish["workers"]:
                self._named[key] = wish["workers"]
                # Names stay among the addresses: with nothing there any worker would do.
                task.worker_restrictions = set(wish["workers"]) | _addresses(scheduler, wish)
            different.setdefault((task.group.name, wish["wants"]), (task, wish))
        for task, wish in different.values():
            self._look(task, wish)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Tie tasks to a new worker that they name; the scheduler looks at what waits after this."""
        added: Any = scheduler.workers[worker]
        for key, names in self._named.items():
            task: Any = scheduler.tasks.get(key)
            if task is not None and task.worker_restrictions and _is_named(added, names):
                task.worker_restrictions.add(worker)

    def transition(self, key: Any, start: Any, finish: Any, *_args: Any, **_: Any) -> None:
        """Look at tasks that no worker can take, and forget those that the scheduler forgets."""
        if finish == "forgotten":
            self._named.pop(key, None)
        elif finish == "no-worker" and start != finish:
            task = self._scheduler.tasks.get(key)
            wish = (getattr(task, "annotations", None) or {}).get(WISH)
            if wish is not None:
                self._look(task, wish)

    def _look(self, task: Any, wish: Mapping[str, Any]) -> None:
        """Tell once of a task, and those like it, if no worker can take it."""
        said = (wish["topic"], task.group.name, wish["wants"])
        if said in self._said or self._scheduler.valid_workers(task):
            return
        self._said[said] = None
        while len(self._said) > SAID:
            del self._said[next(iter(self._said))]
        cluster = _inventory(list(self._scheduler.workers.values()))
        self._scheduler.log_event(wish["topic"], {"ticket": task.key[1], "cluster": cluster})


def _addresses(scheduler: Any, wish: Mapping[str, Any]) -> set[str]:
    workers = scheduler.workers.values()
    return {worker.address for worker in workers if _is_named(worker, wish["workers"])}


def _is_named(worker: Any, names: Sequence[str]) -> bool:
    """Tell whether a worker goes by one of these names, its address being one of its own."""
    own = {str(worker.name), worker.address, worker.address.rpartition("//")[2]}
    return not own.isdisjoint(names)


def _inventory(workers: Sequence[Any]) -> str:
    """Return what a cluster has, in words."""
    if not workers:
        return "The cluster has no workers now."
    workers = sorted(workers, key=lambda worker: str(worker.name))
    shown = [_entry(worker) for worker in workers[:SHOWN]]
    if len(workers) > SHOWN:
        shown.append(f"and {len(workers) - SHOWN} more")
    count = f"{len(workers)} worker{'s' if len(workers) > 1 else ''}"
    return f"The cluster has {count}: {', '.join(shown)}."


def _entry(worker: Any) -> str:
    has = ", ".join(f"{name}: {amount:g}" for name, amount in worker.resources.items())
    name = "" if worker.name == worker.address else f"'{worker.name}' at "
    return f"{name}{worker.address} ({has or 'no resources'})"
