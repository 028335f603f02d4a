"""The errors: each survives pickle, is documented, and stands in the tree where the docstring draws it."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from dflow import errors
from dflow.errors import DflowError

SAMPLES: dict[str, Any] = {"str": "text", "int": 7, "float": 0.5, "bool": True}


def every_error() -> list[type[DflowError]]:
    """Return the classes that the module defines, in their order."""
    defined = [value for value in vars(errors).values() if isinstance(value, type)]
    return [cls for cls in defined if cls.__module__ == errors.__name__]


def filled(cls: type[DflowError]) -> DflowError:
    """Return an error of this class, with a value for each of its own attributes."""
    parameters = inspect.signature(inspect.getattr_static(cls, "__init__")).parameters.values()
    named = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return cls("What happened. What to do.", **{p.name: SAMPLES[p.annotation] for p in named})


def drawn_tree() -> dict[str, str | None]:
    """Return {class: its parent} as the module's docstring draws it."""
    above: list[tuple[int, str]] = []
    parents: dict[str, str | None] = {}
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]  # it has one
        row = re.match(r"    ([│├└─ ]*)(\w+)(?:\s{2,}\S|$)", line)
        if row is None:
            continue
        depth, name = len(row[1]), row[2]
        above = [(d, n) for d, n in above if d < depth]
        parents[name] = above[-1][1] if above else None
        above.append((depth, name))
    return parents


@pytest.mark.parametrize("cls", every_error())
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_survives_pickle(cls: type[DflowError], protocol: int) -> None:
    """An error comes back from pickle with its type, its message, its attributes and its notes."""
    error = filled(cls)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("cls", every_error())
def test_shows_its_message(cls: type[DflowError]) -> None:
    """An error shows the message it was given, whatever else it carries."""
    assert str(filled(cls)) == "What happened. What to do."


@pytest.mark.parametrize("cls", every_error())
def test_has_a_docstring(cls: type[DflowError]) -> None:
    """Every error says itself what it means, and does not inherit the words of another."""
    assert vars(cls).get("__doc__")


def test_tree_is_the_one_that_is_drawn() -> None:
    """The docstring draws every error, below the class it is derived from."""
    real = {cls.__name__: cls.__mro__[1].__name__ for cls in every_error()}
    assert drawn_tree() == real | {"DflowError": None}
