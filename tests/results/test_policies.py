"""Cache policies: their algebra, and what their keys are made from."""

# Policies of all kinds have one signature:
# ruff: noqa: ARG002

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)
from dflow.errors import DefinitionError
from dflow.results.fingerprints import NoFingerprint
from dflow.results.keys import KeyContext, TaskRunInKey, task_in_key


class Static(CachePolicy):
    """A policy as users write it."""

    def __init__(self, key: str) -> None:
        self.key = key

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return a fixed key."""
        return self.key or None


@dataclass
class Settings(CachePolicy):
    """A policy that is a dataclass."""

    key: str

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return a key of the settings."""
        return f"{self.key}-{inputs['x']}"


def by_x(context: Any, parameters: dict[str, Any]) -> str | None:
    """Return a key made of one argument."""
    return None if parameters["x"] is None else f"{context.task_run.task_name}-{parameters['x']}"


OURS = [INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, INPUTS - "y"]
THEIRS = [Static("a"), Static("b"), CachePolicy.from_cache_key_fn(by_x)]
policies = st.sampled_from([*OURS, *THEIRS, NO_CACHE, DEFAULT])
sums = st.lists(policies, min_size=1, max_size=4).map(lambda parts: reduce(add, parts))
names = st.sampled_from(["x", "y", "z"])
arguments = st.fixed_dictionaries({name: st.integers(0, 2) for name in "xyz"})


def double(x: int, y: int = 0, z: int = 0) -> int:
    """Return something."""
    return 2 * x + y * z


def key(policy: CachePolicy, inputs: Any = None, flow: Any = None, task: Any = double) -> Any:
    """Return the key of a call."""
    run = TaskRunInKey("id", "double-0", "double", "run-1")
    given_ = {"x": 1, "y": 2, "z": 3} if inputs is None else inputs
    return policy.compute_key(KeyContext(task, run, given_), given_, flow or {})


@given(sums, sums, sums, arguments)
def test_sums_are_commutative_and_associative(
    a: CachePolicy, b: CachePolicy, c: CachePolicy, inputs: dict[str, int]
) -> None:
    """The order in which policies are added plays no part in keys."""
    assert key(a + b, inputs) == key(b + a, inputs)
    assert key((a + b) + c, inputs) == key(a + (b + c), inputs)
    assert key(a + a, inputs) == key(a, inputs)


@given(sums)
def test_no_cache_changes_nothing_in_a_sum(policy: CachePolicy) -> None:
    """It is the zero of the algebra, and alone it means no caching."""
    assert policy + NO_CACHE == policy == NO_CACHE + policy
    assert key(NO_CACHE) is None


@given(sums, sums, names, names, arguments)
def test_what_is_taken_out_is_taken_out_of_all(
    a: CachePolicy, b: CachePolicy, one: str, two: str, inputs: dict[str, int]
) -> None:
    """Taking out an argument goes through sums, in any order, and twice is once."""
    assert key((a + b) - one, inputs) == key((a - one) + (b - one), inputs)
    assert key(a - one - two, inputs) == key(a - two - one, inputs)
    assert key(a - one - one, inputs) == key(a - one, inputs)


@given(st.sampled_from(OURS), names, arguments, st.integers())
def test_an_argument_that_was_taken_out_plays_no_part(
    policy: CachePolicy, name: str, inputs: dict[str, int], other: Any
) -> None:
    """Whatever it is, also where it cannot be hashed."""
    taken_out = policy - name
    assert key(taken_out, inputs) == key(taken_out, inputs | {name: other})
    assert key(taken_out, inputs) == key(taken_out, inputs | {name: threading.Lock()})


@given(sums, names)
def test_settings_are_kept(policy: CachePolicy, name: str) -> None:
    """Where keys are kept survives sums and differences, from either side."""
    if policy == NO_CACHE:
        return
    configured = policy.configure(key_storage="/keys")
    for made in (
        configured - name,
        configured + RUN_ID,
        RUN_ID + configured,
        configured + NO_CACHE,
    ):
        assert made.key_storage == "/keys"
    assert policy.key_storage is None
    assert configured.configure() == policy


def test_two_places_for_keys_cannot_be_added() -> None:
    """A key is looked up in one place."""
    with pytest.raises(DefinitionError, match="'/a' and '/b'"):
        INPUTS.configure(key_storage="/a") + RUN_ID.configure(key_storage="/b")


