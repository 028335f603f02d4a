"""Events and records as plain data, and back."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.core import events as ev
from dflow.core.codec import KINDS, decode, encode
from dflow.core.plain import build, plain
from dflow.core.records import Attempt, FlowRun, Need, Policy, TaskRun, Upstream

BASES = {"Event", "TaskEvent", "Report", "Outcome", "FlowEvent"}
PLAIN = (str, int, float, bool, bytes, type(None))

# What equals its default is left out, so that -0.0 comes back as 0.0: no time, no delay is negative.
st.register_type_strategy(float, st.floats(allow_nan=False).map(lambda number: number + 0.0))


def is_plain(data: Any) -> bool:
    """Tell whether data holds nothing but what a journal can keep."""
    if isinstance(data, dict):
        return all(type(key) is str and is_plain(item) for key, item in data.items())
    if isinstance(data, tuple):
        return all(map(is_plain, data))
    return type(data) in PLAIN


def a_start() -> ev.AttemptStarted:
    """Return some event."""
    return ev.AttemptStarted(at=1.0, task_run_id="t", dispatch=2)


def test_every_kind_is_known() -> None:
    """The kinds are the events that can happen, by name, without the bases that they share."""
    classes = {
        name
        for name, thing in vars(ev).items()
        if inspect.isclass(thing) and issubclass(thing, ev.Event)
    }
    assert set(KINDS) == classes - BASES


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_an_event_comes_back(kind: type[ev.Event], data: st.DataObject) -> None:
    """What was encoded is plain data, and is decoded to an equal event."""
    event = data.draw(st.from_type(kind))
    name, version, fields = encode(event)
    assert is_plain(fields)
    assert decode(name, version, fields) == event


@pytest.mark.parametrize("kind", [TaskRun, FlowRun, Attempt])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_record_comes_back(kind: type[Any], data: st.DataObject) -> None:
    """What was made plain is built to an equal record, in the same types."""
    record = data.draw(st.from_type(kind))
    fields = plain(record)
    assert is_plain(fields)
    again = build(kind, fields)
    assert again == record
    assert repr(again) == repr(record)


def test_an_unknown_kind_is_none() -> None:
    """A kind that a newer version wrote is skipped, and so is a newer version of a known one."""
    name, version, fields = encode(a_start())
    assert decode("TaskRunPainted", 1, {"colour": "red"}) is None
    assert decode(name, version + 1, fields) is None
    assert decode("Report", 1, fields) is None


def test_an_unknown_field_is_left_out() -> None:
    """A field that a newer version added does not matter, nor one within a field."""
    name, version, fields = encode(a_start())
    assert decode(name, version, fields | {"colour": "red"}) == a_start()
    assert build(Policy, {"retries": 1, "colour": "red"}) == Policy(retries=1)


@pytest.mark.parametrize("field", ["at", "task_run_id", "dispatch"])
def test_a_missing_field_is_an_error(field: str) -> None:
    """A field that has no default must be there; the error names it."""
    name, version, fields = encode(a_start())
    del fields[field]
    with pytest.raises(ValueError, match=f"AttemptStarted: .*`{field}`"):
        decode(name, version, fields)


def test_defaults_are_left_out() -> None:
    """What has its default costs nothing, at any depth, and comes back."""
    event = ev.TaskCreated(
        at=1.0,
        task_run_id="t",
        flow_run_id="f",
        parent_id="f",
        task_name="t",
        name="t",
        upstreams=(Upstream("a"), Upstream("b", Need.WAIT)),
        policy=Policy(retries=2),
    )
    fields = plain(event)
    assert fields["upstreams"] == ({"task_run_id": "a"}, {"task_run_id": "b", "need": "wait"})
    assert fields["policy"] == {"retries": 2}
    assert "generation" not in fields
    assert build(ev.TaskCreated, fields) == event
