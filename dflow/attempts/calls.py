"""A call of a task's function, with references where values of other task runs belong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from dflow.attempts.names import NameRule
from dflow.messages import Ref


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments by name. `has_refs` says whether any `Ref` is among them.

    `shared` are arguments that many calls have in common (``unmapped``): the same object in each. `named` is
    the rule by which the run is named once the values are there: whose it is, of which argument, the rule.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    has_refs: bool = False
    named: tuple[str, str, NameRule] | None = None


def swap(value: Any, change: Callable[[Any], Any], leaf: type | tuple[type, ...]) -> Any:
    """Return `value` with every instance of `leaf` in it replaced by ``change(instance)``.

    Looks into lists, tuples, named tuples, sets, dicts (keys too), dataclasses and pydantic models, at
    any depth. What holds no leaf comes back as the very same object; what does is copied, never changed,
    and keeps its class.
    """
    if isinstance(value, leaf):
        return change(value)
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, tuple | list | set | frozenset):
        items = [swap(item, change, leaf) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return _filled(value, items)
    if isinstance(value, dict):
        return _swap_dict(value, change, leaf)
    if is_dataclass(value) and not isinstance(value, type):
        return _swap_dataclass(value, change, leaf)
    if _is_model(value):
        before = fields_of(value)
        after = {name: swap(item, change, leaf) for name, item in before.items()}
        updates = {name: item for name, item in after.items() if item is not before[name]}
        return value.model_copy(update=updates) if updates else value
    return value


_ATOMS = frozenset({int, float, str, bytes, bool, type(None), complex})


def _filled(value: Any, items: list[Any]) -> Any:
    """Return a sequence or set like `value`, with other items."""
    kind = type(value)
    if kind in (list, set):
        return kind(items)
    if isinstance(value, tuple | frozenset):
        return kind(*items) if hasattr(value, "_fields") else kind(items)
    filled = copy(value)
    filled.clear()
    (filled.extend if isinstance(filled, list) else filled.update)(items)
    return filled


def _swap_dict(
    value: dict[Any, Any], change: Callable[[Any], Any], leaf: type | tuple[type, ...]
) -> dict[Any, Any]:
    pairs = [(swap(k, change, leaf), swap(v, change, leaf)) for k, v in value.items()]
    if all(a is k and b is v for (a, b), (k, v) in zip(pairs, value.items(), strict=True)):
        return value
    changed = {} if type(value) is dict else copy(value)
    changed.clear()
    for key, item in pairs:
        changed[key] = item
    return changed


def _swap_dataclass(value: Any, change: Callable[[Any], Any], leaf: type | tuple[type, ...]) -> Any:
    updates = {}
    for item in fields(value):
        before = getattr(value, item.name, None)
        after = swap(before, change, leaf)
        if after is not before:
            updates[item.name] = after
    if not updates:
        return value
    changed = copy(value)
    for name, after in updates.items():
        object.__setattr__(
            changed, name, after
        )  # it may be frozen; made anew, it would check itself again
    return changed


def fields_of(model: Any) -> dict[str, Any]:
    """Return what a pydantic model holds, by name, whatever it says when it is iterated over."""
    held = vars(model)
    declared = {name: held[name] for name in type(model).model_fields if name in held}
    return declared | (model.__pydantic_extra__ or {})


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
