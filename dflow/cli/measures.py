"""What task runs took of time, processors and memory: for each task in the middle, and at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypedDict

from dflow.core.records import Attempt, Ending, TaskRun


class MeasureFacts(TypedDict):
    """What the task runs of a group took: the median of them, and the most that one took."""

    median: float
    max: float


class UsageFacts(TypedDict):
    """What the bodies of a task took, by the last attempt of each task run that completed.

    `seconds` from start to end, `cpu` of processor time in seconds, `memory` the bytes that the process had
    resident at most, `bytes` the size of the value. Null where it is not known of any.
    """

    seconds: MeasureFacts | None
    cpu: MeasureFacts | None
    memory: MeasureFacts | None
    bytes: MeasureFacts | None


def of_runs(runs: Iterable[TaskRun]) -> UsageFacts:
    """Return what task runs took."""
    last = [run.attempts[-1] for run in runs if run.attempts]
    ended = [attempt for attempt in last if attempt.ending is Ending.SUCCEEDED]
    return UsageFacts(
        seconds=_measure(ended, lambda attempt: attempt.seconds),
        cpu=_measure(ended, lambda attempt: attempt.cpu),
        memory=_measure(ended, lambda attempt: attempt.memory),
        bytes=_measure(ended, lambda attempt: attempt.size),
    )


def _measure(
    attempts: Iterable[Attempt], of: Callable[[Attempt], float | None]
) -> MeasureFacts | None:
    known = sorted(value for attempt in attempts if (value := of(attempt)) is not None)
    if not known:
        return None
    return MeasureFacts(median=known[(len(known) - 1) // 2], max=known[-1])


def shown(measure: MeasureFacts | None, form: Callable[[float], str]) -> str:
    """Return a measure in words: the median and the most, or one of them if they look alike."""
    if measure is None:
        return ""
    median, most = form(measure["median"]), form(measure["max"])
    return median if median == most else f"{median} … {most}"
