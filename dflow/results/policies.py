"""Cache policies: what the key of a cached task run is made from.

A policy gives a key, a text, or None for no caching. It is computed from the task, from its inputs and from
the parameters of the flow around it; policies add up, and an argument can be taken out. Where a key is
looked up is the engine's, where its value is kept that of the result stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from types import FunctionType
from typing import Any, Final, Self

from dflow.errors import DefinitionError
from dflow.results.fingerprints import NoFingerprint, content
from dflow.results.keys import closes_over, hash_text, hashed
from dflow.results.source import PYTHON, code_digest
from dflow.results.taking_apart import closure_of

KeyFn = Callable[[Any, dict[str, Any]], str | None]
"""``fn(context, parameters) -> key``."""


class CachePolicy:
    """What decides when a task is not run again, because its value is there already.

    Policies add up: ``INPUTS + TASK_SOURCE`` has a new key when an argument or the code changes.
    ``INPUTS - "rng"`` leaves an argument out. A subclass of yours has `compute_key`; `from_cache_key_fn`
    makes one from a function. Policies never change: each operation gives another one.

    >>> from dflow import task
    >>> from dflow.cache_policies import INPUTS, TASK_SOURCE
    >>> INPUTS + TASK_SOURCE - "rng"
    INPUTS - 'rng' + TASK_SOURCE
    >>> @task(cache_policy=INPUTS)
    ... def square(x: int) -> int:
    ...     return x * x
    >>> square(3), square(3, return_state=True).name
    (9, 'Cached')
    """

    key_storage: str | None = None

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return the key of a call, or None for no caching.

        `inputs` are its arguments by name, those left at their defaults included, `flow_parameters` those of
        the flow run around it, `task_ctx` has ``.task`` and ``.task_run``. What it raises means no caching
        for that call, with a warning. Where futures are among the arguments, a policy of your own is asked
        when their values are there; these are fetched to the driver for it.
        """
        raise NotImplementedError(
            f"'{type(self).__name__}' has no compute_key(task_ctx, inputs, flow_parameters)."
        )

    @classmethod
    def from_cache_key_fn(cls, cache_key_fn: KeyFn) -> CachePolicy:
        """Return a policy whose key ``cache_key_fn(context, parameters)`` gives.

        >>> CachePolicy.from_cache_key_fn(lambda context, parameters: str(parameters["x"]))
        CachePolicy.from_cache_key_fn(<lambda>)
        """
        return KeyFunction(cache_key_fn)

    def configure(self, *, key_storage: Any = None) -> Self:
        """Return the same policy, whose records are kept in another store than the values: a path or a URL.

        >>> from dflow.cache_policies import INPUTS
        >>> INPUTS.configure(key_storage="s3://team/keys").key_storage
        's3://team/keys'
        """
        made = copy(self)
        made.__dict__.pop("key_storage", None)
        if key_storage is not None:
            made.__dict__["key_storage"] = str(key_storage)
        return made

    def __add__(self, other: Any) -> CachePolicy:
        """Return a policy whose key is new when that of either is."""
        if not isinstance(other, CachePolicy):
            return NotImplemented
        if isinstance(other, NoCache):
            return self
        return _sum((self, other))

    def __sub__(self, argument: str) -> CachePolicy:
        """Return the same policy for which an argument plays no part."""
        if not isinstance(argument, str):
            raise DefinitionError(
                f"A cache policy minus {argument!r:.100} means nothing: take out an argument by its name, "
                'as in INPUTS - "rng".'
            )
        return self._without(argument)

    def _without(self, argument: str) -> CachePolicy:
        return self

    def uses(self, argument: str) -> bool:
        """Tell whether an argument may play a part in the key."""
        return True

    @property
    def needs_values(self) -> bool:
        """Whether `compute_key` needs the arguments themselves, and not only what they are hashed by."""
        return True

    @property
    def uses_flow(self) -> bool:
        """Whether the parameters of the flow run may play a part in the key."""
        return True

    @property
    def per_task(self) -> bool:
        """Whether a key means another value for each task; a key of the user's means what the user says."""
        return False

    def _parts(self) -> tuple[CachePolicy, ...]:
        return (self,)

    def __eq__(self, other: object) -> bool:
        """Tell whether another policy is of the same kind, with the same settings."""
        return type(self) is type(other) and self._state() == other.__dict__

    def _state(self) -> dict[str, Any]:
        return self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *sorted(self.__dict__)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Frozen(CachePolicy):
    """A policy of ours: what it is never changes."""

    name: str = ""

    @property
    def uses_flow(self) -> bool:
        """Whether the parameters of the flow run play a part in the key."""
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"Cache policies do not change: make another one instead of setting '{name}'."
        )

    @property
    def needs_values(self) -> bool:
        """Whether `compute_key` needs the arguments themselves."""
        return False

    @property
    def per_task(self) -> bool:
        """Whether a key means another value for each task."""
        return True

    def uses(self, argument: str) -> bool:
        """Tell whether an argument plays a part in the key."""
        return False

    def __repr__(self) -> str:
        return self.name


