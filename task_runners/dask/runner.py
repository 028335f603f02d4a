"""The description of a Dask runner, checked when it is written."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dflow.errors import DefinitionError
from dflow.ports import Host

if TYPE_CHECKING:
    from task_runners.dask.open_runner import OpenDask

CLUSTERS = "task_runners.dask.clusters"
"""The module of open clusters: without it there are none, and Dask may not have been loaded."""


@dataclass(frozen=True)  # with slots Python before 3.11.4 has no ear for a class's own __setstate__
class OwnCluster:
    """A cluster on this machine, as it is asked for; None leaves the choice to us."""

    n_workers: int | None = None
    threads_per_worker: int | None = None
    processes: bool = True
    memory_limit: str | int | float | None = None
    dashboard: bool = False
    resources: Any = ()
    """What each worker has: names with amounts, kept as pairs."""
    idle_seconds: float = 300.0
    """Seconds after which a cluster that no flow run uses is closed; infinite: never."""

    def __post_init__(self) -> None:
        for name in ("n_workers", "threads_per_worker"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise DefinitionError(
                    f"cluster_kwargs: {name}={value!r} is not a number: give 1 or more."
                )
        for name in ("processes", "dashboard"):
            if type(getattr(self, name)) is not bool:
                raise DefinitionError(f"cluster_kwargs: {name} is True or False.")
        idle = self.idle_seconds
        if type(idle) not in (int, float) or not idle > 0:
            raise DefinitionError(
                f"cluster_kwargs: idle_seconds={idle!r} is not a time: give seconds, more than 0."
            )
        object.__setattr__(self, "resources", _pairs(self.resources))
        if self.memory_limit is not None and type(self.memory_limit) not in (str, int, float):
            raise DefinitionError(
                f"cluster_kwargs: memory_limit={self.memory_limit!r} is not a size: "
                "give bytes, or text such as '4 GiB'."
            )
        if self.memory_limit is not None and not self.processes:
            raise DefinitionError(
                "cluster_kwargs: memory_limit and processes=False contradict each other: "
                "only worker processes can be kept to a limit."
            )

    def __getstate__(self) -> list[Any]:
        """Return the values of the fields, in their order."""
        return [getattr(self, one.name) for one in fields(self)]

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Take over what was pickled; what it did not have yet is as by default."""
        for number, one in enumerate(fields(self)):
            value = state[number] if number < len(state) else one.default
            object.__setattr__(self, one.name, value)


@dataclass(frozen=True, slots=True)
class DaskTaskRunner:
    """Runs tasks on a Dask cluster.

    `address` is that of a scheduler that runs already. Without one a cluster of worker processes is started
    on this machine when a flow first submits something, and shared by equal runners. `cluster_kwargs` says
    how it is to be: `n_workers`, `threads_per_worker`, `processes` (False: threads of this process),
    `memory_limit` per worker, `dashboard` (needs bokeh), `resources` that each worker has, such as
    ``{"GPU": 1}``, `idle_seconds` (300): a cluster that no flow run has used for so long is closed, and the
    next one starts it again. A cluster at an `address` keeps the work of a driver that has gone for
    `lease_seconds`: who resumes the run by then finds what has finished and what still runs.

    Example:
        >>> DaskTaskRunner(cluster_kwargs={"n_workers": 2}).describe()["n_workers"]
        2
    """

    address: str | None = None
    cluster_kwargs: Mapping[str, Any] | None = field(default=None, compare=False)
    lease_seconds: float = 600.0
    own: OwnCluster | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = dict(self.cluster_kwargs or {})
        if type(self.lease_seconds) not in (int, float) or not 0 <= self.lease_seconds < math.inf:
            raise DefinitionError(
                f"lease_seconds={self.lease_seconds!r} is not a time: give seconds, or 0."
            )
        if self.address is None:
            object.__setattr__(self, "own", _own(given))
            return
        if type(self.address) is not str or not self.address.strip():
            raise DefinitionError(f"address={self.address!r} is not the address of a scheduler.")
        if given:
            raise DefinitionError(
                "address and cluster_kwargs contradict each other: the cluster at "
                f"'{self.address}' runs already. Give one of them."
            )
        object.__setattr__(self, "own", None)

    @property
    def outlives(self) -> bool:
        """Whether work that it was given may outlive the driver."""
        return self.own is None

    def open(self, host: Host) -> OpenDask:
        """Start to work for a flow run, starting the cluster if need be. Raises `ClusterError`."""
        if self.own is None or not self.own.processes or CLUSTERS in sys.modules:
            return self._opened(host)
        from task_runners.dask import hosting  # lazy: only for clusters of processes

        hosting.begin(self.own)  # the first one starts while this process loads Dask
        try:
            return self._opened(host)
        finally:
            hosting.give_up()

    def _opened(self, host: Host) -> OpenDask:
        from task_runners.dask.open_runner import OpenDask  # lazy: a description costs no Dask

        return OpenDask(self, host)

    def shutdown(self) -> None:
        """Close the cluster, or the connection, that equal runners share."""
        clusters = sys.modules.get(CLUSTERS)
        if clusters is not None:  # or there was never any
            clusters.shared.close(self)

    def examine(self) -> Mapping[str, Any]:
        """Return what can be seen, without starting anything: what ``dflow doctor`` shows.

        `lacks` is what the installed Dask lacks for work to be owned by its run, `owners` who owns work on
        the cluster at `address`. Raises `ClusterError` if that does not answer.

        Example:
            >>> DaskTaskRunner().examine()["owners"]
            []
        """
        from task_runners.dask import examining  # lazy: a description costs no Dask

        return {"lacks": examining.lacks(), "owners": examining.owners(self.address)}

    def describe(self) -> Mapping[str, Any]:
        """Return the kind and the settings of this runner."""
        if self.own is None:
            return {"kind": "dask", "address": self.address}
        return {
            "kind": "dask",
            "n_workers": self.own.n_workers,
            "threads_per_worker": self.own.threads_per_worker,
            "processes": self.own.processes,
            "memory_limit": self.own.memory_limit,
            "dashboard": self.own.dashboard,
            "resources": dict(self.own.resources),
            "idle_seconds": self.own.idle_seconds,
        }


def _own(given: dict[str, Any]) -> OwnCluster:
    known = OwnCluster.__dataclass_fields__
    unknown = [name for name in given if name not in known]
    if unknown:
        raise DefinitionError(
            f"cluster_kwargs: {', '.join(map(repr, unknown))} is not known. "
            f"Known are: {', '.join(known)}."
        )
    return OwnCluster(**given)


def _pairs(given: Any) -> tuple[tuple[str, float], ...]:
    """Return resources as sorted pairs, which can be compared and hashed."""
    try:
        amounts = {name: float(amount) for name, amount in dict(given or ()).items()}
    except (TypeError, ValueError):
        amounts = {"": 0.0}
    if not all(isinstance(name, str) and name and 0 < n < math.inf for name, n in amounts.items()):
        raise DefinitionError(
            f"cluster_kwargs: resources={given!r} are not names with amounts: "
            "give something like {'GPU': 1}."
        )
    return tuple(sorted(amounts.items()))
