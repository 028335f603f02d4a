"""Finding and replacing what stands in arguments: `swap`, and the arguments of a call with their values."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.attempts.calls import Call, Listed, Quoted, resolved, swap
from dflow.attempts.capture import capture
from dflow.attempts.failures import Failure
from dflow.errors import CancelledError, TaskFailedError
from dflow.messages import Ref
from dflow.results.pickling import dumps, loads
from tests.attempts.shapes import Bag, Box, CheckedBox, Numbered, Table, containers

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
    numbered = Numbered(Ref("x"))
    numbered.label = "mine"
    assert put(numbered, x=1).label == "mine"
    assert put(deque([Ref("x")], maxlen=2), x=1).maxlen == 2
    assert put(defaultdict(list, a=Ref("x")), x=1)["b"] == []
    assert list(put({"b": 1, "a": Ref("x"), "c": 2}, x=1)) == ["b", "a", "c"]


def test_a_view_of_a_dict_that_cannot_be_changed_is_searched() -> None:
    """It comes back as such a view, or as it is."""
    proxy = MappingProxyType({"a": Ref("x")})
    assert put(proxy, x=1) == MappingProxyType({"a": 1})
    assert type(put(proxy, x=1)) is MappingProxyType
    plain = MappingProxyType({"a": 1})
    assert put(plain) is plain


def test_what_stands_in_several_places_stays_one_thing() -> None:
    """A container that is shared is searched once, and what comes of it is shared as well."""
    shared = [Ref("x")]
    swapped = put([shared, {"a": shared}], x=1)
    assert swapped == [[1], {"a": [1]}]
    assert swapped[0] is swapped[1]["a"]
    deep: list[Any] = [Ref("x")]
    for _ in range(100):
        deep = [deep, deep]
    assert put(deep, x=1) is not deep


def test_objects_that_are_made_on_the_way_are_not_mistaken() -> None:
    """A field that is made anew whenever it is read is searched each time."""

    @dataclass
    class Fleeting:
        made: Any

    def read(self: Fleeting) -> Any:
        return [Ref(vars(self)["name"])]

    def write(self: Fleeting, value: Any) -> None:
        vars(self)["name"] = value

    Fleeting.made = property(read, write)
    swapped: list[Any] = []
    swap([Fleeting(str(n)) for n in range(50)], lambda ref: swapped.append(ref.task_run_id), Ref)
    assert swapped == [str(n) for n in range(50)]


@pytest.mark.parametrize("kind", ["list", "dict value", "dataclass", "model"])
def test_what_contains_itself_is_found_out(kind: str) -> None:
    """There would be no end to it."""
    holder: list[Any] = []
    holder.append(containers("plain")[kind])
    inner: Any = holder[0]
    if kind == "list":
        inner.append(holder)
    elif kind == "dict value":
        inner["me"] = holder
    elif kind == "dataclass":
        inner.content = holder
    else:
        vars(inner)["content"] = holder
    with pytest.raises(RecursionError, match="contains itself"):
        put(holder)


class Several(Listed):
    """Something that is listed."""

    def __iter__(self) -> Iterator[Any]:
        """Yield what it has."""
        return iter([Ref("x"), 2])


def test_what_is_listed_becomes_a_list() -> None:
    """At the top and inside; nothing else of it is left."""
    assert put(Several(), x=1) == [1, 2]
    assert put({"a": Several()}, x=1) == {"a": [1, 2]}


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


def test_quoted_values_are_given_as_they_are() -> None:
    """They are not searched, whatever is in them, and are the very same object."""
    value: list[Any] = [Ref("x")]
    value.append(value)
    args, kwargs = resolved(
        Call(print, ([Quoted(value)],), {"a": Quoted(value)}, has_refs=True), {}
    )
    assert args[0][0] is kwargs["a"] is value


def unpicklable() -> ValueError:
    """Return an exception that does not survive a pickle."""
    error = ValueError("no")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    return error


def test_failures_become_exceptions() -> None:
    """Where they were raised they are given as they are, whether as a value or as an argument."""
    error = unpicklable()
    call = Call(print, (Ref("x", may_fail=True), [Failure("f", live=error)]), has_refs=True)
    args, _ = resolved(call, {"x": Failure("f", live=error)})
    assert args[0] is args[1][0] is error


def test_failures_travel() -> None:
    """Elsewhere they are rebuilt, as well as that is possible; words and chain are kept."""
    key_error = loads(dumps(Failure("f", live=KeyError("a")))).exception()
    assert repr(key_error) == "KeyError('a')"
    told = loads(dumps(Failure("f", live=unpicklable()))).exception()
    assert isinstance(told, TaskFailedError)
    assert "'f' raised ValueError: no" in str(told)
    in_words = loads(dumps(Failure("f", "Cancelled"))).exception()
    assert isinstance(in_words, CancelledError)
    below = Failure("c", "UpstreamFailed", "c ← a", capture(KeyError("a")), None, "Failed", "a")
    noted = loads(dumps(below)).exception()
    assert repr(noted) == "KeyError('a')"
    assert noted.__notes__ == ["'c' did not run. c ← a"]
