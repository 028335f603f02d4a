"""The end of a tracker that fails: its thread ends, whoever is quicker."""

from __future__ import annotations

import threading

import pytest

from dflow import flow
from dflow.engine.tracker import Do
from dflow.errors import JournalUnavailable
from tests.engine.world import Running, World


def test_a_tracker_that_fails_while_it_is_closed_still_ends(world: World) -> None:
    """The order to end is not lost among the posts that are thrown away."""
    ended: list[bool] = []

    @flow
    def main() -> None:
        tracker, busy = world.session.tracker, threading.Event()
        tracker.post(Do(lambda ledger: busy.wait(10)))
        tracker._posts.put(None)  # as `close` does, in another thread
        tracker.fail(JournalUnavailable("no disk"))
        busy.set()
        tracker._thread.join(2)
        ended.append(not tracker._thread.is_alive())

    with pytest.raises(JournalUnavailable, match="no disk"):
        Running(main).result()
    assert ended == [True]
