"""The values of finished task runs, for runners whose attempts run in this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from msgspec import Struct

from dflow.attempts.inputs import value_of
from dflow.core.records import Stored
from dflow.errors import MissingResult
from dflow.messages import Along, AtRunner, Kept, Key, Work
from dflow.ports import Link

T = TypeVar("T")
DIRECT = 64_000
"""Up to how many bytes a stored value is read by each who needs it."""
ROOM = 1_000_000_000
"""How many bytes stored values may have that are held for dispatches to come, beside the last one."""


class Asked(Struct, frozen=True):
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


class _Slot:
    """A value that one thread reads while others who need it wait."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.value: Any = None
        self.there = False


class Read:
    """Values from result stores: those that were read last are held, for others who need the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: OrderedDict[Stored, _Slot] = OrderedDict()

    def value_of(self, given: Along, link: Link) -> Any:
        """Return a value that goes along with a dispatch. Raises as `inputs.read` does."""
        if not isinstance(given, Kept) or given.may_fail or given.stored.size <= DIRECT:
            return value_of(given, link)
        slot = self._slot(given)
        with slot.lock:
            if not slot.there:
                slot.value = value_of(given, link)
                slot.there = True
            return slot.value

    def _slot(self, kept: Kept) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(kept.stored, _Slot(kept.stored.size))
            self._slots.move_to_end(kept.stored)
            while sum(other.size for other in list(self._slots.values())[:-1]) > ROOM:
                self._slots.popitem(last=False)
            return slot

    def clear(self) -> None:
        """Let go of them."""
        with self._lock:
            self._slots.clear()


class Values:
    """Values by the dispatch that made them, until they are released."""

    def __init__(self) -> None:
        self._read = Read()
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
        self._read.clear()
        with self._lock:
            self._values.clear()

    def of(self, work: Work, link: Link) -> dict[str, Any]:
        """Return the values that a work needs, by task run. Raises as `inputs.read` does."""
        return {
            name: self.fetch(given.key)
            if isinstance(given, AtRunner)
            else self._read.value_of(given, link)
            for name, given in work.inputs.items()
        }
