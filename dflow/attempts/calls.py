"""A call of a task's function, with references where values of other task runs belong."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from dflow.attempts.failures import Failure
from dflow.attempts.names import NameRule
from dflow.messages import Ref


class Call(msgspec.Struct, frozen=True):
    """A function and its arguments by name. `has_refs` says whether any `STAND_INS` are among them.

    `shared` are arguments that many calls have in common (``unmapped``): the same object in each. `named` is
    the rule by which the run is named once the values are there: whose it is, of which argument, the rule.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = msgspec.field(default_factory=dict)
    shared: Mapping[str, Any] = msgspec.field(default_factory=dict)
    has_refs: bool = False
    named: tuple[str, str, NameRule] | None = None


@dataclass(frozen=True, slots=True)
class Quoted:
    """Stands in a call for a value in which nothing is looked for (``quote``, ``opaque``)."""

    value: Any


STAND_INS = (Ref, Quoted, Failure)
"""What stands in the arguments of a call for something else."""


class Listed:
    """A base of sequences in which `swap` looks as in a list, and that it leaves a plain list of."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        """Yield the items."""
        raise NotImplementedError


def swap(value: Any, change: Callable[[Any], Any], leaf: type | tuple[type, ...]) -> Any:
    """Return `value` with every instance of `leaf` in it replaced by ``change(instance)``.

    Looks into lists, tuples, named tuples, sets, deques, dicts (keys too), dataclasses and pydantic models,
    at any depth. What holds no leaf comes back as the very same object; what does is copied, never changed,
    and keeps its class. What is put in place of a leaf is not searched. Raises RecursionError for what
    contains itself, or is nested too deep.
    """
    if type(value) in ATOMS:
        return value
    return _Swapping(change, leaf).swapped(value)


ATOMS = frozenset({int, float, str, bytes, bool, type(None), complex})
"""Types of values that are never searched: nothing can be in them."""


class _Swapping:
    """One search: what is to be done with leaves, and the containers that were seen already."""

    __slots__ = ("_change", "_leaf", "_seen")

    def __init__(self, change: Callable[[Any], Any], leaf: type | tuple[type, ...]) -> None:
        self._change = change
        self._leaf = leaf
        self._seen: dict[int, tuple[Any, Any]] = {}

    def swapped(self, value: Any) -> Any:
        """Return a value with its leaves replaced."""
        if isinstance(value, self._leaf):
            return self._change(value)
        kind = type(value)
        if kind in ATOMS:
            return value
        look = _LOOKS.get(kind) or _look_for(value)
        if look is None:
            return value
        seen = self._seen.get(id(value))
        if seen is not None:
            if seen[1] is _OPEN:
                raise RecursionError("It contains itself.")
            return seen[1]
        self._seen[id(value)] = (value, _OPEN)
        made = look(self, value)
        self._seen[id(value)] = (value, made)  # what is kept here keeps its id
        return made

    def each(self, values: Any) -> tuple[list[Any], bool]:
        """Return the items of a container with their leaves replaced, and whether there were any."""
        items, changed = [], False
        for item in values:
            if type(item) in ATOMS:
                items.append(item)
                continue
            after = self.swapped(item)
            changed = changed or after is not item
            items.append(after)
        return items, changed


_OPEN = object()
_Look = Callable[[_Swapping, Any], Any]


def _in_items(search: _Swapping, value: Any) -> Any:
    items, changed = search.each(value)
    return _filled(value, items) if changed else value


def _filled(value: Any, items: list[Any]) -> Any:
    """Return a sequence or set like `value`, with other items."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return kind(items)
    if isinstance(value, tuple | frozenset):
        base = tuple if isinstance(value, tuple) else frozenset
        made = base.__new__(kind, items)  # its own constructor may take something else
        if hasattr(value, "__dict__"):
            vars(made).update(vars(value))
        return made
    filled = copy(value)
    filled.clear()
    (filled.update if isinstance(filled, set) else filled.extend)(items)
    return filled


def _in_listed(search: _Swapping, value: Listed) -> list[Any]:
    return search.each(value)[0]


def _in_dict(search: _Swapping, value: dict[Any, Any]) -> Any:
    keys, keys_changed = search.each(value)
    items, items_changed = search.each(value.values())
    if not (keys_changed or items_changed):
        return value
    changed = {} if type(value) is dict else copy(value)
    changed.clear()
    for key, item in zip(keys, items, strict=True):
        changed[key] = item
    return changed


def _in_proxy(search: _Swapping, value: MappingProxyType[Any, Any]) -> Any:
    before = dict(value)
    after = _in_dict(search, before)
    return value if after is before else MappingProxyType(after)


def _updates(search: _Swapping, before: Mapping[str, Any]) -> dict[str, Any]:
    after = {name: search.swapped(item) for name, item in before.items()}
    return {name: item for name, item in after.items() if item is not before[name]}


def _in_dataclass(search: _Swapping, value: Any) -> Any:
    names = [item.name for item in fields(value)]
    updates = _updates(search, {name: getattr(value, name, None) for name in names})
    if not updates:
        return value
    changed = copy(value)
    for name, after in updates.items():
        object.__setattr__(
            changed, name, after
        )  # it may be frozen; made anew, it would check itself again
    return changed


def _in_model(search: _Swapping, value: Any) -> Any:
    updates = _updates(search, fields_of(value))
    private = _updates(search, value.__pydantic_private__ or {})
    if not (updates or private):
        return value
    changed = value.model_copy(update=updates)
    if private:
        kept = value.__pydantic_private__ | private
        object.__setattr__(changed, "__pydantic_private__", kept)
    return changed


_LOOKS: dict[type, _Look] = {
    **dict.fromkeys((list, tuple, set, frozenset, deque), _in_items),
    dict: _in_dict,
    MappingProxyType: _in_proxy,
}


def _look_for(value: Any) -> _Look | None:
    """Return how to look into a value of a class that is not one of Python's own; None: not at all."""
    if isinstance(value, Listed):
        return _in_listed
    if isinstance(value, tuple | list | set | frozenset | deque):
        return _in_items
    if isinstance(value, dict):
        return _in_dict
    if is_dataclass(value) and not isinstance(value, type):
        return _in_dataclass
    return _in_model if _is_model(value) else None


def fields_of(model: Any) -> dict[str, Any]:
    """Return what a pydantic model holds, by name, whatever it says when it is iterated over."""
    held = vars(model)
    declared = {name: held[name] for name in type(model).model_fields if name in held}
    return declared | (model.__pydantic_extra__ or {})


def _is_model(value: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)


def resolved(call: Call, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of a call, with what its stand-ins stand for."""
    args, kwargs = call.args, {**call.shared, **call.kwargs}
    if not call.has_refs:
        return args, kwargs

    def change(stand_in: Any) -> Any:
        if isinstance(stand_in, Quoted):
            return stand_in.value
        found = values[stand_in.task_run_id] if isinstance(stand_in, Ref) else stand_in
        return found.exception() if isinstance(found, Failure) else found

    return swap(args, change, STAND_INS), dict(swap(kwargs, change, STAND_INS))
