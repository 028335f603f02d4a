"""Settings of the interpreter are others while there are sessions, and then as they were."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from dflow import flow
from dflow.engine import interpreter
from dflow.engine.interpreter import EVERY, TURN, USUAL_TURN
from tests.engine.world import World

Found = tuple[tuple[int, int, int], float]
DEFAULT: Found = (700, 10, 10), USUAL_TURN
OURS: Found = (EVERY, 10, 10), TURN


def found() -> Found:
    """Return how the interpreter is set."""
    return gc.get_threshold(), sys.getswitchinterval()


def put(settings: Found) -> None:
    """Set the interpreter."""
    gc.set_threshold(*settings[0])
    sys.setswitchinterval(settings[1])


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin, and end, with what Python has by default, and no session."""
    before = found()
    monkeypatch.setattr(interpreter, "_sessions", 0)
    put(DEFAULT)
    yield
    put(before)


@pytest.mark.usefixtures("usual")
def test_it_is_as_before_after_the_last_session() -> None:
    """Settings change with the first session and are set back after the last one."""
    interpreter.a_session_begins()
    interpreter.a_session_begins()
    assert found() == OURS
    interpreter.a_session_ends()
    assert found() == OURS
    interpreter.a_session_ends()
    assert found() == DEFAULT


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("own", [((0, 10, 10), 0.02), ((50_000, 20, 20), 0.0005)])
def test_the_settings_of_the_user_stay(own: Found) -> None:
    """Who has set something keeps it; so does who sets it while a session is open."""
    put(own)
    interpreter.a_session_begins()
    assert found() == own
    interpreter.a_session_ends()
    assert found() == own
    put(DEFAULT)
    interpreter.a_session_begins()
    put(own)
    interpreter.a_session_ends()
    assert found() == own


@pytest.mark.usefixtures("usual")
def test_a_flow_leaves_nothing_changed(world: World) -> None:
    """While a flow runs it is set otherwise, and after it as before."""

    @flow
    def main() -> Found:
        return found()

    assert main() == OURS
    assert world.sessions
    assert found() == DEFAULT
