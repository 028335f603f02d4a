"""What becomes of the values of flow runs: as for task runs, with nobody who holds them elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dflow.attempts.context import FlowInfo
from dflow.attempts.persisting import Place, Returned, put
from dflow.engine.keeping import Keeper


async def put_flow(
    keeper: Keeper, flow: FlowInfo, value: Any, seconds: float, *, native: bool
) -> Place:
    """Put the value of a flow whose body took so many seconds where it is kept. Raises as `put` does.

    That of a root flow run, for which no resume ever asks, is kept in a store only if somebody wants it.
    """
    keeping = flow.keeping
    if keeping is not None:
        by_itself = flow.parent_flow_run_id is not None and keeping.persist is None
        persist = None if by_itself else bool(keeping.persist)
        keeping = replace(keeping, quota=keeper.quota, persist=persist)
    returned = Returned(
        value=value,
        what=f"flow '{flow.flow_name}'",
        stem=f"{flow.flow_run_id}.{flow.generation}",
        seconds=seconds,
    )
    return await put(returned, keeper.small, keeping, keeper.context(flow), native=native)


def flow_room(keeper: Keeper, flow: FlowInfo) -> int | None:
    """Return how many bytes of items that a flow hands out are kept; None for all of them."""
    asked = flow.keeping is not None and flow.keeping.persist
    return None if asked else keeper.small
