"""The four kinds of functions that a body can be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import partial
from types import FunctionType
from typing import Any


class Kind(Enum):
    """How a function gives its result."""

    PLAIN = "plain"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def native(self) -> bool:
        """Whether it runs on its caller's event loop when it is called."""
        return self in (Kind.COROUTINE, Kind.ASYNC_GENERATOR)

    @property
    def hands_out(self) -> bool:
        """Whether it gives its result item by item."""
        return self in (Kind.GENERATOR, Kind.ASYNC_GENERATOR)


_MANY = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def kind_of(function: Callable[..., Any]) -> Kind:
    """Return the kind of a function, of a partial of one, or of an object that can be called."""
    while isinstance(function, partial):
        function = function.func
    if not isinstance(function, FunctionType):
        method = getattr(function, "__func__", type(function).__call__)
        if not isinstance(method, FunctionType):
            return Kind.PLAIN
        function = method
    if not function.__code__.co_flags & _MANY and not (
        function.__dict__ and inspect.iscoroutinefunction(function)
    ):
        return Kind.PLAIN  # what is in the dict may mark a function as a coroutine function
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_GENERATOR
    return Kind.GENERATOR if inspect.isgeneratorfunction(function) else Kind.COROUTINE
