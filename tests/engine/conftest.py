"""What tests of the engine run in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dflow.testing import ScriptedRunner
from tests.engine.world import World, world_with


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give bodies of a failed flow no time to stop."""
    monkeypatch.setenv("DFLOW_STOP_GRACE", "0")


@pytest.fixture
def world() -> Iterator[World]:
    """Return a world in memory, on a clock that stands still, whose records are checked at the end."""
    with world_with() as made:
        yield made


@pytest.fixture
def runner() -> ScriptedRunner:
    """Return a runner that the test plays."""
    return ScriptedRunner()
