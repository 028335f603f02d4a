"""Names of task runs and flow runs by a rule of the user's: a template or a callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from dflow.attempts import names
from dflow.attempts.calls import Call, swap
from dflow.attempts.names import NameRule
from dflow.attempts.parameters import by_name
from dflow.engine import calls
from dflow.messages import Ref

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Naming:
    """How the runs of one task or flow are named. `what` and `argument` say whose rule it is."""

    what: str
    argument: str
    rule: NameRule
    function: Callable[..., Any]

    @classmethod
    def of(
        cls, what: str, argument: str, rule: NameRule | None, function: Callable[..., Any]
    ) -> Naming | None:
        """Return the naming by a rule; None without one. Raises `DefinitionError`."""
        if rule is None:
            return None
        names.check_rule(what, argument, rule, parameters_of(function))
        return cls(what, argument, rule, function)

    def name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the name of a run with these arguments. Raises what the rule raises."""
        if names.is_fixed(self.rule):
            return names.made(self.what, self.argument, self.rule, {})
        parameters = by_name(self.function, args, kwargs)
        return names.made(self.what, self.argument, self.rule, parameters)

    def name_of_call(self, call: Call) -> tuple[str | None, Call]:
        """Return the name of a task run, or None if it takes values that are not there yet.

        Then the call that is returned with it makes the name when it runs.
        """
        kwargs = {**call.shared, **call.kwargs}
        if call.has_refs and self._waits(call.args, kwargs, (Ref,)):
            return None, replace(call, named=(self.what, self.argument, self.rule))
        return self.name(call.args, kwargs), call

    def waits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Tell whether the name of a flow run takes values of futures among its arguments."""
        return self._waits(args, kwargs, calls.LEAVES)

    def _waits(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], kinds: tuple[type, ...]
    ) -> bool:
        used = names.used_by(self.rule)
        found: list[Any] = []
        if used is None or args:
            swap((args, kwargs), found.append, kinds)
        else:
            swap([kwargs[name] for name in used if name in kwargs], found.append, kinds)
        return bool(found) and used != frozenset()


def named(naming: Naming | None, call: Call, number: str) -> tuple[str, Call]:
    """Return the name of a task run, and its call, which makes the name later if values are missing."""
    if naming is None:
        return number, call
    name, call = naming.name_of_call(call)
    return number if name is None else name, call


def is_late(naming: Naming | None, arguments: Arguments) -> bool:
    """Tell whether the name of a flow run takes values that may not be there yet."""
    return naming is not None and naming.waits(*arguments)


def name_of(naming: Naming | None, arguments: Arguments, other: str) -> str:
    """Return the name of a flow run; `other` if no rule gives one, or none yet."""
    return other if naming is None or is_late(naming, arguments) else naming.name(*arguments)


async def late_name(
    naming: Naming | None, arguments: Arguments, other: str, *, native: bool
) -> str:
    """Wait for values and return the name that is made of them; `other` if they fail, as the run will."""
    await calls.until_final(arguments, native=native)
    try:
        arguments = calls.values_of(arguments)
    except Exception:
        return other
    return name_of(naming, arguments, other)


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return tuple(inspect.signature(function).parameters)
