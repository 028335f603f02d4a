"""Events and records as plain data, and back: what a journal keeps of them.

An event becomes ``(kind, version, fields)`` where fields hold only str, int, float, bool, None, bytes,
lists and dicts. An unknown kind comes back as None and an unknown field is left out, so that a journal
written by another version stays readable.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, partial
from typing import Any, TypeVar

from dflow.core import events as ev
from dflow.core.making import compiled

Fields = dict[str, Any]
T = TypeVar("T")


def _is_kind(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, ev.Event) and not thing.__subclasses__()


KINDS: dict[str, type[ev.Event]] = {
    name: thing for name, thing in vars(ev).items() if _is_kind(thing)
}
"""Every kind of event by the name under which journals keep it."""


def encode(event: ev.Event) -> tuple[str, int, Fields]:
    """Return an event as its kind, the version of its fields, and its fields."""
    return type(event).__name__, event.version, plain(event)


def decode(kind: str, version: int, data: Mapping[str, Any]) -> ev.Event | None:
    """Return the event that `encode` was given, or None if its kind is not known here.

    Raises ValueError when a field that has no default is missing.
    """
    cls = KINDS.get(kind)
    if cls is None or version > cls.version:
        return None
    return build(cls, data)


def plain(value: Any) -> Fields:
    """Return the fields of a dataclass as plain data, leaving out those that have their default."""
    cls: Any = type(value)
    return plainer(cls)(value)


@cache
def plainer(cls: Any) -> Callable[[Any], Fields]:
    """Return what makes plain data of objects of a dataclass: compiled once, for it is done most of all."""
    hints = typing.get_type_hints(cls)
    names: dict[str, Any] = {"_plain": _plain, "plainer": plainer}
    lines = ["data = {}"]
    for name, default in _defaults(cls):
        said, kind = _in_plain(hints[name], name, names)
        lines.append(f"item = value.{name}")
        if default is MISSING:
            lines.append(f"data['{name}'] = {said}")
        else:
            names[f"_default_{name}"] = default
            differs = f"item is not _default_{name}"
            if not kind:
                differs += f" and item != _default_{name}"
            lines += [f"if {differs}:", f"    data['{name}'] = {said}"]
    made: Callable[[Any], Fields] = compiled("def _(value):", [*lines, "return data"], names)
    return made


def _in_plain(hint: Any, name: str, names: dict[str, Any]) -> tuple[str, bool]:
    """Return how to say `item`, of type `hint`, in plain data; and whether equal ones are identical."""
    inner = hint
    if typing.get_origin(hint) is types.UnionType:
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if inner in _ATOMS:
        return "item", False
    if typing.get_origin(inner) is tuple:
        parts = typing.get_args(inner)[0]
        if parts in _ATOMS:
            return "list(item)", False
        said, _ = _in_plain(parts, name, names)
        return f"[{said} for item in item]", False
    if isinstance(inner, type) and is_dataclass(inner):
        names[f"_of_{name}"] = plainer(inner)
        said = f"_of_{name}(item)"
    elif isinstance(inner, type) and issubclass(inner, Enum):
        said = "item._value_"
    else:
        return "_plain(item)", False
    return (said if inner is hint else f"None if item is None else {said}"), "_value_" in said


_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})


def _plain(value: Any) -> Any:
    if type(value) in _ATOMS:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return plain(value)
    return value


@cache
def _defaults(cls: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, f.default) for f in fields(cls))


def build(cls: type[T], data: Mapping[str, Any]) -> T:
    """Return the dataclass whose `plain` data this is; unknown fields are left out.

    Raises ValueError when a field that has no default is missing.
    """
    shape: Any = cls
    builders = _builders(shape)
    missing = [n for n, default in _defaults(shape) if default is MISSING and n not in data]
    if missing:
        raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**{name: builders[name](item) for name, item in data.items() if name in builders})


@cache
def _builders(cls: Any) -> dict[str, Callable[[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return {f.name: _builder(hints[f.name]) for f in fields(cls)}


def _builder(hint: Any) -> Callable[[Any], Any]:
    """Return the function that turns plain data into a value of type `hint`."""
    if typing.get_origin(hint) is types.UnionType:
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        build_inner = _builder(inner)
        return lambda item: None if item is None else build_inner(item)
    if typing.get_origin(hint) is tuple:
        build_item = _builder(typing.get_args(hint)[0])
        return lambda items: tuple(build_item(item) for item in items)
    if isinstance(hint, type) and is_dataclass(hint):
        return partial(build, hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return lambda item: item
