"""Failures as exceptions: what a user catches, or is given, when a run did not complete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dflow.attempts.capture import capture, rebuild, type_name
from dflow.core.records import ErrorInfo
from dflow.errors import (
    CancelledError,
    CrashedError,
    DflowError,
    TaskFailedError,
    UpstreamFailedError,
    UpstreamLostError,
)


def failure_of(
    name: str,
    state_name: str,
    message: str,
    error: ErrorInfo | None,
    live: BaseException | None = None,
    root_state_name: str | None = None,
    root_name: str | None = None,
) -> BaseException:
    """Return what to raise for a run in a final state, in words or as the exception that its code raised.

    For a task run that never ran it is the exception of the task at whose failure the chain began, with a
    note that names the chain.
    """
    raised = (root_state_name or state_name) in ("Failed", "TimedOut")
    if state_name in ("Failed", "TimedOut", "UpstreamFailed") and raised and error is not None:
        same = isinstance(live, Exception) and type_name(live) == error.type_name
        original = live if same and live else rebuild(error, f"'{root_name or name}'")
        if state_name == "UpstreamFailed":
            _note(original, f"'{name}' did not run. {message}")
        return original
    kind: type[DflowError] = {
        "UpstreamFailed": UpstreamFailedError,
        "UpstreamLost": UpstreamLostError,
        "Crashed": CrashedError,
        "Cancelled": CancelledError,
    }.get(state_name, TaskFailedError)
    return kind(f"'{name}' has ended as {state_name}. {message}".strip())


def _note(error: BaseException, note: str) -> None:
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands in a call for the exception of a task run that was allowed to fail.

    It holds what `failure_of` takes, and travels also where the exception itself cannot: then that is
    rebuilt where it is needed. What had a value that cannot be had any more has only a `live` exception.
    """

    name: str
    state_name: str = "Failed"
    message: str = ""
    error: ErrorInfo | None = None
    live: BaseException | None = field(default=None, compare=False)
    root_state_name: str | None = None
    root_name: str | None = None

    def exception(self) -> BaseException:
        """Return the exception."""
        if self.error is None and self.live is not None:
            return self.live
        return failure_of(
            self.name,
            self.state_name,
            self.message,
            self.error,
            self.live,
            self.root_state_name,
            self.root_name,
        )

    def __reduce__(self) -> Any:
        """Travel in words, with a pickle of the exception if it has one."""
        error, state_name, root_state_name = self.error, self.state_name, self.root_state_name
        if error is None and self.live is not None:
            error, state_name, root_state_name = capture(self.live), "Failed", None
        where_it_began = (root_state_name, self.root_name)
        return Failure, (self.name, state_name, self.message, error, None, *where_it_began)
