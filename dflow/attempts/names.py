"""Names of runs: a template over the parameters, or a callable that makes one.

This module checks such a rule when it is defined and makes the name when a run begins. It must stay light:
names are also made on workers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dflow.errors import DefinitionError

NameRule = str | Callable[..., str]
"""A template such as ``"train-{lr:.3f}"``, or a callable of nothing or of ``parameters``."""
MAX_NAME = 10_000
"""How many characters a name may have."""
PARAMETERS = "parameters"
"""What the only argument that a callable may want is called."""


def check_rule(what: str, argument: str, rule: object, parameters: Iterable[str]) -> None:
    """Raise `DefinitionError` unless `rule` can name runs of a function with these parameters.

    `what` is whose rule it is, such as ``"flow 'train'"``, and `argument` where it was given.
    """
    if isinstance(rule, str):
        _check_template(what, argument, rule, tuple(parameters))
    elif callable(rule):
        _check_callable(what, argument, rule)
    else:
        raise DefinitionError(
            f"{what}: {argument}= must be a text or a function that returns one, not {rule!r:.100}."
        )


def is_fixed(rule: NameRule) -> bool:
    """Tell whether a rule gives every run the same name: a template without fields."""
    return isinstance(rule, str) and not _fields(rule)


def used_by(rule: NameRule) -> frozenset[str] | None:
    """Return the parameters that a rule uses; None when it may use any of them."""
    if isinstance(rule, str):
        return _fields(rule)
    return None if _parameters_of(rule) is not None else frozenset()


def made(what: str, argument: str, rule: NameRule, parameters: Mapping[str, Any]) -> str:
    """Return the name that a rule makes from the parameters by name, defaults included.

    Raises `DefinitionError` for what is no name, and what a callable raises as it is, with a note.
    """
    if isinstance(rule, str):
        name: Any = _formatted(what, argument, rule, parameters)
    else:
        name = _called(what, argument, rule, parameters)
    if not isinstance(name, str):
        raise DefinitionError(
            f"{what}: {argument}={_shown(rule)} must return a text, and has returned "
            f"a '{type(name).__name__}'."
        )
    if len(name) > MAX_NAME:
        raise DefinitionError(
            f"{what}: {argument}={_shown(rule)} has made a name of {len(name)} characters. "
            f"A name may have {MAX_NAME}: use less of the parameters."
        )
    return name


# Templates ----------------------------------------------------------------------------------------------


class Anything:
    """Stands for a value of any kind: it has every attribute and item, and fits every format."""

    def __getattribute__(self, name: str) -> Anything:
        return self

    def __getitem__(self, key: object) -> Anything:
        return self

    def __format__(self, spec: str) -> str:
        return "1"  # also fits where it becomes a width or a precision

    def __repr__(self) -> str:
        return "1"


class _Asked(dict[str, Anything]):
    """Has every parameter, and keeps those that it was asked for."""

    def __missing__(self, name: str) -> Anything:
        self[name] = Anything()
        return self[name]


def _fields(template: str) -> frozenset[str]:
    """Return the names that the fields of a template begin with. Raises ValueError if it is malformed."""
    asked = _Asked()
    template.format_map(asked)
    return frozenset(asked)


def _check_template(what: str, argument: str, template: str, parameters: tuple[str, ...]) -> None:
    try:
        unknown = sorted(_fields(template) - set(parameters))
    except ValueError as error:
        raise DefinitionError(
            f"{what}: {argument}={_shown(template)} is not a template: {error}. "
            "Write fields as {name}, and braces that are meant as such twice: '{{' and '}}'."
        ) from None
    if unknown:
        known = ", ".join(f"'{name}'" for name in parameters) or "none"
        raise DefinitionError(
            f"{what}: {argument}={_shown(template)} uses '{unknown[0]}', which is no parameter. "
            f"Its parameters: {known}."
        )


def _formatted(what: str, argument: str, template: str, parameters: Mapping[str, Any]) -> str:
    try:
        return template.format_map(parameters)
    except Exception as error:
        raise DefinitionError(
            f"{what}: {argument}={_shown(template)} cannot be filled in: "
            f"{type(error).__name__}: {_text(error)}. Check the fields and their formats."
        ) from error


# Callables ----------------------------------------------------------------------------------------------


def _check_callable(what: str, argument: str, rule: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(rule) or inspect.iscoroutinefunction(type(rule).__call__):
        raise DefinitionError(
            f"{what}: {argument}={_shown(rule)} is an async function. Write it with 'def'."
        )
    try:
        wanted = inspect.signature(rule).parameters.values()
    except (TypeError, ValueError):
        raise DefinitionError(
            f"{what}: {argument}={_shown(rule)} does not tell its arguments. Wrap it in a lambda."
        ) from None
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    strange = [
        parameter.name
        for parameter in wanted
        if parameter.default is parameter.empty
        and parameter.kind not in several
        and parameter.name != PARAMETERS
    ]
    if strange:
        raise DefinitionError(
            f"{what}: {argument}={_shown(rule)} wants an argument '{strange[0]}'. "
            f"It may want none, or one called '{PARAMETERS}': a dict of the parameters by name."
        )


def _parameters_of(rule: Callable[..., Any]) -> inspect.Parameter | None:
    """Return the argument of a callable that takes the parameters, or None if it takes none."""
    found = inspect.signature(rule).parameters.get(PARAMETERS)
    by_name = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return None if found is None or found.kind in by_name else found


def _called(
    what: str, argument: str, rule: Callable[..., Any], parameters: Mapping[str, Any]
) -> Any:
    wanted = _parameters_of(rule)
    try:
        if wanted is None:
            name = rule()
        elif wanted.kind is inspect.Parameter.POSITIONAL_ONLY:
            name = rule(dict(parameters))
        else:
            name = rule(**{PARAMETERS: dict(parameters)})
    except Exception as error:
        error.add_note(f"It was raised by {argument}={_shown(rule)} of {what}.")
        raise
    if inspect.iscoroutine(name):
        name.close()  # nobody will await it
    return name


# What errors say ----------------------------------------------------------------------------------------


def _shown(rule: NameRule) -> str:
    if isinstance(rule, str):
        return repr(rule[:200]) + ("…" if len(rule) > 200 else "")
    return f"'{getattr(rule, '__qualname__', type(rule).__qualname__)}'"


def _text(error: Exception) -> str:
    try:
        return str(error)[:500]
    except Exception as unshown:
        return f"<it cannot be shown: {type(unshown).__name__}>"
