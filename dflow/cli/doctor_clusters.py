"""What ``dflow doctor`` tells of clusters: how work is held on Dask, and which runs own work where."""

from __future__ import annotations

from typing import Any, TypedDict

from dflow import runs
from dflow.cli import text
from dflow.engine import runners
from dflow.errors import DflowError


class OwnerFacts(TypedDict):
    """A run that owns work on a cluster; `alone` is for how many seconds it has had no driver.

    After `lease` of those its work is let go. `states` counts its keys by their state there.
    """

    name: str
    run: str
    run_name: str | None
    keys: int
    states: dict[str, int]
    driven: bool
    alone: float | None
    lease: float


class ClusterFacts(TypedDict):
    """A cluster at an address: the runs that own work there, or why that cannot be told."""

    address: str
    owners: list[OwnerFacts]
    problem: str | None


def way() -> str:
    """Return how work is held on a Dask cluster with what is installed."""
    try:
        dask: Any = runners.resolve("dask")
        lacks = dask.examine()["lacks"]
    except (DflowError, ImportError) as error:
        return f"not known: {error}"
    if not lacks:
        return "owned by its run: it outlives a driver on clusters that do"
    return f"held by its driver, as distributed lacks {', '.join(lacks)}"


def look_at(address: str) -> ClusterFacts:
    """Return what can be seen of the cluster at an address."""
    try:
        dask: Any = runners.resolve("dask")
        found = type(dask)(address=address).examine()["owners"]
    except DflowError as error:
        return ClusterFacts(address=address, owners=[], problem=str(error))
    owners: list[Any] = [{**owner, "run_name": _name_of(owner["run"])} for owner in found]
    return ClusterFacts(address=address, owners=owners, problem=None)


def _name_of(run_id: str) -> str | None:
    try:
        return runs.find(run_id).entry.name
    except DflowError:
        return None  # it is recorded elsewhere


def lines(cluster: ClusterFacts) -> dict[str, str]:
    """Return what is shown of a cluster."""
    if cluster["problem"] is not None:
        return {cluster["address"]: cluster["problem"]}
    owners = {owner["name"]: _line(owner) for owner in cluster["owners"]}
    return {cluster["address"]: f"{text.several(len(owners), 'owner')} of work"} | owners


def _line(owner: OwnerFacts) -> str:
    run = (
        f"run '{owner['run_name']}'" if owner["run_name"] else f"run {owner['run']}, not known here"
    )
    states = ", ".join(f"{count} {state}" for state, count in sorted(owner["states"].items()))
    work = text.several(owner["keys"], "key") + (f" ({states})" if states else "")
    if owner["alone"] is None:
        return f"{run}: {work}; it has a driver"
    left = max(0.0, owner["lease"] - owner["alone"])
    return (
        f"{run}: {work}; without a driver for {owner['alone']:.0f} s, let go in {left:.0f} s "
        "unless it is resumed"
    )
