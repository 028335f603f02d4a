"""Finding and replacing what stands in arguments: `swap`, and the arguments of a call with their values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.attempts.calls import Call, resolved, swap
from dflow.messages import Ref
from tests.attempts.shapes import Bag, Box, CheckedBox, Table, containers

KINDS = sorted(containers(Ref("x")))


def put(value: Any, **values: Any) -> Any:
    """Return `value` with values in the place of references."""
    return swap(value, lambda ref: values[ref.task_run_id], Ref)


@pytest.mark.parametrize("kind", KINDS)
def test_a_leaf_is_found_in_every_container(kind: str) -> None:
    """Whatever holds a reference comes back as its equal that holds the value, of the same class."""
    swapped, wanted = put(containers(Ref("x"))[kind], x="value"), containers("value")[kind]
    assert swapped == wanted
    assert type(swapped) is type(wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_no_leaf_is_the_same_object(kind: str) -> None:
    """Nothing is copied without need: not even what equals the original would do for a lock or a model."""
    value = containers("plain")[kind]
    assert put(value) is value


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_is_never_changed(kind: str) -> None:
    """The user's own containers keep their futures."""
    value = containers(Ref("x"))[kind]
    before = copy.deepcopy(value)
    put(value, x="value")
    assert value == before


def test_what_a_container_has_of_its_own_is_kept() -> None:
    """Attributes of a list of the user's class, and the order of a dict, survive."""
    bag = Bag([Ref("x")])
    bag.label = "mine"
    assert put(bag, x=1).label == "mine"
    assert list(put({"b": 1, "a": Ref("x"), "c": 2}, x=1)) == ["b", "a", "c"]


def test_every_field_of_a_dataclass_is_searched() -> None:
    """A field that the constructor does not take is no hiding place, and no check runs again."""
    swapped = put(CheckedBox(Ref("x"), "sesame"), x=1)
    assert (swapped.content, swapped.seen) == (1, 1)


def test_classes_are_no_containers() -> None:
    """A dataclass or a model as such is a value, though it has fields."""
    assert put([Box, Table]) == [Box, Table]


def test_two_places_get_one_value() -> None:
    """The same reference in two places becomes the same object in both."""
    value = object()
    swapped = put([Ref("x"), {"a": Ref("x")}], x=value)
    assert swapped[0] is swapped[1]["a"] is value


def test_a_value_is_not_searched_again() -> None:
    """What is put in place is taken as it is, whatever it holds itself."""
    assert put([Ref("x")], x=[Ref("y")]) == [[Ref("y")]]


nested = st.recursive(
    st.integers() | st.text("abc") | st.none() | st.builds(Ref, st.sampled_from("ab")),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.builds(Box, inner)
    ),
)


def count_refs(value: Any) -> int:
    """Count references by looking, in another way than `swap` does."""
    return repr(value).count("Ref(")


@given(nested)
def test_all_leaves_at_any_depth_are_swapped(value: Any) -> None:
    """For any nesting: all references go, each called once, and nothing else changes."""
    seen: list[Ref] = []

    def change(ref: Ref) -> tuple[str, str]:
        seen.append(ref)
        return ("was", ref.task_run_id)

    before = copy.deepcopy(value)
    swapped = swap(value, change, Ref)
    assert value == before
    assert len(seen) == count_refs(before)
    assert count_refs(swapped) == 0
    assert (swapped is value) == (not seen)


def test_resolved_gives_arguments_with_values() -> None:
    """References in positional, named and shared arguments get their values; nobody else is copied."""
    plain = [1, 2]
    call = Call(print, (Ref("x"), plain), {"b": [Ref("y")]}, {"c": Ref("x")}, has_refs=True)
    args, kwargs = resolved(call, {"x": 1, "y": 2})
    assert (args, kwargs) == ((1, plain), {"b": [2], "c": 1})
    assert args[1] is plain


def test_an_argument_of_the_item_wins_over_a_shared_one() -> None:
    """What an item has of its own counts, and without references nothing is searched."""
    call = Call(print, (), {"a": 1}, {"a": 2, "b": Ref("x")})
    assert resolved(call, {}) == ((), {"a": 1, "b": Ref("x")})
