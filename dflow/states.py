"""The states that users see: their types, their names, and which of them are final.

A *type* is one of nine; a *name* says more (``Cached`` and ``Completed`` are both of type COMPLETED).
This module owns those words, the `State` that is handed to users, and the makers of states by hand:
a flow or a task that returns ``Failed(message="too few rows")`` ends so. It must not know how a state
comes about: that is ``dflow.core.machine``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from dflow.errors import CancelledError, CrashedError, MissingResult, RunError, TaskFailedError

__all__ = [
    "FINAL_TYPES",
    "TYPE_OF_NAME",
    "AwaitingRetry",
    "Cached",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "Paused",
    "Pending",
    "Retrying",
    "Running",
    "Scheduled",
    "State",
    "StateType",
    "TimedOut",
    "UpstreamFailed",
]


class StateType(StrEnum):
    """The nine types of state of a flow run or a task run.

    >>> StateType.COMPLETED == "COMPLETED"
    True
    """

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"


FINAL_TYPES = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
)
"""The types of state that end a run, within one generation."""

TYPE_OF_NAME: dict[str, StateType] = {
    "Scheduled": StateType.SCHEDULED,
    "Pending": StateType.PENDING,
    "Running": StateType.RUNNING,
    "Retrying": StateType.SCHEDULED,
    "AwaitingRetry": StateType.SCHEDULED,
    "Completed": StateType.COMPLETED,
    "Cached": StateType.COMPLETED,
    "Failed": StateType.FAILED,
    "TimedOut": StateType.FAILED,
    "UpstreamFailed": StateType.FAILED,
    "UpstreamLost": StateType.FAILED,
    "Crashed": StateType.CRASHED,
    "Cancelling": StateType.CANCELLING,
    "Cancelled": StateType.CANCELLED,
    "Paused": StateType.PAUSED,
    "Interrupted": StateType.PAUSED,
}
"""Every name that dflow gives to a state, with its type."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What is known of a run at one moment.

    `type` is one of `StateType`, `name` a word from `TYPE_OF_NAME`, `message` one readable line and
    `timestamp` the time in UTC at which the run entered this state.

    >>> state = Failed(message="too few rows")
    >>> state.name, state.is_final(), state.result(raise_on_failure=False)
    ('Failed', True, TaskFailedError('too few rows'))
    """

    type: StateType
    name: str
    message: str = ""
    timestamp: datetime | None = None
    _outcome: Callable[[], Any] | None = field(default=None, repr=False)
    _beside: Callable[[Callable[[], Any]], Awaitable[Any]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Keep the message as text, whatever was given: it is recorded with the run."""
        message: Any = self.message
        if not isinstance(message, str):
            object.__setattr__(self, "message", "" if message is None else str(message))

    def result(self, raise_on_failure: bool = True) -> Any:
        """Return the value of a completed run, or raise what made it fail.

        With ``raise_on_failure=False`` the exception is returned instead of raised. Raises
        `dflow.errors.MissingResult` for a state that is not final or whose value was not kept.
        """
        if self._outcome is None:
            raise MissingResult(
                f"A state '{self.name}' has no result. "
                "Wait until the run is final and ask for its state again."
            )
        try:
            return self._outcome()
        except MissingResult:
            raise
        except (Exception, SystemExit) as error:
            if raise_on_failure or self.is_completed():
                raise
            return error

    async def aresult(self, raise_on_failure: bool = True) -> Any:
        """Return what `result` returns, fetched without holding up the event loop."""
        if self._beside is None:
            return self.result(raise_on_failure)
        return await self._beside(partial(self.result, raise_on_failure))

    def is_scheduled(self) -> bool:
        """Tell whether the run waits for a time."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Tell whether the run waits for its turn."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Tell whether the run's code is running."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Tell whether the run ended well."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Tell whether the run's code, or something it depends on, failed."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Tell whether the run ended because its workers died."""
        return self.type is StateType.CRASHED

    def is_cancelling(self) -> bool:
        """Tell whether the run has been asked to stop and has not stopped yet."""
        return self.type is StateType.CANCELLING

    def is_cancelled(self) -> bool:
        """Tell whether the run was cancelled."""
        return self.type is StateType.CANCELLED

    def is_paused(self) -> bool:
        """Tell whether the run waits for somebody to resume it."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Tell whether the run has ended."""
        return self.type in FINAL_TYPES


