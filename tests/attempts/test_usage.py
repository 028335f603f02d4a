"""What is measured of an attempt: processor time, memory, the size of the value."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

from dflow.attempts import body, usage
from dflow.attempts.calls import Call
from dflow.attempts.context import RunContext
from dflow.attempts.performing import Manner
from dflow.attempts.usage import Memory, Usage
from dflow.core.events import AttemptRaised, AttemptSucceeded, Outcome
from dflow.core.records import Held
from tests.attempts.recorder import Recorder, info

BUSY = 0.05
"""Seconds for which a body keeps a processor busy."""


def run(function: Callable[..., Any], **about: Any) -> Outcome:
    """Run a function as an attempt, and return its outcome."""
    outcome, _ = body.run(info(**about), lambda: (Call(function), {}), Recorder())
    return outcome


def busy() -> None:
    """Keep a processor busy."""
    until = time.thread_time() + BUSY
    while time.thread_time() < until:
        pass


def idle() -> None:
    """Take as long, and no processor."""
    threading.Event().wait(BUSY)


async def busy_on_a_loop() -> None:
    """Keep a processor busy in a coroutine."""
    await asyncio.sleep(0)
    busy()


def cpu_of(outcome: Outcome) -> float:
    """Return the processor time of an attempt."""
    assert outcome.cpu is not None
    return outcome.cpu


@pytest.mark.parametrize("function", [busy, busy_on_a_loop])
@pytest.mark.parametrize("timeout", [None, 30.0])
def test_the_time_of_processors_is_that_of_the_body(
    function: Callable[[], Any], timeout: float | None
) -> None:
    """Also where it runs on a loop of its own, and in a thread of its own, since it has a deadline."""
    outcome = run(function, timeout=timeout)
    assert isinstance(outcome, AttemptSucceeded)
    assert cpu_of(outcome) >= BUSY


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_to_wait_takes_no_processor(timeout: float | None) -> None:
    """An attempt that waits takes time, and next to no time of processors."""
    outcome = run(idle, timeout=timeout)
    assert outcome.seconds >= BUSY
    assert cpu_of(outcome) < BUSY / 2


def test_failures_are_measured_too() -> None:
    """What raises has taken as much."""

    def fails() -> None:
        busy()
        raise ValueError("no")

    outcome = run(fails)
    assert isinstance(outcome, AttemptRaised)
    assert cpu_of(outcome) >= BUSY
    assert outcome.memory is not None


def test_who_shares_a_loop_has_no_time_of_its_own() -> None:
    """A coroutine that its caller awaits takes turns with others in one thread: nobody can tell."""

    async def called() -> Outcome:
        context = RunContext(info=info(), link=Recorder())
        call = Call(busy_on_a_loop)
        outcome, _ = await body.attempt(context, lambda: (call, {}), Manner(in_place=True))
        return outcome

    assert asyncio.run(called()).cpu is None


def test_the_memory_is_that_of_the_process() -> None:
    """A body that takes much memory, and still has it at its end, is seen to."""
    size = 80_000_000
    before = psutil.Process().memory_info().rss

    def takes() -> np.ndarray[Any, Any]:
        made = np.ones(size, dtype=np.uint8)
        idle()
        return made

    outcome = run(takes)
    assert isinstance(outcome, AttemptSucceeded)
    assert outcome.held is Held.RUNNER
    assert outcome.size == size
    assert outcome.memory is not None
    assert outcome.memory > before + size * 0.9


@pytest.mark.parametrize(
    ("before", "after", "known"),
    [
        (Memory(0.0, 10, 50), Memory(1.0, 20, 50), 20),
        (Memory(0.0, 30, 50), Memory(1.0, 20, 50), 30),
        (Memory(0.0, 10, 50), Memory(1.0, 20, 70), 70),
        (Memory(0.0, 10, None), Memory(1.0, 20, None), 20),
        (Memory(0.0, None, 50), Memory(1.0, None, 50), None),
        (Memory(0.0, None, 50), Memory(1.0, None, 60), 60),
    ],
)
def test_a_new_peak_is_of_who_runs(
    before: Memory, after: Memory, known: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new peak of the process is exact; otherwise what was seen before or after is what is known."""
    seen = iter([before, after])
    monkeypatch.setattr(usage, "looked", lambda: next(seen))
    assert Usage().memory() == known


def test_nobody_looks_all_the_time() -> None:
    """For what begins right after a look that look counts: to look takes as long as a small body."""
    first = usage.looked()
    while usage.looked() is first:
        pass
    second = usage.looked()
    assert second.at - first.at >= usage.LOOK
    assert usage.looked() is second


class Sulking:
    """An object that says its size only by an error."""

    @property
    def nbytes(self) -> int:
        """Refuse."""
        raise RuntimeError("ask me later")


@pytest.mark.parametrize(
    ("value", "size"),
    [(b"x" * 100, 115), ("x" * 50_000, 50_000), (np.zeros(5000), 40_000), (Sulking(), None)],
)
def test_the_size_of_a_value_is_known_without_more_ado(value: Any, size: int | None) -> None:
    """Of a small one that of its pickle, of a large one what it says of itself, if it does."""
    outcome = run(lambda: value, small=10_000 if size else 0)
    assert isinstance(outcome, AttemptSucceeded)
    assert outcome.size == size
