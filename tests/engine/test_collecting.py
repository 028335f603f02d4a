"""The collector of cycles looks less often while there are sessions, and goes back to its own pace."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dflow import flow
from dflow.engine import collecting
from tests.engine.world import World


@pytest.fixture
def usual() -> Iterator[None]:
    """Begin, and end, with the pace that Python has by default, and no session."""
    before = gc.get_threshold()
    collecting_before = (collecting._sessions, collecting._before)
    collecting._sessions, collecting._before = 0, None
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)
    collecting._sessions, collecting._before = collecting_before


@pytest.mark.usefixtures("usual")
def test_it_is_as_before_after_the_last_session() -> None:
    """The pace changes with the first session and is set back after the last one."""
    collecting.less_often()
    collecting.less_often()
    assert gc.get_threshold() == (collecting.EVERY, 10, 10)
    collecting.as_before()
    assert gc.get_threshold() == (collecting.EVERY, 10, 10)
    collecting.as_before()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("own", [(0, 10, 10), (50_000, 20, 20)])
def test_the_pace_of_the_user_stays(own: tuple[int, int, int]) -> None:
    """Who has set a pace, or none at all, keeps it; so does who sets it while a session is open."""
    gc.set_threshold(*own)
    collecting.less_often()
    assert gc.get_threshold() == own
    collecting.as_before()
    gc.set_threshold(700, 10, 10)
    collecting.less_often()
    gc.set_threshold(*own)
    collecting.as_before()
    assert gc.get_threshold() == own


@pytest.mark.usefixtures("usual")
def test_a_flow_leaves_nothing_changed(world: World) -> None:
    """While a flow runs the collector is slower, and after it as before."""

    @flow
    def main() -> int:
        return gc.get_threshold()[0]

    assert main() == collecting.EVERY
    assert world.sessions
    assert gc.get_threshold() == (700, 10, 10)
