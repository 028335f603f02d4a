"""A call of a task's function, with references where values of other task runs belong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from dflow.messages import Ref


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments by name. `has_refs` says whether any `Ref` is among them.

    `shared` are arguments that many calls have in common (``unmapped``): the same object in each.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    has_refs: bool = False


def swap(value: Any, change: Callable[[Any], Any], leaf: type | tuple[type, ...]) -> Any:
    """Return `value` with every instance of `leaf` in it replaced by ``change(instance)``.

    Looks into lists, tuples, named tuples, sets, dicts (keys too), dataclasses and pydantic models, at
    any depth. What holds no leaf comes back as the very same object; what does is copied, never changed.
    """
    if isinstance(value, leaf):
        return change(value)
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, tuple):
        items = [swap(item, change, leaf) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return kind(*items) if hasattr(value, "_fields") else kind(items)
    for plain in (list, set, frozenset):
        if isinstance(value, plain):
            items = [swap(item, change, leaf) for item in value]
            if all(a is b for a, b in zip(items, value, strict=True)):
                return value
            return plain(items)
    if isinstance(value, dict):
        return _swap_dict(value, change, leaf)
    if is_dataclass(value) and not isinstance(value, type):
        return _swap_dataclass(value, change, leaf)
    if _is_model(value):
        updates = _swap_dict(dict(value), change, leaf, always=False)
        return value if updates is None else value.model_copy(update=updates)
    return value


_ATOMS = frozenset({int, float, str, bytes, bool, type(None), complex})


def _swap_dict(
    value: dict[Any, Any],
    change: Callable[[Any], Any],
    leaf: type | tuple[type, ...],
    always: bool = True,
) -> dict[Any, Any] | None:
    pairs = [(swap(k, change, leaf), swap(v, change, leaf)) for k, v in value.items()]
    same = all(a is k and b is v for (a, b), (k, v) in zip(pairs, value.items(), strict=True))
    if same:
        return value if always else None
    if type(value) is dict:
        return dict(pairs)
    changed = copy(value)
    changed.clear()
    changed.update(pairs)
    return changed


def _swap_dataclass(
    value: Any, change: Callable[[Any], Any], leaf: type | tuple[type, ...]
) -> Any:
    updates = {}
    for item in fields(value):
        before = getattr(value, item.name, None)
        after = swap(before, change, leaf)
        if after is not before and item.init:
            updates[item.name] = after
    return replace(value, **updates) if updates else value


def _is_model(value: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)


def resolved(call: Call, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of a call with the values of its references."""
    args, kwargs = call.args, {**call.shared, **call.kwargs}
    if call.has_refs:
        args = swap(args, lambda ref: values[ref.task_run_id], Ref)
        kwargs = swap(kwargs, lambda ref: values[ref.task_run_id], Ref)
    return args, dict(kwargs)
