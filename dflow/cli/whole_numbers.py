"""Whole numbers on the command line stay what they are: cyclopts would round 2.5 to 2.

`keep` is for ``App(config=…)``: there cyclopts shows what was given for each parameter before it converts.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from types import NoneType
from typing import Any, Optional, get_args

from cyclopts import App, ArgumentCollection, CoercionError, Parameter, Token, convert


def keep(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Make each parameter refuse a number with a fraction where its type wants a whole one."""
    for argument in arguments:
        if argument.parameter.converter is None:  # else the user has chosen one
            may_be_none = NoneType in get_args(argument.hint)
            ours = Parameter(converter=partial(_converted, may_be_none))
            argument.parameter = Parameter.combine(argument.parameter, ours)


def _converted(may_be_none: bool, kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert as cyclopts does, which takes None out of the type before it asks us."""
    return convert(Optional[kind] if may_be_none else kind, tokens, converter=_single)  # noqa: UP045  (made at run time)


def _single(kind: type, value: str) -> Any:
    """Convert what belongs together to one value of a kind. Raises ValueError, or a CoercionError."""
    try:
        converted = convert(kind, [value])
    except OverflowError:
        raise ValueError(f"{value} is too large") from None
    except CoercionError as error:
        error.token = None  # so that cyclopts puts in the one that the user wrote, with its name
        raise
    if kind is int and "." in value and Decimal(value) != converted:
        raise ValueError(f"{value} is no whole number")
    return converted
