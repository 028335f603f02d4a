"""Frozen records that are made quickly are what they were: equal, frozen, with the same arguments."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, make_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.core.codec import KINDS
from dflow.core.making import changer, swift
from dflow.core.records import Attempt, FlowRun, TaskRun


@dataclass(frozen=True, slots=True)
class Base:
    """Something with one field."""

    first: int


@swift
@dataclass(frozen=True, slots=True)
class Made(Base):
    """Something with more fields."""

    second: str = "two"
    third: Mapping[str, int] = field(default_factory=dict)


@pytest.mark.parametrize("cls", [*KINDS.values(), Attempt, FlowRun, TaskRun])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_made_quickly_is_the_same(cls: Any, data: st.DataObject) -> None:
    """It has the fields that it was given, its class, and equals what a plain dataclass would hold."""
    given_ = data.draw(st.from_type(cls))
    values = {f.name: getattr(given_, f.name) for f in fields(cls)}
    assert cls(**values) == given_
    assert type(given_) is cls
    twin = make_dataclass(cls.__name__, [(f.name, Any) for f in fields(cls)], frozen=True)
    assert repr(given_) == repr(twin(**values))
    assert hash(given_) == hash(replace(given_))


def test_it_is_frozen_and_travels() -> None:
    """Nobody changes it, and it is the same after a pickle."""
    made = Made(1)
    with pytest.raises(FrozenInstanceError):
        made.second = "three"  # type: ignore[misc]  # that is what is tested
    with pytest.raises(FrozenInstanceError):
        del made.first
    assert pickle.loads(pickle.dumps(made)) == made


def test_it_takes_the_same_arguments() -> None:
    """By place and by name, with its defaults, of which those that are made are made each time."""
    assert Made(1, "b", {"c": 3}) == Made(first=1, second="b", third={"c": 3})
    assert Made(1).third is not Made(1).third
    assert list(inspect.signature(Made).parameters) == ["first", "second", "third"]
    with pytest.raises(TypeError, match="first"):
        Made()  # type: ignore[call-arg]  # that is what is tested


def test_a_changed_one_differs_in_what_was_changed() -> None:
    """All other fields are as they were, and the old one stays as it was."""
    old = Made(1, "b", {"c": 3})
    new = changer(Made)(old, {"second": "x"})
    assert (old.second, new) == ("b", Made(1, "x", {"c": 3}))
    with pytest.raises(FrozenInstanceError):
        new.second = "y"


def test_what_looks_at_its_fields_is_refused() -> None:
    """A dataclass with code of its own to run when it is made would lose that."""

    class Looking:
        """Has such code."""

        def __post_init__(self) -> None:
            """Look."""

    with pytest.raises(TypeError, match="Looking"):
        swift(Looking)
