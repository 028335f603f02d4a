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
from operator import attrgetter
from typing import Any, TypeVar

from dflow.core import events as ev

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
    data = {}
    cls: Any = type(value)
    named, items = _shape(cls)
    for (name, default), item in zip(named, items(value), strict=True):
        if item is not default and item != default:
            data[name] = item if type(item) in _ATOMS else _plain(item)
    return data


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
def _shape(cls: Any) -> tuple[tuple[tuple[str, Any], ...], Callable[[Any], tuple[Any, ...]]]:
    """Return the names and defaults of the fields, and what gets all their values at once."""
    named = _defaults(cls)
    if len(named) > 1:
        return named, attrgetter(*(name for name, _ in named))
    return named, lambda value: tuple(getattr(value, name) for name, _ in named)


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
