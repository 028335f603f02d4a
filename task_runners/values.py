"""The values of finished task runs, for runners whose attempts run in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from dflow.attempts.inputs import value_of
from dflow.errors import MissingResult
from dflow.messages import AtRunner, Key, Work
from dflow.ports import Link

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A call, and the context in which it was made: its variables are those of the body."""

    call: Any
    context: Context

    def in_context(
        self,
        function: Callable[..., T],
        *args: Any,
        kept: Collection[ContextVar[Any]] = (),
        **kwargs: Any,
    ) -> T:
        """Call a function in a context like that of the call, but for variables that are `kept` as here."""
        context = self.context.copy()
        here = copy_context()
        for variable in kept:
            if variable in here:
                context.run(variable.set, here[variable])
        return context.run(function, *args, **kwargs)


def asked_here(call: Any) -> Asked:
    """Return a call with the present context."""
    return Asked(call, copy_context())


def missing(key: Key) -> MissingResult:
    """Return the error for a value that is not at its runner any more."""
    return MissingResult(
        f"The value of task run '{key[0]}' is not with its runner any more. Keep its future for as long as "
        "you need the value, or give the task persist_result=True."
    )


class Values:
    """Values by the dispatch that made them, until they are released."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Key, Any] = {}

    def keep(self, key: Key, value: Any) -> None:
        """Hold a value."""
        with self._lock:
            self._values[key] = value

    def fetch(self, key: Key) -> Any:
        """Return a value. Raises `MissingResult`."""
        with self._lock:
            if key in self._values:
                return self._values[key]
        raise missing(key)

    def release(self, keys: Iterable[Key]) -> None:
        """Let go of values."""
        with self._lock:
            for key in keys:
                self._values.pop(key, None)

    def clear(self) -> None:
        """Let go of all values."""
        with self._lock:
            self._values.clear()

    def of(self, work: Work, link: Link) -> dict[str, Any]:
        """Return the values that a work needs, by task run. Raises as `inputs.read` does."""
        return {
            name: self.fetch(given.key) if isinstance(given, AtRunner) else value_of(given, link)
            for name, given in work.inputs.items()
        }
