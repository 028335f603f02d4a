"""Flows that wait in every way there is, until a gate is open: to be stopped meanwhile. Each returns 1.

As a program: ``python -m tests.faults.waits FLOW ORACLE GATE``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

from dflow import flow, task
from tests.faults.oracle import Made, executed, note

LONG = 120.0
"""Seconds for which whatever waits would wait."""


def _closed(gate: str) -> bool:
    return not Path(gate).exists()


def _sleep(oracle: str) -> None:
    """Sleep in one call, and note it from another thread, as soon as that is certain.

    Python notices a signal late, or never, that comes while a thread is waiting to let go of the interpreter
    in order to sleep: a moment of microseconds, but of many milliseconds on a busy machine.
    """
    threading.Timer(0.3, note, (oracle, "waits")).start()
    time.sleep(LONG)


@task
def waiting(oracle: str, gate: str) -> Made:
    """Wait in one long call."""
    with executed(oracle) as make:
        if _closed(gate):
            note(oracle, "waits")
            threading.Event().wait(LONG)
        return make(1)


@task
def stubborn(oracle: str, gate: str) -> Made:
    """Wait, and swallow whatever is raised in here."""
    with executed(oracle) as make:
        note(oracle, "waits")
        until = time.monotonic() + LONG
        while _closed(gate) and time.monotonic() < until:
            try:
                time.sleep(0.02)
            except BaseException:
                note(oracle, "swallowed")
        return make(1)


@task
async def dozing(oracle: str, gate: str, n: int) -> Made:
    """Wait on the event loop."""
    with executed(oracle) as make:
        if _closed(gate):
            note(oracle, "waits")
            await asyncio.sleep(LONG)
        return make(n)


@task(retries=1, retry_delay_seconds=5)
def failing_once(oracle: str, gate: str) -> Made:
    """Fail, while the gate is closed."""
    with executed(oracle) as make:
        if _closed(gate):
            note(oracle, "waits")
            raise ValueError("not yet")
        return make(1)


@task
def quick(oracle: str, n: int) -> Made:
    """Take a moment."""
    with executed(oracle) as make:
        time.sleep(0.02)
        return make(n)


@flow
def submitted(oracle: str, gate: str) -> int:
    """Wait for the result of a body that waits."""
    return waiting.submit(oracle, gate).result().number


@flow
def called(oracle: str, gate: str) -> int:
    """Wait in a body that was called."""
    return waiting(oracle, gate).number


@flow
def swallowing(oracle: str, gate: str) -> int:
    """Wait for a body that cannot be stopped."""
    return stubborn.submit(oracle, gate).result().number


@flow
def itself(oracle: str, gate: str) -> int:
    """Wait in the flow's own body, while other work goes on."""
    futures = [quick.submit(oracle, n) for n in range(20)]
    if _closed(gate):
        _sleep(oracle)
    return 1 if sum(future.result().number for future in futures) == 190 else 0


@flow
def retrying(oracle: str, gate: str) -> int:
    """Wait for the time of a retry."""
    return failing_once.submit(oracle, gate).result().number


@flow(retries=1, retry_delay_seconds=LONG)
def retried(oracle: str, gate: str) -> int:
    """Wait for the time at which the flow is tried again."""
    if _closed(gate):
        note(oracle, "waits")
        raise ValueError("not yet")
    return 1


@flow
async def asynchronous(oracle: str, gate: str) -> int:
    """Wait for coroutines."""
    values = await asyncio.gather(dozing(oracle, gate, 1), dozing.submit(oracle, gate, 2))
    return min(value.number for value in values)


@flow
def busy(oracle: str, gate: str) -> int:
    """Have much work under way, and more to do."""
    note(oracle, "waits")
    futures = quick.map([oracle] * 400, range(400))
    if _closed(gate):
        futures.wait()
        time.sleep(LONG)
    return 1 if sum(value.number for value in futures.result()) == sum(range(400)) else 0


@flow
def polling(oracle: str, gate: str) -> int:
    """Have all work done, and end when the gate opens."""
    number = quick(oracle, 1).number
    note(oracle, "waits")
    until = time.monotonic() + LONG
    while _closed(gate) and time.monotonic() < until:
        time.sleep(0.01)
    return number


FLOWS = (submitted, called, swallowing, itself, retrying, retried, asynchronous, busy)

if __name__ == "__main__":
    chosen = {flow.fn.__name__: flow for flow in FLOWS}[sys.argv[1]]
    value = chosen(sys.argv[2], sys.argv[3])
    print(asyncio.run(value) if asyncio.iscoroutine(value) else value)
