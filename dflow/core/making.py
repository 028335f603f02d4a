"""Frozen records made quickly: the engine makes several for every task run.

A frozen dataclass fills its fields one by one through ``object.__setattr__``, and ``dataclasses.replace``
does more; together that took longer than all else that happens to a small task run. Here an object is filled
while it is of a class that has the same slots and lets itself be filled, and then it is given its own class:
what comes out is the same as ever, frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any, TypeVar, cast

T = TypeVar("T")


def swift(cls: type[T]) -> type[T]:
    """Let a frozen dataclass with slots be made quickly; it takes the same arguments as before."""
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"'{cls.__name__}' looks at its fields when it is made.")
    own: Any = cls
    names: dict[str, Any] = {"_Draft": _draft(own), "_Own": cls, "_become": _become}
    made = _fields(cls)
    by_place = [_parameter(f, names) for f in made if not f.kw_only]
    by_name = [_parameter(f, names) for f in made if f.kw_only]
    parameters = ["self", *by_place, *(["*", *by_name] if by_name else [])]
    body = ["_become(self, _Draft)", *(_filled(f) for f in made), "self.__class__ = _Own"]
    init = compiled(f"def __init__({', '.join(parameters)}):", body, names)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = dict(cls.__init__.__annotations__)
    cls.__init__ = init  # type: ignore[method-assign]  # it takes the same arguments
    return cls


@cache
def changer(cls: Any) -> Callable[[Any, Mapping[str, Any]], Any]:
    """Return what makes an object like another one of `cls` but for some fields: a quick ``replace``."""
    names: dict[str, Any] = {"_Draft": _draft(cls), "_Own": cls, "_set": object.__setattr__}
    body = [
        "made = _Draft()",
        *(f"made.{f.name} = old.{f.name}" for f in _fields(cls)),
        "for name, value in changes.items():",
        "    _set(made, name, value)",
        "made.__class__ = _Own",
        "return made",
    ]
    return cast(
        "Callable[[T, Mapping[str, Any]], T]", compiled("def _(old, changes):", body, names)
    )


def altered(thing: T, **changes: Any) -> T:
    """Return an object like `thing` but for some fields: ``dataclasses.replace`` for where it counts."""
    kind: Any = type(thing)
    return cast("T", changer(kind)(thing, changes))


_become = cast("Any", object.__dict__["__class__"]).__set__


@cache
def _draft(cls: Any) -> type:
    """Return a class whose objects are laid out as those of `cls`, and can be filled."""
    own = {
        "__slots__": cls.__slots__,
        "__setattr__": object.__setattr__,
        "__delattr__": object.__delattr__,  # one slot of the type serves both
        "__init__": object.__init__,
        "__doc__": "An object that is being filled.",
    }
    return type("_Draft", cls.__bases__, own)


def _fields(cls: Any) -> tuple[Field[Any], ...]:
    return fields(cls)


def _parameter(f: Field[Any], names: dict[str, Any]) -> str:
    """Return a field as a parameter; its default goes into `names`."""
    if f.default is not MISSING:
        names[f"_default_{f.name}"] = f.default
        return f"{f.name}=_default_{f.name}"
    if f.default_factory is not MISSING:
        names[f"_make_{f.name}"] = f.default_factory
        names["_MISSING"] = MISSING
        return f"{f.name}=_MISSING"
    return f.name


def _filled(f: Field[Any]) -> str:
    """Return the line that fills a field."""
    if f.default_factory is MISSING:
        return f"self.{f.name} = {f.name}"
    return f"self.{f.name} = _make_{f.name}() if {f.name} is _MISSING else {f.name}"


def compiled(head: str, body: list[str], names: dict[str, Any]) -> Any:
    """Return the function with this head and the lines of its body; `names` are what it knows."""
    before = set(names)
    exec("\n    ".join([head, *body]), names)  # as dataclasses do: nothing of it comes from outside
    return next(value for name, value in names.items() if name not in before | {"__builtins__"})