class Inputs(Frozen):
    """The key is made from the arguments, by their content."""

    name = "INPUTS"
    excluded: tuple[str, ...] = ()

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return a hash of the arguments. Raises `NoFingerprint`, which names the one that has none."""
        given = {name: value for name, value in (inputs or {}).items() if self.uses(name)}
        return hash_text(
            sorted((name, hashed("argument", name, given[name]).digest) for name in given)
        )

    def uses(self, argument: str) -> bool:
        """Tell whether an argument plays a part in the key."""
        return argument not in self.excluded

    def _without(self, argument: str) -> CachePolicy:
        made = copy(self)
        made.__dict__["excluded"] = tuple(sorted({*self.excluded, argument}))
        return made

    def __repr__(self) -> str:
        return " - ".join((self.name, *map(repr, self.excluded)))


class TaskSource(Frozen):
    """The key is made from the code of the task, and what it closes over; not from what it calls."""

    name = "TASK_SOURCE"

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return a hash of the code, the same whatever its layout, comments and docstrings are."""
        if task_ctx is None:
            return None
        function = getattr(task_ctx.task, "function", task_ctx.task)
        try:
            if not isinstance(function, FunctionType):
                return hash_text(content(function))
            closure = content(closure_of(function))
        except NoFingerprint as problem:
            raise closes_over(problem) from None
        return hash_text((PYTHON, code_digest(function.__code__), closure))


class FlowParameters(Frozen):
    """The key is made from the parameters of the flow run around the call."""

    name = "FLOW_PARAMETERS"

    @property
    def uses_flow(self) -> bool:
        """Whether the parameters of the flow run play a part in the key."""
        return True

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return a hash of the parameters; None if there are none."""
        if not flow_parameters:
            return None
        found = flow_parameters.items()
        return hash_text(
            sorted((name, hashed("flow parameter", name, item).digest) for name, item in found)
        )


class RunId(Frozen):
    """The key is made from the flow run: what one run has computed is not for another."""

    name = "RUN_ID"

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return the id of the flow run."""
        return None if task_ctx is None else str(task_ctx.task_run.flow_run_id)


class NoCache(Frozen):
    """There is no key. Added to another policy it changes nothing."""

    name = "NO_CACHE"

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return None."""
        return None

    def __add__(self, other: Any) -> CachePolicy:
        """Return the other policy."""
        return other if isinstance(other, CachePolicy) else NotImplemented


class KeyFunction(Frozen):
    """The key is what a function of the user gives."""

    def __init__(self, cache_key_fn: KeyFn) -> None:
        if not callable(cache_key_fn):
            raise DefinitionError(
                "cache_key_fn= must be a function that takes (context, parameters) and returns a text or "
                f"None, not {cache_key_fn!r:.100}."
            )
        self.__dict__["cache_key_fn"] = cache_key_fn

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return what the function returns."""
        function: KeyFn = self.__dict__["cache_key_fn"]
        return function(task_ctx, inputs)

    needs_values = True
    per_task = False

    def uses(self, argument: str) -> bool:
        """Tell whether an argument may play a part in the key."""
        return True

    def __repr__(self) -> str:
        function = self.__dict__["cache_key_fn"]
        return f"CachePolicy.from_cache_key_fn({getattr(function, '__name__', repr(function))})"


class Sum(Frozen):
    """The key is made from those of several policies. Their order plays no part."""

    def __init__(self, policies: Iterable[CachePolicy]) -> None:
        self.__dict__["policies"] = tuple(policies)

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return a hash of the keys of all policies that have one; None if none has."""
        keys = set()
        for policy in self._parts():
            key = policy.compute_key(task_ctx, inputs, flow_parameters, **kwargs)
            if key is not None:
                keys.add(f"{policy.name}={key}" if isinstance(policy, Frozen) else key)
        return hash_text(sorted(keys)) if keys else None

    def _parts(self) -> tuple[CachePolicy, ...]:
        parts: tuple[CachePolicy, ...] = self.__dict__["policies"]
        return parts

    def _without(self, argument: str) -> CachePolicy:
        made = _sum(tuple(part - argument for part in self._parts()))
        return made.configure(key_storage=self.key_storage)

    @property
    def needs_values(self) -> bool:
        """Whether any of the policies needs the arguments themselves."""
        return any(part.needs_values for part in self._parts())

    @property
    def uses_flow(self) -> bool:
        """Whether the parameters of the flow run may play a part in the key."""
        return any(part.uses_flow for part in self._parts())

    @property
    def per_task(self) -> bool:
        """Whether a key means another value for each task."""
        return any(part.per_task for part in self._parts())

    def uses(self, argument: str) -> bool:
        """Tell whether an argument may play a part in the key."""
        return any(part.uses(argument) for part in self._parts())

    def __repr__(self) -> str:
        return " + ".join(map(repr, self._parts()))


def _sum(policies: tuple[CachePolicy, ...]) -> CachePolicy:
    """Return the sum of policies, each once; ours come in their own order."""
    stores = {policy.key_storage for policy in policies} - {None}
    if len(stores) > 1:
        shown = "' and '".join(sorted(map(str, stores)))
        raise DefinitionError(
            f"Cache policies with records in '{shown}' cannot be added: a key is looked up in one place."
        )
    parts: list[CachePolicy] = []
    for policy in policies:
        for part in policy._parts():
            plain = part.configure()
            if plain not in parts:
                parts.append(plain)
    parts.sort(key=_rank)
    made = Sum(parts) if len(parts) > 1 else parts[0]
    return made.configure(key_storage=stores.pop() if stores else None)


def _rank(policy: CachePolicy) -> tuple[int, str]:
    rank = _RANKS.get(type(policy), len(_RANKS))
    return rank, repr(policy) if isinstance(policy, Frozen) else ""


INPUTS: Final[CachePolicy] = Inputs()
TASK_SOURCE: Final[CachePolicy] = TaskSource()
FLOW_PARAMETERS: Final[CachePolicy] = FlowParameters()
RUN_ID: Final[CachePolicy] = RunId()
NO_CACHE: Final[CachePolicy] = NoCache()
_RANKS: dict[type[CachePolicy], int] = {Inputs: 0, TaskSource: 1, FlowParameters: 2, RunId: 3}
DEFAULT: Final[CachePolicy] = INPUTS + TASK_SOURCE + RUN_ID
