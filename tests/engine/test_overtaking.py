"""A first dispatch overtakes its record; nothing else is done before it is durable."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dflow import task
from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import Held, Stage, Upstream
from dflow.engine.claims import Claim
from dflow.engine.ledger import Ledger
from dflow.ports import Batch
from dflow.testing import ScriptedRunner
from tests.engine.test_journal_faults import Watched
from tests.engine.world import Running, scripted, world_with


@task
def work(x: int) -> int:
    """Be played by the test."""
    raise NotImplementedError


def test_a_first_dispatch_is_out_before_its_record() -> None:
    """While the creation is being written, the runner has the work already."""
    runner = ScriptedRunner()
    out: list[int] = []

    def append(batch: Batch, original: Callable[[Batch], int]) -> int:
        if any(isinstance(event, ev.TaskCreated) for event in batch.events):
            out.append(len(runner.expect(1)))
        return original(batch)

    with world_with(Watched(append)):
        running = Running(scripted(lambda: work.submit(1).result(), runner))
        runner.succeed(runner.expect(1)[0], 5)
        assert running.result() == 5
    assert out == [1]


def created(name: str, *upstreams: str) -> ev.TaskCreated:
    """Return the creation of a task run."""
    return ev.TaskCreated(
        at=1.0,
        task_run_id=name,
        flow_run_id="f",
        parent_id="f",
        task_name="t",
        name=name,
        upstreams=tuple(map(Upstream, upstreams)),
    )


def succeeded(name: str) -> ev.AttemptSucceeded:
    """Return the outcome of a first dispatch, whose value goes into the journal."""
    return ev.AttemptSucceeded(
        at=2.0,
        task_run_id=name,
        dispatch=1,
        started_at=2.0,
        seconds=0.0,
        held=Held.JOURNAL,
        value=b"x",
    )


CLAIM = Claim(1, follows=True, shares_memory=False)


@pytest.mark.parametrize("ended_first", [True, False])
def test_what_takes_an_outcome_waits_for_its_record(ended_first: bool) -> None:
    """A dependent that is asked for right when its upstream ends goes when that end is durable."""
    ledger = Ledger()
    ledger.ask(created("a"), CLAIM, True)
    assert [order.run_id for order in ledger.take_firsts()] == ["a"]
    ledger.take()
    if ended_first:
        ledger.apply(succeeded("a"))
        ledger.ask(created("b", "a"), CLAIM, True)
    else:
        ledger.ask(created("b", "a"), CLAIM, True)
        ledger.apply(succeeded("a"))
    assert ledger.take_firsts() == []
    assert do.Dispatch("b", 1, 1, 1) in ledger.take().orders


def test_nothing_overtakes_what_it_follows() -> None:
    """What is asked for behind a dispatch that waits for a record waits too; other things do not."""
    ledger = Ledger()
    ledger.ask(created("a"), CLAIM, True)
    ledger.take_firsts()
    ledger.take()
    ledger.apply(succeeded("a"))
    for name, upstreams in (("b", "a"), ("c", "b"), ("d", ()), ("e", "d"), ("f", "cd")):
        ledger.ask(created(name, *upstreams), CLAIM, True)
    assert [order.run_id for order in ledger.take_firsts()] == ["d", "e"]
    orders = ledger.take().orders
    assert [o.run_id for o in orders if isinstance(o, do.Dispatch)] == ["b", "c", "f"]


def test_nothing_overtakes_what_goes_on_by_itself() -> None:
    """What has waited, and goes as its upstream ends, is out before what is asked for behind it."""
    ledger = Ledger()
    ledger.ask(created("a"), CLAIM, True)
    ledger.ask(created("b", "a"), Claim(1, shares_memory=False), True)
    ledger.take_firsts()
    ledger.take()
    ledger.apply(succeeded("a"))
    ledger.ask(created("c", "b"), CLAIM, True)
    assert ledger.take_firsts() == []
    orders = ledger.take().orders
    assert [o.run_id for o in orders if isinstance(o, do.Dispatch)] == ["b", "c"]


def test_what_follows_its_upstream_goes_at_once() -> None:
    """A chain at one runner is out before any of it is durable, each link after what it takes."""
    ledger = Ledger()
    for name, upstreams in (("a", ()), ("b", "a"), ("c", "ab")):
        assert ledger.ask(created(name, *upstreams), CLAIM, True)
    assert [order.run_id for order in ledger.take_firsts()] == ["a", "b", "c"]
    assert ledger.take().orders == []


@pytest.mark.parametrize("claim", [Claim(1), Claim(1, follows=True, max_in_flight=5)])
def test_what_has_to_wait_is_not_ready(claim: Claim) -> None:
    """Where the runner passes nothing on, or places are counted, a dependent waits."""
    ledger = Ledger()
    ledger.ask(created("a"), claim, True)
    assert not ledger.ask(created("b", "a"), claim, True)
    assert ledger.table.task_runs["b"].stage is Stage.WAITING
