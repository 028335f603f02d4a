"""Containers of every kind, as users define them."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from typing import Any, NamedTuple

import pydantic


class Pair(NamedTuple):
    """A named tuple."""

    left: Any
    right: Any


class Named(Pair):
    """A named tuple of a class of its own."""


class Numbered(tuple[Any, ...]):
    """A tuple that is made from something else than its items, and has something of its own."""

    label = ""

    def __new__(cls, first: Any, *others: Any) -> Numbered:
        """Make it from its items, one by one."""
        return super().__new__(cls, (first, *others))

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return what a copy is made from."""
        return tuple(self)


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


class Guarded(pydantic.BaseModel):
    """A model that keeps something to itself."""

    name: str = "guarded"
    _secret: Any = pydantic.PrivateAttr(None)

    @classmethod
    def of(cls, secret: Any) -> Guarded:
        """Make one with a secret."""
        made = cls()
        made._secret = secret
        return made


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
        "named tuple of a class": Named(item, 2),
        "tuple of a class": Numbered(item, 2),
        "deque": deque([1, item], maxlen=3),
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
        "model in a model": Model(content=Model(content=[item])),
        "model with a secret": Guarded.of(item),
        "root model": Rows([item]),
        "deep": {"a": [({"b": Box([item])},)]},
    }
