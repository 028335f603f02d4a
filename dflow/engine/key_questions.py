"""Questions for keys: what a policy or a function of the user's is asked when the values are there.

They travel from the call, which may be on a worker, to the driver.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dflow.attempts.calls import Call, resolved
from dflow.attempts.context import current
from dflow.attempts.logs import get_run_logger
from dflow.attempts.parameters import by_name
from dflow.messages import Caching, LateKey, PartialKey
from dflow.results.fingerprints import NoFingerprint
from dflow.results.keys import KeyContext, TaskRunInKey, digest_of, task_in_key
from dflow.results.pickling import dumps
from dflow.results.policies import CachePolicy

Key = PartialKey | LateKey | None

_log = logging.getLogger("dflow.engine")
_said: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Question:
    """Asks a policy or a function of the user's for a key, when the values are there."""

    task: Any
    policy: CachePolicy
    call: Call
    run: TaskRunInKey
    flow_parameters: Mapping[str, Any]

    def answer(self, values: Mapping[str, Any]) -> str | None:
        """Return the key, given the values of the upstreams by task run. Raises what the user's code does."""
        args, kwargs = resolved(self.call, values)
        inputs = by_name(self.call.function, args, kwargs)
        context = KeyContext(self.task, self.run, inputs)
        key = self.policy.compute_key(context, inputs, dict(self.flow_parameters))
        if key is not None and not isinstance(key, str):
            raise TypeError(f"its key must be a text or None, not {key!r:.100}")
        return for_task(self.policy, self.call.function, key)


def for_task(policy: CachePolicy, function: Callable[..., Any], key: str | None) -> str | None:
    """Return a key that means something else for each task, unless the user has made it."""
    if key is None or not policy.per_task:
        return key
    return digest_of(task_in_key(function), key)


def keys_sent_up(caching: Caching) -> Caching:
    """Return keys as they travel from an attempt to its driver; of what cannot travel there is none."""
    if not any(isinstance(key, LateKey) for key in caching.keys):
        return caching
    return replace(caching, keys=tuple(map(_sent_up, caching.keys)))


def _sent_up(key: Key) -> Key:
    if not isinstance(key, LateKey):
        return key
    try:
        return LateKey(dumps(key.question))
    except Exception as problem:
        complain(key.question.task.name, problem)
        return None


def complain(task_name: str, problem: Exception) -> None:
    """Warn that calls of a task are not cached, once for each reason."""
    why = str(problem) if isinstance(problem, NoFingerprint) else repr(problem)
    context = current()
    said = _said if context is None else context.notes.setdefault("not cached", set())
    if (task_name, why) in said:
        return
    said.add((task_name, why))
    say = _log if context is None else get_run_logger()
    say.warning("Task '%s' runs without its cache: %s", task_name, why)
