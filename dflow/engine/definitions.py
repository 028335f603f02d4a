"""Checks of what users write in ``@flow(...)`` and ``@task(...)``, with errors that name the argument."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dflow.core.records import Policy
from dflow.core.retry import exponential_delays
from dflow.engine.calls import called
from dflow.errors import DefinitionError

RESERVED = {
    "flow": ("return_state", "wait_for"),
    "task": ("return_state", "wait_for", "max_in_flight"),
}
"""Names that the parameters of flows and tasks may not have: calls use them."""
MAX_NAME = 10_000
"""How many characters a name may have."""


def check_function(function: Any, kind: str) -> None:
    """Raise `DefinitionError` unless `function` is one that can be a flow or a task (`kind`)."""
    if not callable(function):
        raise DefinitionError(f"@{kind} is for functions, not for {function!r}.")
    name = getattr(function, "__qualname__", repr(function))
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"'{name}' is an async function. This version of dflow runs plain functions: "
            f"write 'def', and call asyncio.run(...) inside."
        )
    if inspect.isgeneratorfunction(function):
        raise DefinitionError(
            f"'{name}' is a generator. This version of dflow runs plain functions: return a list."
        )
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        raise DefinitionError(
            f"'{name}' does not tell its parameters. Call it in a function of your own."
        ) from None
    for reserved in RESERVED[kind]:
        if reserved in parameters:
            raise DefinitionError(
                f"'{name}' has a parameter '{reserved}', which dflow uses in calls. Rename it."
            )


def check_texts(kind: str, **given: Any) -> None:
    """Raise `DefinitionError` for an option that is neither a text nor left open."""
    for argument, value in given.items():
        if value is not None and not isinstance(value, str):
            raise DefinitionError(f"{kind}: {argument}= must be a text, not {value!r:.100}.")


def name_of(function: Callable[..., Any], name: str | None, kind: str, *, dashes: bool) -> str:
    """Return the name of a flow or task: the one given, or that of its function."""
    if name is None:
        made = called(function)
        return made.replace("_", "-") if dashes else made
    given: Any = name
    if not isinstance(given, str) or len(given) > MAX_NAME:
        raise DefinitionError(
            f"{kind}: name= must be a text of at most {MAX_NAME} characters, not {name!r:.100}."
        )
    return name


def whole_number(kind: str, argument: str, value: Any) -> int:
    """Return a number of times, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DefinitionError(
            f"{kind}: {argument}= must be a whole number, 0 or more, not {value!r}."
        )
    return value


def policy(
    kind: str,
    retries: Any,
    retry_delay_seconds: Any,
    retry_jitter_factor: Any = 0.0,
    max_worker_losses: Any = 3,
) -> Policy:
    """Return what decides how often a run is tried and how long it waits in between."""
    count = whole_number(kind, "retries", retries)
    jitter = 0.0 if retry_jitter_factor is None else retry_jitter_factor
    if not _is_number(jitter) or not 0 <= jitter <= 1:
        raise DefinitionError(
            f"{kind}: retry_jitter_factor= must be a share from 0 to 1, not {jitter!r}."
        )
    return Policy(
        retries=count,
        retry_delays=_delays(kind, count, retry_delay_seconds),
        jitter=float(jitter),
        max_worker_losses=whole_number(kind, "max_worker_losses", max_worker_losses),
    )


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return the delays ``backoff_factor × 2^r`` seconds, to be given as ``retry_delay_seconds``.

    >>> exponential_backoff(10)(3)
    [10.0, 20.0, 40.0]
    """
    if not _is_number(backoff_factor) or backoff_factor < 0:
        raise DefinitionError(
            f"exponential_backoff: the factor must be a number of seconds, not {backoff_factor!r}."
        )
    return lambda retries: list(exponential_delays(float(backoff_factor), retries))


def _delays(kind: str, retries: int, given: Any) -> tuple[float, ...]:
    made = given(retries) if callable(given) else given
    delays = made if isinstance(made, Sequence) and not isinstance(made, str) else [made or 0]
    if not delays or not all(_is_number(delay) and delay >= 0 for delay in delays):
        raise DefinitionError(
            f"{kind}: retry_delay_seconds= must be a number of seconds, a list of them, "
            f"or a function that makes such a list from the number of retries, not {given!r}."
        )
    return tuple(float(delay) for delay in delays)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def tags(kind: str, given: Any) -> tuple[str, ...]:
    """Return tags, sorted, each once."""
    if given is None:
        return ()
    several = isinstance(given, Iterable) and not isinstance(given, str)
    tags: list[Any] = list(given) if several else [None]
    if not all(isinstance(tag, str) for tag in tags):
        raise DefinitionError(f"{kind}: tags= must be several texts, not {given!r}.")
    return tuple(sorted(set(tags)))
