"""Outcomes in few bytes: rows, for many attempts that one worker has run one after the other.

A row begins with the place of the attempt among them. Alone it says that the attempt was taken back before it
began; with `BACK`, that this one and all behind it were given back; with `LONG`, that it takes its time.
A value that a body returned, or an exception that it raised, is mostly a row of plain values; any other
outcome is in its row as it is.
"""

from __future__ import annotations

from typing import Any

from dflow.core.events import AttemptRaised, AttemptSucceeded, Outcome
from dflow.core.records import ErrorInfo, Held
from dflow.messages import Key

Row = tuple[Any, ...]

BACK = None
"""Stands in a row for: given back."""
LONG = True
"""Stands in a row for: it takes its time, or waits for others."""


_last_memory: list[int | None] = [None]
"""The same number for most attempts of a process: one object stands for all of them."""


def row_of(place: int, outcome: Outcome, worker: str) -> Row:
    """Return an outcome as a row of those of a worker."""
    if (
        type(outcome) is AttemptSucceeded
        and not outcome.message
        and outcome.stored is None
        and outcome.worker == worker
        and outcome.held is (Held.RUNNER if outcome.value is None else Held.JOURNAL)
    ):
        return (
            place,
            outcome.started_at,
            outcome.seconds,
            outcome.cpu,
            outcome.memory,
            outcome.size,
            outcome.value,
        )
    if type(outcome) is AttemptRaised and outcome.worker == worker:
        error = outcome.error
        return (
            place,
            outcome.started_at,
            outcome.seconds,
            outcome.cpu,
            outcome.memory,
            (outcome.retriable, outcome.luck),
            error.type_name,
            error.text,
            error.traceback,
            error.blob,
        )
    return place, outcome


def outcome_in(row: Row, key: Key, worker: str) -> Outcome:
    """Return the outcome of a dispatch that is in a row."""
    if len(row) == 2:
        outcome: Outcome = row[1]
        return outcome
    _, started_at, seconds, cpu, memory, *rest = row
    last = _last_memory[0]
    if memory == last:
        memory = last
    else:
        _last_memory[0] = memory
    if len(rest) > 2:
        (retriable, luck), *error = rest
        return AttemptRaised(
            at=started_at + seconds,
            task_run_id=key[0],
            dispatch=key[1],
            started_at=started_at,
            seconds=seconds,
            worker=worker,
            cpu=cpu,
            memory=memory,
            error=ErrorInfo(*error),
            retriable=retriable,
            luck=luck,
        )
    size, value = rest
    return AttemptSucceeded(
        at=started_at + seconds,
        task_run_id=key[0],
        dispatch=key[1],
        started_at=started_at,
        seconds=seconds,
        worker=worker,
        cpu=cpu,
        memory=memory,
        held=Held.RUNNER if value is None else Held.JOURNAL,
        value=value,
        size=size,
    )


def weight_of(row: Row) -> int:
    """Return about how many bytes a row takes on its way."""
    if len(row) == 2:
        error = getattr(row[1], "error", None)
        return 1_000 + (0 if error is None else len(error.traceback) + len(error.blob or b""))
    return 60 + sum(map(len, filter(None, row[6:])))
