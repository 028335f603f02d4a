"""Events as plain data, and back: what a journal keeps of them.

An event becomes ``(kind, version, fields)`` where fields hold only str, int, float, bool, None, bytes,
tuples and dicts. An unknown kind comes back as None and an unknown field is left out, so that a journal
written by another version stays readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dflow.core import events as ev
from dflow.core.plain import build, plain

Fields = dict[str, Any]


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

    Raises ValueError when a field that has no default is missing, or one is of another type.
    """
    cls = KINDS.get(kind)
    if cls is None or version > cls.version:
        return None
    return build(cls, data)
