"""Durations on the command line: a number and a unit, as in 45m, 12h, 30d or 2w."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
"""Seconds by unit."""

_DURATION = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smhdw])\s*")


def seconds_of(text: str) -> float:
    """Return how many seconds a duration has. Raises ValueError for a text that is none."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(
            f"'{text}' is not a duration. Write a number and a unit (s, m, h, d, w): 45m, 12h, 30d or 2w."
        )
    return float(found[1]) * UNITS[found[2]]


def _converted(_kind: type, tokens: Sequence[Token]) -> float:
    return seconds_of(tokens[0].value)


Duration = Annotated[float, Parameter(converter=_converted)]
"""A parameter that takes a duration, in seconds."""
