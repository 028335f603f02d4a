"""The states that users see: their types, their names, and which of them are final.

A *type* is one of nine; a *name* says more (``Cached`` and ``Completed`` are both of type COMPLETED).
This module owns those words and the `State` that is handed to users. It must not know how a state
comes about: that is ``dflow.core.machine``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dflow.errors import MissingResult


class StateType(StrEnum):
    """The nine types of state of a flow run or a task run."""

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
    """

    type: StateType
    name: str
    message: str = ""
    timestamp: datetime | None = None
    _outcome: Callable[[], Any] | None = field(default=None, repr=False)

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
        except Exception as error:
            if raise_on_failure or self.is_completed():
                raise
            return error

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
