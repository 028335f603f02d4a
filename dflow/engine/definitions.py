"""Checks of what users write in ``@flow(...)`` and ``@task(...)``, with errors that name the argument."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from dflow.attempts import result_names
from dflow.attempts.names import MAX_NAME
from dflow.core.records import Policy
from dflow.core.retry import exponential_delays
from dflow.core.values import ResultOptions
from dflow.engine.calls import called
from dflow.errors import DefinitionError, ResultStoreError
from dflow.messages import Placement
from dflow.results.stores import url_of

MAX_PRIORITY = 1_000_000
"""How far from 0 a priority may be."""
RESERVED = {
    "flow": ("return_state", "wait_for"),
    "task": ("return_state", "wait_for", "max_in_flight"),
}
"""Names that the parameters of flows and tasks may not have: calls use them."""


def check_function(function: Any, kind: str) -> None:
    """Raise `DefinitionError` unless `function` is one that can be a flow or a task (`kind`)."""
    if not callable(function):
        raise DefinitionError(f"@{kind} is for functions, not for {function!r}.")
    name = getattr(function, "__qualname__", repr(function))
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
    timeout_seconds: Any = None,
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
        timeout=_timeout(kind, timeout_seconds),
    )


def _timeout(kind: str, given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, timedelta):
        given = given.total_seconds()
    if not _is_number(given) or given <= 0:
        raise DefinitionError(
            f"{kind}: timeout_seconds= must be a number of seconds above 0, not {given!r}."
        )
    return float(given)


def hooks(kind: str, argument: str, given: Any, takes: str) -> tuple[Callable[..., Any], ...]:
    """Return hooks, of which one or several were given; `takes` names the arguments they get."""
    if given is None:
        return ()
    several = isinstance(given, Iterable) and not (callable(given) or isinstance(given, str))
    found = tuple(given) if several else (given,)
    for hook in found:
        check_callback(kind, argument, hook, takes)
    return found


def check_callback(kind: str, argument: str, given: Any, takes: str) -> None:
    """Raise `DefinitionError` unless `given` can be called with as many arguments as `takes` names."""
    wanted = f"{kind}: {argument}= must be a function that takes ({takes}), "
    if not callable(given):
        raise DefinitionError(f"{wanted}not {given!r:.100}.")
    name = getattr(given, "__qualname__", f"{given!r:.100}")
    if inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given):
        raise DefinitionError(f"{wanted}but '{name}' is a generator, which would not run.")
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):
        return  # it does not tell
    try:
        signature.bind(*takes.split(","))
    except TypeError:
        raise DefinitionError(f"{wanted}but '{name}' takes {signature}.") from None


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


def placement(
    kind: str, resources: Any, priority: Any, workers: Any, batch: Any = None
) -> Placement:
    """Return where and when the runs of a task may go, and whether they share the way."""
    whole = isinstance(priority, int) and not isinstance(priority, bool)
    if not whole or abs(priority) > MAX_PRIORITY:
        raise DefinitionError(
            f"{kind}: priority= must be a whole number from {-MAX_PRIORITY:,} to {MAX_PRIORITY:,}, "
            f"not {priority!r}: of what waits the higher goes first."
        )
    if batch is not None and not isinstance(batch, bool):
        raise DefinitionError(
            f"{kind}: batch= must be True, False or None, not {batch!r:.100}: whether its runs may "
            "travel with others."
        )
    return Placement(
        resources=_resources(kind, resources),
        priority=priority,
        workers=_workers(kind, workers),
        batch=batch,
    )


def _resources(kind: str, given: Any) -> tuple[tuple[str, float], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise DefinitionError(
            f"{kind}: resources= must be names with amounts, such as {{'GPU': 1}}, not {given!r:.100}."
        )
    for name, amount in given.items():
        if not isinstance(name, str) or not name.strip():
            raise DefinitionError(f"{kind}: resources= has {name!r:.100} where a name must be.")
        if not _is_number(amount) or amount <= 0:
            raise DefinitionError(
                f"{kind}: resources= asks for {amount!r:.100} of '{name}', which is not an amount: "
                "give a number greater than 0."
            )
    return tuple(sorted((name, float(amount)) for name, amount in given.items()))


def results(
    kind: str,
    persist: Any,
    storage: Any,
    serializer: Any,
    key: Any = None,
    parameters: Iterable[str] = (),
) -> ResultOptions:
    """Return what is said of results. Who names a place, a name or a form wants them to be kept."""
    if persist is not None and not isinstance(persist, bool):
        raise DefinitionError(
            f"{kind}: persist_result= must be True, False or None, not {persist!r:.100}."
        )
    if serializer is not None and not (isinstance(serializer, str) and serializer.strip()):
        raise DefinitionError(
            f"{kind}: result_serializer= must be the name of a serializer, such as 'pickle' or 'json', not "
            f"{serializer!r:.100}. One of yours gets a name by register_serializer(name, serializer)."
        )
    if key is not None:
        result_names.check(kind, key, parameters)
    if key is not None and persist is False:
        raise DefinitionError(
            f"{kind}: result_storage_key= names the file of a result that persist_result=False does not "
            "keep. Leave out one of them."
        )
    named = any(given is not None for given in (storage, serializer, key))
    return ResultOptions(
        persist=True if named and persist is None else persist,
        storage=None if storage is None else _storage(kind, storage),
        serializer=serializer,
        name=key,
    )


def _storage(kind: str, given: Any) -> str:
    if not isinstance(given, str | Path):
        raise DefinitionError(
            f"{kind}: result_storage= must be a folder or a URL such as 's3://bucket/results', not "
            f"{given!r:.100}."
        )
    try:
        return url_of(given)
    except ResultStoreError as error:
        raise DefinitionError(f"{kind}: result_storage=: {error}") from None


def _workers(kind: str, given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    workers: list[Any] = list(given) if several else [given]
    if not workers or not all(isinstance(one, str) and one.strip() for one in workers):
        raise DefinitionError(
            f"{kind}: workers= must be the name or the address of a worker, or several of them, "
            f"not {workers if several else given!r:.100}."
        )
    return tuple(dict.fromkeys(workers))
