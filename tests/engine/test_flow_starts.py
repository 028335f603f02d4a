"""A flow run whose caller goes away while its start is recorded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from dflow import flow
from dflow.ports import Batch
from tests.engine.test_journal_faults import Watched
from tests.engine.world import PATIENCE, world_with


def test_who_is_cancelled_while_a_flow_begins_is_so_on_the_record() -> None:
    """Its body does not run, and nothing is left that looks as if it did."""
    begins, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    def append(batch: Batch, original: Callable[[Batch], int]) -> int:
        if any(run.state_name == "Running" for run in batch.flow_runs):
            begins.set()
            assert go_on.wait(PATIENCE)
        return original(batch)

    @flow
    async def main() -> None:
        ran.append(1)

    async def cancels() -> None:
        running = asyncio.ensure_future(main())
        assert await asyncio.to_thread(begins.wait, PATIENCE)
        running.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running

    with world_with(Watched(append)) as world:
        asyncio.run(cancels())
        assert [run.state_name for run in world.flow_runs()] == ["Cancelled"]
        assert ran == []
