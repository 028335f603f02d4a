"""Containers of every kind, as users define them."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from typing import Any, NamedTuple

import pydantic


class Pair(NamedTuple):
    """A named tuple."""

    left: Any
    right: Any


class Bag(list[Any]):
    """A list with something of its own."""

    label = ""


class Group(set[Any]):
    """A set of a class of its own."""


class Table(dict[Any, Any]):
    """A dict of a class of its own."""


@dataclass
class Box:
    """A dataclass."""

    content: Any
    note: str = ""


@dataclass(frozen=True)
class FrozenBox:
    """A dataclass that does not change."""

    content: Any


@dataclass(frozen=True, slots=True)
class SlottedBox:
    """A dataclass without a dict."""

    content: Any


@dataclass
class CheckedBox:
    """A dataclass that can be made only once: with an argument that it does not keep, and a check."""

    content: Any
    secret: InitVar[str]
    seen: Any = field(init=False)

    def __post_init__(self, secret: str) -> None:
        """Refuse all but the right word."""
        if secret != "sesame":
            raise ValueError(secret)
        self.seen = self.content


class Model(pydantic.BaseModel):
    """A model."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, frozen=True, extra="allow")

    content: Any
    note: str = ""


class Rows(pydantic.RootModel[list[Any]]):
    """A model that is iterated over as its rows, as pydantic's manual recommends."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # as in the manual
        """Yield the rows."""
        return iter(self.root)


def containers(item: Any) -> dict[str, Any]:
    """Return one container of each kind that holds `item`, which must be hashable, by name."""
    bag = Bag([item, 1])
    bag.label = "kept"
    counted: Counter[Any] = Counter({item: 3})
    by_default: defaultdict[str, Any] = defaultdict(list, a=item)
    return {
        "list": [1, item],
        "tuple": (item, 2),
        "named tuple": Pair(item, 2),
        "set": {item, 5},
        "frozenset": frozenset({item, 5}),
        "dict value": {"a": item, "b": 1},
        "dict key": {item: 1},
        "ordered dict": OrderedDict(b=1, a=item),
        "default dict": by_default,
        "counter": counted,
        "dict of a class": Table(a=item),
        "list of a class": bag,
        "set of a class": Group({item}),
        "dataclass": Box(item, "x"),
        "frozen dataclass": FrozenBox(item),
        "slotted dataclass": SlottedBox(item),
        "checked dataclass": CheckedBox(item, "sesame"),
        "model": Model(content=item, note="x"),
        "model with more": Model.model_validate({"content": 0, "more": item}),
        "root model": Rows([item]),
        "deep": {"a": [({"b": Box([item])},)]},
    }
