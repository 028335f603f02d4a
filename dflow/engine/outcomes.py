"""Failures as exceptions: what a user catches when a run did not complete."""

from __future__ import annotations

from dflow.attempts.capture import rebuild
from dflow.core.records import ErrorInfo, TaskRun
from dflow.errors import (
    CancelledError,
    CrashedError,
    DflowError,
    UpstreamFailedError,
    UpstreamLostError,
)


def failure(run: TaskRun, root: TaskRun, live: BaseException | None) -> BaseException:
    """Return what to raise for a task run that ended without a value.

    `root` is the task run with which a chain of upstream failures began (or `run` itself), `live` the
    exception object where it was raised in this process.
    """
    return failure_of(
        run.name, run.state_name, run.message, root.error, live, root.state_name, root.name
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
        original = live if isinstance(live, Exception) else rebuild(error, f"'{root_name or name}'")
        if state_name == "UpstreamFailed":
            _note(original, f"'{name}' did not run. {message}")
        return original
    kind: type[DflowError] = {
        "UpstreamFailed": UpstreamFailedError,
        "UpstreamLost": UpstreamLostError,
        "Crashed": CrashedError,
        "Cancelled": CancelledError,
    }.get(state_name, CrashedError)
    return kind(f"'{name}' has ended as {state_name}. {message}".strip())


def _note(error: BaseException, note: str) -> None:
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
