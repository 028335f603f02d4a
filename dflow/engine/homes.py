"""What comes home: a definition that returns, pickled, to the process that made it is itself again.

A task that is not found by its name travels by value. What its driver gets back from a worker must be the
task that the user has, not a copy of it: its hooks share their globals with the rest of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from dflow.engine import system

T = TypeVar("T")

_at_home: WeakValueDictionary[str, Any] = WeakValueDictionary()


def token_of(definition: Any) -> str:
    """Return the name of a definition that no other has, in any process, made at its first use."""
    known: str | None = vars(definition).get("_home_token")
    if known is not None:
        return known
    token = system.SystemIds().run_id()
    vars(definition)["_home_token"] = token
    _at_home[token] = definition
    return token


def come(token: str, make: Callable[..., T], *args: Any) -> T:
    """Return the definition that was pickled: itself where it was made, elsewhere a copy."""
    original: T | None = _at_home.get(token)
    if original is not None:
        return original
    copy = make(*args)
    vars(copy)["_home_token"] = token
    return copy