@given(sums)
def test_policies_survive_pickle_and_say_what_they_are(policy: CachePolicy) -> None:
    """They travel to workers; their text is what one would write."""
    again = pickle.loads(pickle.dumps(policy))
    assert key(again) == key(policy)
    assert repr(again) == repr(policy)


def test_their_texts_are_what_one_would_write() -> None:
    """A policy shows itself as a sum of the names that users import."""
    assert repr(DEFAULT) == "INPUTS + TASK_SOURCE + RUN_ID"
    assert repr(RUN_ID + (TASK_SOURCE + INPUTS) - "rng") == "INPUTS - 'rng' + TASK_SOURCE + RUN_ID"
    assert repr(NO_CACHE) == "NO_CACHE"
    assert repr(CachePolicy.from_cache_key_fn(by_x)) == "CachePolicy.from_cache_key_fn(by_x)"


def test_policies_never_change() -> None:
    """What several tasks share cannot be changed for one of them."""
    with pytest.raises(AttributeError, match="do not change"):
        INPUTS.key_storage = "/keys"
    with pytest.raises(DefinitionError, match="by its name"):
        INPUTS - 3  # type: ignore[operator]  # on purpose
    with pytest.raises(TypeError):
        INPUTS + "rng"


# What keys are made from ---------------------------------------------------------------------------------


def test_inputs_count_by_content() -> None:
    """Equal arguments give one key, in whatever order; one that cannot be hashed is named."""
    assert key(INPUTS, {"x": [1], "y": {2}}) == key(INPUTS, {"y": {2}, "x": [1]})
    assert key(INPUTS, {"x": 1}) != key(INPUTS, {"x": 2}) != key(INPUTS, {"y": 2})
    assert key(INPUTS, {}) == key(INPUTS, {}) is not None
    with pytest.raises(NoFingerprint, match=r"argument 'lock': a '_thread\.lock'"):
        key(INPUTS, {"lock": threading.Lock()})


def test_the_source_counts_with_what_it_closes_over() -> None:
    """Two tasks of the same code are different where what they close over is."""

    def scaled(factor: Any) -> Callable[[int], int]:
        return lambda x: factor * x

    assert key(TASK_SOURCE, task=scaled(2)) == key(TASK_SOURCE, task=scaled(2))
    assert key(TASK_SOURCE, task=scaled(2)) != key(TASK_SOURCE, task=scaled(3))
    assert key(TASK_SOURCE, task=double) != key(TASK_SOURCE, task=by_x)
    with pytest.raises(NoFingerprint, match="closes over"):
        key(TASK_SOURCE, task=scaled(threading.Lock()))


def test_flow_parameters_and_the_run_count() -> None:
    """Without a flow there are no parameters, and no key."""
    assert key(FLOW_PARAMETERS, flow={"a": 1}) != key(FLOW_PARAMETERS, flow={"a": 2})
    assert key(FLOW_PARAMETERS) is None
    assert key(RUN_ID) == "run-1"
    assert key(FLOW_PARAMETERS + RUN_ID) is not None
    with pytest.raises(NoFingerprint, match="flow parameter 'a'"):
        key(FLOW_PARAMETERS, flow={"a": threading.Lock()})


def test_policies_of_users_give_their_own_keys() -> None:
    """Subclasses and functions; None from all parts of a sum means no caching."""
    assert key(Static("mine")) == "mine"
    assert key(Settings("lr"), {"x": 1}) == "lr-1"
    assert key(CachePolicy.from_cache_key_fn(by_x)) == "double-1"
    assert key(CachePolicy.from_cache_key_fn(by_x), {"x": None}) is None
    assert key(Static("")) is None
    assert key(Static("") + FLOW_PARAMETERS) is None
    assert key(Static("mine") + INPUTS) not in (None, "mine")
    with pytest.raises(NotImplementedError, match="compute_key"):
        key(CachePolicy())
    with pytest.raises(DefinitionError, match="function"):
        CachePolicy.from_cache_key_fn("key")  # type: ignore[arg-type]  # on purpose


def test_tasks_are_told_apart_by_where_they_are_defined() -> None:
    """By module and name; by their content, where functions make them."""
    assert task_in_key(double) == "tests.results.test_policies:double"
    made = [lambda x, n=n: n for n in (1, 2)]
    assert task_in_key(made[0]) != task_in_key(made[1])
