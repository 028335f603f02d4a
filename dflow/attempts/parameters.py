"""The arguments of a call by the names of the parameters, as run names and `current_run` show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def by_name(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call that fits `function`, those left at their defaults included."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
