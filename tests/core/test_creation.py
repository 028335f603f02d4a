"""How task runs come into being: one by one, as items of a map, waiting or dispatched at once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import invariants
from dflow.core.creation import create, create_all, ids_of, unfold
from dflow.core.machine import step
from dflow.core.records import ErrorInfo, Stage, Upstream
from dflow.core.replay import Table, replay

creations = st.builds(ev.TaskCreated, ready=st.just(False))
maps = st.builds(ev.MapCreated)


@given(creations)
def test_ready_is_created_and_dispatched(event: ev.TaskCreated) -> None:
    """One that is ready is what it would be if nothing stood in its way right after its creation."""
    waiting, considered = create(event)
    assert (waiting.stage, considered) == (Stage.WAITING, (do.Consider(event.task_run_id),))
    met = ev.UpstreamsMet(at=event.at, task_run_id=event.task_run_id)
    assert create(replace(event, ready=True)) == step(waiting, met)


@given(maps)
def test_a_map_makes_what_its_items_say(event: ev.MapCreated) -> None:
    """The task runs of a map are those that its items would make alone."""
    singles = list(unfold(event))
    assert list(create_all(event)) == [create(single) for single in singles]
    assert ids_of(event) == [single.task_run_id for single in singles]


def test_what_is_there_is_not_made_again() -> None:
    """Of a map only the items are made that are not there, each once."""
    a, b = ev.MapItem("a", "a"), ev.MapItem("b", "b")
    event = ev.MapCreated(at=1.0, flow_run_id="f", parent_id="f", task_name="t", items=(a, b, b))
    table = Table()
    first: dict[str, Any] = {"flow_run_id": "f", "parent_id": "f", "task_name": "t"}
    table.apply(ev.TaskCreated(at=0.0, task_run_id="a", name="x", **first))
    assert [run.id for run, _ in table.apply(event)] == ["b"]
    assert table.apply(event) == []
    assert table.task_runs["a"].name == "x"


def test_ready_though_an_upstream_waits_is_seen() -> None:
    """The invariants notice what was dispatched at its creation though something stood in its way."""
    common: dict[str, Any] = {"flow_run_id": "f", "parent_id": "f", "task_name": "t"}
    events = [
        ev.FlowRunCreated(
            at=0.0, flow_run_id="f", root_id="f", parent_id=None, flow_name="f", name="f"
        ),
        ev.TaskCreated(at=1.0, task_run_id="a", name="a", **common, ready=True),
        ev.AttemptRaised(
            at=2.0,
            task_run_id="a",
            dispatch=1,
            started_at=2.0,
            seconds=0.0,
            error=ErrorInfo("E", "e"),
        ),
        ev.TaskCreated(
            at=3.0, task_run_id="b", name="b", upstreams=(Upstream("a"),), **common, ready=True
        ),
    ]
    assert invariants.check(events[:3], replay(events[:3])) == []
    assert invariants.check(events, replay(events)) == [
        "Event 4: 'b' was dispatched though 'a' stood in its way."
    ]
