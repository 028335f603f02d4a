"""From events to records."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.codec import decode, encode
from dflow.core.records import Stage, Upstream
from dflow.core.replay import Table, replay
from tests.core.playing import play

CREATED = ev.TaskCreated(
    at=1.0, task_run_id="t", flow_run_id="f", parent_id="f", task_name="t", name="t"
)
FLOW = ev.FlowRunCreated(
    at=0.0, flow_run_id="f", root_id="f", parent_id=None, flow_name="f", name="f"
)


def test_creation_is_applied_once() -> None:
    """A run that is there already is not made again, whatever its second creation says."""
    table = Table()
    assert len(table.apply(CREATED)) == 1
    assert table.apply(replace(CREATED, name="other")) == []
    assert len(table.apply(FLOW)) == 1
    assert table.apply(replace(FLOW, name="other")) == []
    assert table.task_runs["t"].name == "t"
    assert table.flow_runs["f"].name == "f"


def test_a_map_becomes_its_items() -> None:
    """Each item has its own identity and upstreams, and shares the rest."""
    table = Table()
    items = (ev.MapItem("a", "m[0]"), ev.MapItem("b", "m[1]", (Upstream("t"),)))
    changes = table.apply(
        ev.MapCreated(
            at=1.0,
            flow_run_id="f",
            parent_id="f",
            task_name="m",
            items=items,
            upstreams=(Upstream("u"),),
            generation=2,
        )
    )
    assert [orders for _, orders in changes] == [(do.Consider("a"),), (do.Consider("b"),)]
    assert table.task_runs["a"].upstreams == (Upstream("u"),)
    assert table.task_runs["b"].upstreams == (Upstream("u"), Upstream("t"))
    assert {run.generation for run in table.task_runs.values()} == {2}


def test_unknown_runs_change_nothing() -> None:
    """An event of a run that is not there is refused, and so is one of no run at all."""
    table = Table()
    assert table.apply(ev.UpstreamsMet(at=1.0, task_run_id="t")) == []
    assert table.apply(ev.FlowCancelRequested(at=1.0, flow_run_id="f")) == []
    assert table.apply(ev.Event(at=1.0)) == []
    assert (table.task_runs, table.flow_runs) == ({}, {})


def test_refused_events_change_nothing() -> None:
    """What a record refuses leaves the very same record in the table, with nothing to do."""
    table = replay([CREATED])
    before = table.task_runs["t"]
    assert table.apply(ev.Unpaused(at=2.0, task_run_id="t")) == []
    assert table.task_runs["t"] is before


def test_changes_come_with_their_commands() -> None:
    """Applying says what changed, and what is to be done for it."""
    table = replay([CREATED])
    [(run, orders)] = table.apply(ev.UpstreamsMet(at=2.0, task_run_id="t"))
    assert run is table.task_runs["t"]
    assert run.stage is Stage.DISPATCHED
    assert orders == (do.Dispatch("t", 1, 1, 1),)


@pytest.mark.parametrize("seed", range(10))
def test_a_journal_gives_the_records_back(seed: int) -> None:
    """A history that went through the journal's form leaves the same records, also from its middle on."""
    driver = play(seed, machine.TABLE)
    kept = [encode(event) for event in driver.history]
    events = [event for event in (decode(*row) for row in kept) if event is not None]
    assert replay(events).task_runs == driver.table.task_runs
    assert replay(events).flow_runs == driver.table.flow_runs
    middle = Random(seed).randrange(len(events))
    table = replay(events[:middle])
    for event in events[middle:]:
        table.apply(event)
    assert table.task_runs == driver.table.task_runs
