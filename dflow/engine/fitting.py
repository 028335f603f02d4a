"""Whether a value fits its parameter, and what is said if it does not.

Only what has annotations imports this module: it brings pydantic's machinery along.
"""

from __future__ import annotations

import inspect
import logging
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dflow.engine import hints

_log = logging.getLogger("dflow.engine")
MAX_PROBLEMS = 10
"""How many problems of one parameter are shown."""
MAX_TEXT = 300
"""How many characters of a value, or of a reason, are shown."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a value does not fit; `cause` is what a validator of the user's own raised."""

    reason: str
    cause: Exception | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What the values of one parameter go through."""

    parameter: inspect.Parameter
    adapter: hints.Adapter

    @property
    def name(self) -> str:
        """Return the name of the parameter."""
        return self.parameter.name

    def passed(self, value: Any, problems: list[Problem]) -> Any:
        """Return a value as the function is to get it; if it does not fit, add to `problems`."""
        if value is None and self.parameter.default is None:
            return None  # many write `x: int = None`: who gives the default means the default
        try:
            return self.adapter.validate_python((value,))[0]
        except ValidationError as error:
            problems += self._problems(error)
        except Exception as error:
            raised = f"its validation raised {type(error).__name__}: {_guarded(str, error)}"
            problems.append(
                Problem(f"'{self.name}': {_line(raised)} (given: {shown(value)})", error)
            )
        return value

    def _problems(self, error: ValidationError) -> list[Problem]:
        details = error.errors(include_url=False)
        problems = [
            Problem(
                f"'{self._place(each['loc'])}': {_line(each['msg'])} (given: {shown(each['input'])})"
            )
            for each in details[:MAX_PROBLEMS]
        ]
        if len(details) > MAX_PROBLEMS:
            problems.append(Problem(f"'{self.name}': … and {len(details) - MAX_PROBLEMS} more"))
        return problems

    def _place(self, loc: tuple[int | str, ...]) -> str:
        """Return where in the parameter something is wrong, as in ``config.rates[2]``."""
        steps = list(loc[1:])
        place = self.name
        if steps and self.parameter.kind is inspect.Parameter.VAR_KEYWORD:
            place = str(steps.pop(0))  # what the caller has written
        for step in steps:
            place += f"[{step}]" if isinstance(step, int) else f".{_without_ours(step)}"
        return _line(place)


def checks(
    what: str, function: Callable[..., Any], parameters: Iterable[inspect.Parameter]
) -> tuple[Check, ...]:
    """Return the checks of those parameters whose annotations mean something to pydantic."""
    names = hints.Names(function)
    made = []
    for parameter in parameters:
        try:
            hint = names.resolved(parameter.annotation)
            adapter = hints.adapter(hint, parameter.kind)
        except Exception as error:  # an annotation can be anything
            _log.debug("Parameter '%s' of %s is not validated: %r", parameter.name, what, error)
            continue
        if adapter is not None:
            made.append(Check(parameter, adapter))
    return tuple(made)


# What is said -------------------------------------------------------------------------------------------


def _without_ours(step: str) -> str:
    """Return a step, which may be a kind of value, without the mark of what refuses arrays."""
    is_marked = step.startswith(hints.REFUSING)
    return step.removeprefix(hints.REFUSING).removesuffix("]") if is_marked else step


class _Short(reprlib.Repr):
    """Shows the beginnings of values, without looking at the rest of large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 120

    def repr_bytes(self, value: bytes, _level: int) -> str:
        """Show bytes like a text."""
        return repr(value[: self.maxstring]) + ("..." if len(value) > self.maxstring else "")


_short = _Short()


def shown(value: Any) -> str:
    """Return a value for an error message: short, on one line, whatever its ``repr`` does."""
    return _line(_guarded(_short.repr, value))


def _guarded(show: Callable[[Any], str], value: Any) -> str:
    try:
        return show(value)
    except Exception as error:
        return f"<a '{type(value).__name__}' that cannot be shown: {type(error).__name__}>"


def _line(text: str) -> str:
    """Return a text on one line, shortened."""
    line = " ".join(text[: MAX_TEXT + 1].split())
    return line if len(text) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"
