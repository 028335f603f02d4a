"""What a Dask task gives back: the value of a body, and beside it the outcome of the attempt."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dask.sizeof import sizeof
from msgspec.structs import replace

from dflow.attempts.link import Ended
from dflow.attempts.rows import Row
from dflow.core.events import AttemptRaised, AttemptTimedOut, Outcome
from dflow.errors import SerializationError
from dflow.messages import Key
from dflow.results.pickling import dumps_apart, loads

MAX_BLOB = 20_000
MAX_TRACEBACK = 5_000


class Carried:
    """A value, as it lies on workers and travels between them and to the driver.

    It is pickled by our rules, so that the classes of a script are the same ones everywhere, and unpickled
    by who first needs it, in whose thread what goes wrong belongs. A value that cannot be pickled stays
    usable where it is; elsewhere it raises `SerializationError` when it is asked for.
    """

    __slots__ = ("_buffers", "_data", "_lock", "_value", "outcome")

    def __init__(self, outcome: Outcome | None, value: Any) -> None:
        self.outcome = pickle.dumps(outcome, protocol=5)
        self._value = value
        self._data: bytes | None = None
        self._buffers: Sequence[Any] = ()
        self._lock = threading.Lock()

    @property
    def value(self) -> Any:
        """The value. Raises `SerializationError` if it could not travel here."""
        with self._lock:
            if self._data is not None:
                self._value = self._load(self._data)
                self._data, self._buffers = None, ()
            return self._value

    def _load(self, data: bytes) -> Any:
        try:
            value = loads(data, self._buffers)
        except Exception as error:
            raise SerializationError(
                f"A result cannot be loaded where it is needed: {error!r}. "
                "Check that the same packages are installed there as on the workers."
            ) from error
        if isinstance(value, _Stuck):
            raise SerializationError(value.reason)
        return value

    def __reduce_ex__(self, protocol: Any) -> Any:
        with self._lock:
            if self._data is not None:
                data, buffers = self._data, self._buffers
            else:
                data, buffers = _pickled(self._value)
        apart: list[Any] = [pickle.PickleBuffer(buffer) for buffer in buffers]
        if protocol < 5:  # as the scheduler asks for, when it gathers
            apart = [bytes(buffer.raw()) for buffer in apart]
        return _restore, (self.outcome, data, apart)

    def __sizeof__(self) -> int:
        if self._data is None:
            return int(sizeof(self._value)) + len(self.outcome)
        return (
            len(self._data) + len(self.outcome) + sum(memoryview(b).nbytes for b in self._buffers)
        )


class _Stuck:
    """Travels in the place of a value that cannot."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _pickled(value: Any) -> tuple[bytes, Sequence[Any]]:
    try:
        return dumps_apart(value)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        reason = (
            f"A result cannot travel from its worker: it is a '{kind}' ({error}). "
            "Return what it is made from."
        )
        return dumps_apart(_Stuck(reason))


def _restore(outcome: bytes, data: bytes, buffers: Sequence[Any]) -> Carried:
    carried = Carried.__new__(Carried)
    carried.outcome = outcome
    carried._value = None
    carried._data = data
    carried._buffers = buffers
    carried._lock = threading.Lock()
    return carried


class Delivered:
    """What a parcel of several dispatches gives back: what became of each, and the values that are large."""

    __slots__ = ("outcome", "values")

    def __init__(
        self, ticket: int, worker: str, rows: list[Row], values: dict[str, Carried]
    ) -> None:
        self.outcome = pickle.dumps(Ended(ticket, worker, rows), protocol=5)
        self.values = values

    def __sizeof__(self) -> int:
        return len(self.outcome) + sum(int(sizeof(value)) for value in self.values.values())


def item_of(delivered: Carried | Delivered, task_run_id: str) -> Carried:
    """Return the value of one task run out of what a Dask task gave back."""
    if isinstance(delivered, Carried):
        return delivered
    return delivered.values[task_run_id]


def outcome_of(delivered: Carried | Delivered) -> bytes:
    """Return what came with values, pickled: the task that asks for outcomes that were not heard of."""
    return delivered.outcome


class OfItem:
    """Applies a function to the value of one task run, out of what a Dask task gave back."""

    def __init__(self, function: Callable[[Any], Any], task_run_id: str) -> None:
        self.function = function
        self.task_run_id = task_run_id

    def __call__(self, delivered: Carried | Delivered) -> Any:
        """Apply it."""
        return self.function(item_of(delivered, self.task_run_id).value)


def applied(function: OfItem, delivered: Carried | Delivered) -> Any:
    """Return what a function makes of a value: the task that applies it where the value is."""
    return function(delivered)


class BodyFailed(Exception):
    """Makes a Dask key err, and with it what depends on it. Carries the outcome, cut to a small size."""

    def __init__(self, key: Key, outcome: bytes) -> None:
        super().__init__(key, outcome)

    @classmethod
    def of(cls, key: Key, outcome: Outcome) -> BodyFailed:
        """Return the failure that speaks of an outcome."""
        if isinstance(outcome, AttemptRaised | AttemptTimedOut):
            error = outcome.error
            blob = error.blob if error.blob is None or len(error.blob) <= MAX_BLOB else None
            error = replace(error, blob=blob, traceback=error.traceback[-MAX_TRACEBACK:])
            outcome = replace(outcome, error=error)
        return cls(key, pickle.dumps(outcome, protocol=5))

    @property
    def key(self) -> Key:
        """The dispatch whose body failed."""
        key: Key = self.args[0]
        return key

    @property
    def outcome(self) -> Outcome:
        """What became of it."""
        outcome: Outcome = pickle.loads(self.args[1])
        return outcome

    def __str__(self) -> str:
        return f"the body of {self.key} failed"

    def __repr__(self) -> str:
        return f"BodyFailed({self.key})"


class TakenBack(Exception):
    """Raised in the place of a body that was withdrawn before it began. Carries the number of its parcel."""
