"""Waiting for many task runs by one registration."""

from __future__ import annotations

import threading

from dflow import task
from dflow.testing import ScriptedRunner
from tests.engine.world import PATIENCE, World, start


@task
def double(x: int) -> int:
    """Be played by the test."""
    raise NotImplementedError


def test_the_last_of_many_wakes_who_waits_for_all(world: World) -> None:
    """One registration is called once, when all are final, in whatever order they end."""
    runner, rung = ScriptedRunner(), []
    final = threading.Event()

    def body() -> list[int]:
        return double.map([0, 1, 2, 3]).result()

    def ring() -> None:
        rung.append(all(world.session.tracker.shown[i].stage.final for i in ids))
        final.set()

    run = start(body, runner)
    works = runner.expect(4)
    ids = [work.info.task_run_id for work in works]
    world.session.tracker.when_all_final(ids, ring)
    for index in (2, 0, 3):
        runner.succeed(works[index], index)
    world.settle()
    assert rung == []
    runner.succeed(works[1], 1)
    assert run.result() == [0, 1, 2, 3]
    assert final.wait(PATIENCE)
    assert rung == [True]


def test_who_waits_for_what_has_ended_is_called_at_once(world: World) -> None:
    """Nothing is left to wait for once all are final, nor when there is nothing to wait for."""
    runner, rung = ScriptedRunner(), []

    def body() -> int:
        value = double.submit(1).result()
        ids = [run.id for run in world.session.ledger.table.task_runs.values()]
        world.session.tracker.when_all_final(ids, lambda: rung.append("final"))
        world.session.tracker.when_all_final([], lambda: rung.append("none"))
        return value

    run = start(body, runner)
    runner.succeed(runner.expect(1)[0], 2)
    assert run.result() == 2
    assert rung == ["final", "none"]


def test_the_end_of_the_tracker_wakes_who_waits_for_all(world: World) -> None:
    """Whoever waits when the flow run ends is woken, though not all is final."""
    runner, ended = ScriptedRunner(), threading.Event()

    def body() -> None:
        futures = double.map([1, 2])
        runner.succeed(runner.expect(2)[0], 1)
        ids = [future.task_run_id for future in futures]
        world.session.tracker.when_all_final([*ids, "unknown"], ended.set)
        runner.succeed(runner.expect(2)[1], 1)

    start(body, runner).result()
    assert ended.wait(PATIENCE)