# Makers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """What a state that was made by hand gives as its result."""

    type: StateType
    message: str
    data: Any

    def __call__(self) -> Any:
        if self.type is StateType.COMPLETED:
            return self.data
        if isinstance(self.data, BaseException):
            raise self.data
        kinds: dict[StateType, type[RunError]] = {
            StateType.CANCELLED: CancelledError,
            StateType.CRASHED: CrashedError,
        }
        raise kinds.get(self.type, TaskFailedError)(self.message or f"{self.type.capitalize()}.")


def _made(name: str, message: str, data: Any = None) -> State:
    kind = TYPE_OF_NAME[name]
    return State(
        kind, name, message, None, _Given(kind, message, data) if kind in FINAL_TYPES else None
    )


def Completed(*, data: Any = None, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return a state of type COMPLETED, whose result is `data`.

    >>> Completed(data=5).result()
    5
    """
    return _made("Completed", message, data)


def Cached(*, data: Any = None, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return a state of type COMPLETED for a value that was already there, whose result is `data`.

    >>> Cached(data=5).type
    <StateType.COMPLETED: 'COMPLETED'>
    """
    return _made("Cached", message, data)


def Failed(*, data: Any = None, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return a state of type FAILED; `data` may be the exception behind it.

    >>> Failed(message="too few rows").is_failed()
    True
    """
    return _made("Failed", message, data)


def TimedOut(*, data: Any = None, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return a state of type FAILED for what took too long; `data` may be the exception behind it.

    >>> TimedOut(message="after 5 s").is_failed()
    True
    """
    return _made("TimedOut", message, data)


def UpstreamFailed(*, data: Any = None, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return a state of type FAILED for what never ran; `data` may be the exception behind it.

    >>> UpstreamFailed(message="load failed").is_failed()
    True
    """
    return _made("UpstreamFailed", message, data)


def Crashed(*, data: Any = None, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return a state of type CRASHED; `data` may be the exception behind it.

    >>> Crashed(message="out of memory").is_crashed()
    True
    """
    return _made("Crashed", message, data)


def Cancelled(*, data: Any = None, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return a state of type CANCELLED; `data` may be the exception behind it.

    >>> Cancelled(message="not needed any more").is_final()
    True
    """
    return _made("Cancelled", message, data)


def Pending(*, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return the state of a run that waits for its turn.

    >>> Pending(message="waits for a worker").is_pending()
    True
    """
    return _made("Pending", message)


def Running(*, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return the state of a run that runs.

    >>> Running(message="epoch 3").is_running()
    True
    """
    return _made("Running", message)


def Cancelling(*, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return the state of a run that was asked to stop.

    >>> Cancelling(message="asked to stop").is_cancelling()
    True
    """
    return _made("Cancelling", message)


def Scheduled(*, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return the state of a run that waits for a time.

    >>> Scheduled(message="at midnight").is_scheduled()
    True
    """
    return _made("Scheduled", message)


def Retrying(*, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return the state of a run that is about to be tried again.

    >>> Retrying(message="attempt 2").is_scheduled()
    True
    """
    return _made("Retrying", message)


def AwaitingRetry(*, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return the state of a run that waits for the time of its next attempt.

    >>> AwaitingRetry(message="in 60 s").is_scheduled()
    True
    """
    return _made("AwaitingRetry", message)


def Paused(*, message: str = "") -> State:  # noqa: N802  (a kind of state)
    """Return the state of a run that waits for somebody to resume it.

    >>> Paused(message="look at the data first").is_paused()
    True
    """
    return _made("Paused", message)
