"""What can be seen of Dask without running anything: what it lacks, and who owns work on a cluster."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

from distributed import Client

from dflow.errors import ClusterError
from task_runners.dask import feed, wire
from task_runners.dask.clusters import CONNECT
from task_runners.dask.internals import hide_noise


def lacks() -> list[str]:
    """Return what the installed distributed lacks for work to be owned by its run."""
    return wire.missing()


def owners(address: str | None) -> list[feed.About]:
    """Return who owns work on the cluster at an address. Raises `ClusterError` if it does not answer."""
    if address is None:
        return []
    hide_noise()
    try:
        with Client(address, set_as_default=False, timeout=CONNECT) as client:
            found: list[feed.About] = client.run_on_scheduler(feed.owners)
            return found
    except Exception as error:
        raise ClusterError(
            f"The owners of work at '{address}' cannot be told: {error!r}. "
            "Check the address, and that the scheduler has this version of dflow."
        ) from error
