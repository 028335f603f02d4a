"""Validation of a flow's parameters by their annotations, with pydantic.

A value that fits is passed on, converted where pydantic converts (``"5"`` becomes 5 for ``x: int``); models,
arrays and other objects that are already of their type are passed as they are. Defaults are the function's
own business. What pydantic cannot check, because its annotation cannot be resolved here or has no schema,
is passed as it is.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dflow.engine import calls
from dflow.errors import ParameterError

if TYPE_CHECKING:
    from dflow.engine.fitting import Check, Problem

_building = threading.RLock()
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Validator:
    """Validates and coerces the arguments of one function.

    `what` is whose parameters they are, such as ``"flow 'train'"``. Nothing is built before the first call.
    """

    def __init__(
        self, what: str, function: Callable[..., Any], signature: inspect.Signature
    ) -> None:
        self._what = what
        self._function = function
        self._signature = signature
        self._checks: tuple[Check, ...] | None = None

    def validated(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments as the function is to get them, by name wherever that is possible.

        Raises `ParameterError` for arguments that the signature does not take, or that do not fit the
        annotations: it names every field that is wrong, what was given for it, and why it does not fit.
        """
        positional, named = calls.bind(self._function, self._signature, args, kwargs)
        checks = self._built()
        if not checks:
            return positional, named
        bound = self._signature.bind(*positional, **named)
        problems: list[Problem] = []
        for check in checks:
            if check.name in bound.arguments:
                given = bound.arguments[check.name]
                bound.arguments[check.name] = check.passed(given, problems)
        if problems:
            listed = "\n".join(f"  {problem.reason}" for problem in problems)
            raise ParameterError(
                f"The parameters of {self._what} do not fit:\n{listed}\n"
                "Give values that fit the annotations, or change the annotations."
            ) from next((problem.cause for problem in problems if problem.cause), None)
        return calls.bind(self._function, self._signature, bound.args, bound.kwargs)

    def _built(self) -> tuple[Check, ...]:
        if self._checks is None:
            with _building:
                if self._checks is None:
                    self._checks = self._build()
        return self._checks

    def _build(self) -> tuple[Check, ...]:
        parameters = enumerate(self._signature.parameters.values())
        annotated = [each for index, each in parameters if _is_annotated(index, each)]
        if not annotated:
            return ()
        from dflow.engine import fitting  # lazy: without annotations nobody needs pydantic

        return fitting.checks(self._what, self._function, annotated)

    def __reduce__(self) -> Any:
        """Travel without what was built: it is built again where it is needed."""
        return Validator, (self._what, self._function, self._signature)


def _is_annotated(index: int, parameter: inspect.Parameter) -> bool:
    """Tell whether a parameter says what it takes; the object or class of a method is no matter of values."""
    is_own = index == 0 and parameter.name in ("self", "cls") and parameter.kind in _POSITIONAL
    return parameter.annotation is not parameter.empty and not is_own
