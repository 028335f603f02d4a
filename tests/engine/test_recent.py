"""Small values that came lately are in memory, up to a bound."""

from __future__ import annotations

from dflow import flow, task
from dflow.engine.recent import OVERHEAD, Recent
from tests.engine.world import World


def test_the_last_value_of_a_run_counts() -> None:
    """A later outcome takes the place of an earlier one, and one without a value leaves none."""
    recent = Recent()
    recent.note("a", b"one")
    recent.note("a", b"two")
    assert recent.get("a") == b"two"
    recent.note("a", None)
    assert recent.get("a") is None
    assert recent.get("b") is None


def test_the_oldest_go_first() -> None:
    """Beyond the bound the oldest values go, until the others fit; one that is too large is not kept."""
    recent = Recent(bound=3 * (OVERHEAD + 10))
    for name in "abcd":
        recent.note(name, bytes(10))
    recent.note("b", bytes(10))
    assert [name for name in "abcd" if recent.get(name)] == ["b", "c", "d"]
    recent.note("e", bytes(10))
    assert [name for name in "abcde" if recent.get(name)] == ["b", "d", "e"]
    recent.note("f", bytes(10_000))
    assert not any(recent.get(name) for name in "abcdef")
    recent.note("a", bytes(10))
    assert recent.get("a") == bytes(10)


def test_a_value_that_went_is_read_from_the_journal(world: World) -> None:
    """What memory has no room for any more is still given."""

    @task
    def double(x: int) -> int:
        return 2 * x

    @flow
    def main() -> list[int]:
        futures = double.map([1, 2, 3])
        futures.wait()
        world.session.recent.note(futures[1].task_run_id, None)
        return futures.result()

    assert main() == [2, 4, 6]
