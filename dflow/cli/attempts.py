"""What is recorded of attempts, as data; see `dflow.cli.facts`."""

from __future__ import annotations

from typing import TypedDict

from dflow.cli import text
from dflow.core.records import Attempt, ErrorInfo


class ErrorFacts(TypedDict):
    """An exception in words."""

    type: str
    text: str
    traceback: str


class AttemptFacts(TypedDict):
    """One execution of a body. `ending` is succeeded, raised, timed_out, lost, stopped, abandoned or open.

    `cpu` is the processor time of its thread in seconds, `memory` the bytes that its process had resident at
    most, as far as is known, `bytes` the size of its value; null where nobody could tell.
    """

    generation: int
    number: int
    worker: str
    started_at: str
    seconds: float | None
    cpu: float | None
    memory: int | None
    bytes: int | None
    ending: str
    cause: str | None
    error: ErrorFacts | None


def attempt_facts(attempt: Attempt) -> AttemptFacts:
    """Return the facts of an attempt from its record."""
    seconds = attempt.seconds
    if seconds is None and attempt.ended_at is not None:
        seconds = attempt.ended_at - attempt.started_at
    return AttemptFacts(
        generation=attempt.generation,
        number=attempt.number,
        worker=attempt.worker,
        started_at=text.iso(attempt.started_at),
        seconds=seconds,
        cpu=attempt.cpu,
        memory=attempt.memory,
        bytes=attempt.size,
        ending=str(attempt.ending),
        cause=None if attempt.cause is None else str(attempt.cause),
        error=error_facts(attempt.error),
    )


def error_facts(error: ErrorInfo | None) -> ErrorFacts | None:
    """Return an exception in words, if there was one."""
    if error is None:
        return None
    return ErrorFacts(type=error.type_name, text=error.text, traceback=error.traceback)
