"""Plain data: numbers, texts, bytes, None, tuples and dicts; and the records that are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec


class Plain(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A record of numbers, texts, bytes, enums, tuples of these, and other records like it.

    None of them can be part of a cycle, so the collector of cycles is told not to look at them: a run has
    hundreds of thousands. What has its default is left out where it is written.
    """


P = TypeVar("P", bound=Plain)


def _simple(value: Any) -> Any:
    """Return plain data of a derived class, as numpy's float64 is, as plain data."""
    for kind, simple in _SIMPLE:
        if isinstance(value, kind):
            return simple(value)
    raise TypeError(f"'{type(value).__qualname__}' is not plain data.")


_SIMPLE: tuple[tuple[type, Any], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes(memoryview(value))),
)

packed = msgspec.msgpack.Encoder(enc_hook=_simple).encode
"""Return plain data, records among it, as msgpack: of records what `plain` makes of them.

Raises TypeError for what is not plain data, and UnicodeEncodeError for lone surrogates.
"""


def plain(value: Any) -> Any:
    """Return plain data without the records in it: their fields, but for those that have their default.

    Raises TypeError for what is not plain data.
    """
    return msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_simple)


def build(cls: type[P], data: Mapping[str, Any]) -> P:
    """Return the record whose `plain` data this is; unknown fields are left out.

    Raises ValueError when a field that has no default is missing, or one is of another type.
    """
    try:
        return msgspec.convert(data, cls)
    except msgspec.ValidationError as error:
        raise ValueError(f"{cls.__name__}: {error}") from None
