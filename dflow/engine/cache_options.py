"""What a task says of its caching, checked."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dflow.engine import definitions
from dflow.engine.options import TaskOptions
from dflow.errors import DefinitionError
from dflow.results.policies import CachePolicy, NoCache

_log = logging.getLogger("dflow.engine")


@dataclass(frozen=True, slots=True)
class Cached:
    """How a task is cached: by which policy, for how many seconds (None: for ever), whether always anew."""

    policy: CachePolicy
    seconds: float | None = None
    refresh: bool = False


def cached(kind: str, options: TaskOptions) -> Cached | None:
    """Return how a task is cached, or None if it is not. Raises `DefinitionError`."""
    seconds, refresh = _seconds(kind, options.cache_expiration), options.refresh_cache
    if not isinstance(refresh, bool):
        raise DefinitionError(
            f"{kind}: refresh_cache= must be True or False, not {refresh!r:.100}."
        )
    policy = _policy(kind, options)
    if policy is None:
        if seconds is not None or refresh:
            _log.warning(
                "%s is not cached: cache_expiration= and refresh_cache= say nothing without cache_policy= or "
                "cache_key_fn=.",
                kind.capitalize(),
            )
        return None
    if options.persist_result is False:
        raise DefinitionError(
            f"{kind}: a cached task keeps its results, so it cannot have persist_result=False. Leave that "
            "out, or give it cache_policy=NO_CACHE."
        )
    return Cached(policy, seconds, refresh)


def _policy(kind: str, options: TaskOptions) -> CachePolicy | None:
    given, function = options.cache_policy, options.cache_key_fn
    if given is not None and not isinstance(given, CachePolicy):
        raise DefinitionError(
            f"{kind}: cache_policy= must be a policy of dflow.cache_policies, such as INPUTS, not "
            f"{given!r:.100}."
        )
    if function is not None:
        definitions.check_callback(kind, "cache_key_fn", function, "context, parameters")
        if given is not None:
            _log.warning(
                "%s has a cache_policy= and a cache_key_fn=: the function is used.",
                kind.capitalize(),
            )
        return CachePolicy.from_cache_key_fn(function)
    return None if isinstance(given, NoCache) else given


def _seconds(kind: str, given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, timedelta):
        given = given.total_seconds()
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not math.isfinite(given) or given <= 0:
        raise DefinitionError(
            f"{kind}: cache_expiration= must be a timedelta or a number of seconds above 0, not "
            f"{given!r:.100}."
        )
    return float(given)
