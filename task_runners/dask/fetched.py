"""Values of an owner's keys, fetched by the driver: from the workers themselves where they can be reached."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client

from dflow.errors import ClusterError
from task_runners.dask import wire
from task_runners.dask.parcels import DaskKey

PATIENCE = 30.0
"""Seconds in which a value must be found that the scheduler says is there."""
LOOK = 0.1
"""Seconds between two looks for such a value, if nothing is heard of it."""


class Fetched:
    """Fetches values, waiting for them if need be, in the client's thread. `status` says how keys stand."""

    def __init__(self, client: Client, status: Mapping[int, str]) -> None:
        self._client = client
        self._status = status
        self._waiting: dict[int, list[asyncio.Future[bytes | None]]] = {}
        self._unreachable: set[str] = set()
        self._ended = False

    def wake(self, ticket: int, error: bytes | None) -> None:
        """Tell those who wait for a key that there is news of it."""
        for waiting in self._waiting.pop(ticket, ()):
            if not waiting.done():
                waiting.set_result(error)

    def end(self) -> None:
        """Let nobody wait any more."""
        self._ended = True
        for ticket in list(self._waiting):
            self.wake(ticket, None)

    async def fetch(self, key: DaskKey) -> Any:
        """Return what a key holds. Raises what made it err, or `ClusterError`."""
        ticket = key[1]
        error: bytes | None = None
        deadline: float | None = None
        while not self._ended:
            status = self._status.get(ticket, "cancelled")
            if status == "finished":
                found = await wire.gather(self._client, key, self._unreachable)
                if found:
                    return found[0]
                now = asyncio.get_running_loop().time()
                deadline = deadline or now + PATIENCE
                if now > deadline:
                    raise ClusterError("No worker has it any more.")
                error = await self._change(ticket, LOOK) or error
            elif status in ("pending", "lost"):
                error = await self._change(ticket, None) or error
            elif status == "error" and error is not None:
                raise loaded(error)
            else:
                raise ClusterError("It could not be computed, or was let go.")
        raise ClusterError("The connection to the Dask scheduler was lost.")

    async def fetch_each(self, keys: Sequence[DaskKey]) -> Mapping[DaskKey, Any]:
        """Return what those of several keys hold that somebody has now."""
        return await wire.gather_each(self._client, keys, self._unreachable)

    async def _change(self, ticket: int, seconds: float | None) -> bytes | None:
        """Wait for news of a key; return the error, if it is that."""
        waiting: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ticket, []).append(waiting)
        try:
            return await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            return None


def loaded(error: bytes) -> BaseException:
    """Return an exception that the scheduler has told of."""
    try:
        found = pickle.loads(error)
    except Exception as problem:
        return ClusterError(f"An error of Dask could not be read: {problem!r}")
    return found if isinstance(found, BaseException) else ClusterError(str(found))
