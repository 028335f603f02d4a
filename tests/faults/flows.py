"""The flows whose drivers are killed: each kind of work that dflow promises to find again.

Every body leaves its lines in the oracle; every flow notes what it was shown before it goes on. What a flow
returns is the same in every run, whatever was killed in between.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dflow import (
    Flow,
    TaskFuture,
    allow_failure,
    as_completed,
    current_run,
    flow,
    get_run_logger,
    task,
    unmapped,
)
from dflow.cache_policies import INPUTS
from dflow.errors import JournalUnavailable
from tests.faults.oracle import Made, called, executed, happened, note

MOMENT = 0.004
"""Seconds that most bodies take."""
STEADY = 60
"""Task runs of the flow that writes all the time."""


def number_of(value: Any) -> int:
    """Return the number behind what a body was given."""
    if isinstance(value, Made):
        return value.number
    if isinstance(value, list | tuple):
        return sum(map(number_of, value))
    return -1 if isinstance(value, Exception) else int(value)


def shown(oracle: str, value: Made) -> int:
    """Note a value that was shown; only then it is used."""
    note(oracle, "shown", run=value.run, by=value.by)
    return value.number


def result(oracle: str, future: TaskFuture[Made]) -> int:
    """Wait for a value and note it."""
    return shown(oracle, future.result())


def seen(oracle: str, future: TaskFuture[Any]) -> str:
    """Wait for a state and note it."""
    future.wait()
    name = future.state.name
    note(oracle, "seen", run=future.task_run_id, state=name)
    return name


# Tasks -----------------------------------------------------------------------------------------------


@task
def step(oracle: str, *given: Any) -> Made:
    """Add up."""
    with executed(oracle) as make:
        time.sleep(MOMENT)
        return make(number_of(given) + 1)


@task
def tiny(oracle: str, n: int) -> Made:
    """Do nothing."""
    with executed(oracle) as make:
        return make(n)


@task
def large(oracle: str, n: int) -> Made:
    """Return what the journal does not keep."""
    with executed(oracle) as make:
        time.sleep(MOMENT)
        return make(n, bytes([n % 256]) * 50_000)


@task(persist_result=True)
def stored(oracle: str, n: int) -> Made:
    """Return what is too large for the journal, and is stored."""
    with executed(oracle) as make:
        time.sleep(MOMENT)
        return make(n, bytes([n % 256]) * 50_000)


@task(cache_policy=INPUTS)
def cached(oracle: str, n: int) -> Made:
    """Return what is found again by its inputs."""
    with executed(oracle) as make:
        time.sleep(MOMENT)
        return make(n)


@task(cache_policy=INPUTS)
def cached_large(oracle: str, n: int) -> Made:
    """Return what is large, and found again by its inputs."""
    with executed(oracle) as make:
        return make(n, bytes([n % 256]) * 50_000)


@task(retries=2, retry_delay_seconds=[0.0, 0.03])
def flaky(oracle: str, n: int) -> Made:
    """Raise once or twice, then add."""
    key = str(current_run().task_run_id)
    with executed(oracle) as make:
        for time_ in range(1 + n % 2):
            if not happened(oracle, f"raised {time_}", key):
                raise ValueError(f"not yet: {time_}")
        return make(n)


@task(retries=1)
def failing(oracle: str, n: int) -> Made:
    """Raise always."""
    with executed(oracle):
        raise ValueError(f"never: {n}")


@task(timeout_seconds=0.15, retries=5)
def slow_at_first(oracle: str, n: int) -> Made:
    """Take too long once."""
    with executed(oracle) as make:
        if not happened(oracle, "slow", str(current_run().task_run_id)):
            time.sleep(0.4)
        return make(n)


@task
def parent(oracle: str, n: int) -> Made:
    """Submit, map and call other tasks."""
    with executed(oracle) as make:
        submitted = [step.submit(oracle, n, i) for i in range(2)]
        mapped = tiny.map(unmapped(oracle), range(3))
        total = shown(oracle, step(oracle, n))
        return make(total + sum(result(oracle, future) for future in [*submitted, *mapped]))


@task
def forking(oracle: str, n: int) -> Made:
    """Fork; the child asks for a task, in vain, and ends, or just goes on."""
    with executed(oracle) as make:
        child = os.fork()
        if child == 0:
            try:
                step(oracle, -n)
                note(oracle, "doubled")
            except JournalUnavailable:
                note(oracle, "refused in a fork")
            if n % 2:
                os._exit(0)
        else:
            os.waitpid(child, 0)
        return make(n)


@task
def numbers(oracle: str, count: int) -> list[int]:
    """Return numbers to map over."""
    with executed(oracle):
        return list(range(count))


@task
async def waiting(oracle: str, n: int) -> Made:
    """Wait a moment on the event loop."""
    with executed(oracle) as make:
        await asyncio.sleep(MOMENT)
        return make(n)


# Flows -----------------------------------------------------------------------------------------------


@flow
def chain(oracle: str) -> int:
    """Each task run takes the value of the one before; some are shown on the way."""
    future = step.submit(oracle, 0)
    for n in range(14):
        future = step.submit(oracle, future)
        if n % 4 == 3:
            result(oracle, future)
    return result(oracle, future)


@flow
def maps(oracle: str) -> int:
    """A map, a map over its futures, one over a future of a list, and one value of all."""
    first = step.map(unmapped(oracle), range(15))
    second = step.map(unmapped(oracle), list(first), max_in_flight=4)
    third = tiny.map(unmapped(oracle), numbers.submit(oracle, 10))
    total = step.submit(oracle, list(second), list(third))
    return sum(result(oracle, future) for future in second) + result(oracle, total)


@flow
def many(oracle: str) -> int:
    """One map of many task runs that do nothing."""
    return sum(result(oracle, future) for future in tiny.map(unmapped(oracle), range(300)))


@flow
def retries(oracle: str) -> int:
    """Bodies that raise at first, with and without a delay before they are tried again."""
    futures = [flaky.submit(oracle, n) for n in range(8)]
    called_here = shown(oracle, flaky(oracle, 21))
    return called_here + sum(result(oracle, future) for future in futures)


@flow
def timeouts(oracle: str) -> int:
    """Bodies that take too long at first."""
    return sum(result(oracle, f) for f in [slow_at_first.submit(oracle, n) for n in range(3)])


@flow
def innermost(oracle: str, n: int) -> int:
    """A subflow of a subflow."""
    with called(oracle):
        return result(oracle, step.submit(oracle, n))


@flow
def inner(oracle: str, n: int) -> int:
    """A subflow with task runs of its own, and a subflow."""
    with called(oracle):
        total = sum(result(oracle, f) for f in step.map(unmapped(oracle), range(n, n + 3)))
        return total + innermost(oracle, n)


@task
def calls_flow(oracle: str, n: int) -> Made:
    """A task in which a flow is called."""
    with executed(oracle) as make:
        return make(inner(oracle, n))


@flow
def subflows(oracle: str) -> int:
    """Flows called in a flow, and in tasks."""
    futures = [calls_flow.submit(oracle, 10 + n) for n in range(2)]
    total = sum(inner(oracle, n) for n in range(3))
    return total + sum(result(oracle, future) for future in futures)


@flow
def nested(oracle: str) -> int:
    """Tasks that ask for tasks."""
    return sum(result(oracle, f) for f in [parent.submit(oracle, n) for n in range(4)])


@flow
def calls(oracle: str) -> int:
    """Tasks that are called, one after the other, each with the value of the one before."""
    value = step(oracle, 0)
    for _ in range(12):
        shown(oracle, value)
        value = step(oracle, value)
    return shown(oracle, value)


@flow
async def asynchronous(oracle: str) -> int:
    """Coroutines that are awaited together, and futures that are."""
    made = await asyncio.gather(*(waiting(oracle, n) for n in range(8)))
    total = sum(shown(oracle, value) for value in made)
    futures = [waiting.submit(oracle, total + n) for n in range(4)]
    futures += [step.submit(oracle, future) for future in futures]
    return total + sum([shown(oracle, await future) for future in futures])


@flow
def as_they_complete(oracle: str) -> int:
    """What follows is submitted in the order in which what came before has ended."""
    futures = [step.submit(oracle, n) for n in range(10)]
    following = [step.submit(oracle, future) for future in as_completed(futures)]
    last = [step.submit(oracle, result(oracle, future)) for future in as_completed(following)]
    return sum(result(oracle, future) for future in last)


@flow
def failures(oracle: str) -> list[object]:
    """What fails, what follows from it, what is allowed to fail, and what only waits."""
    bad = failing.submit(oracle, 1)
    hit = step.submit(oracle, bad)
    allowed = step.submit(oracle, allow_failure(bad))
    good = step.submit(oracle, 5)
    after = step.submit(oracle, 6, wait_for=[good, allowed])
    never = step.submit(oracle, 7, wait_for=[hit])
    states = [seen(oracle, future) for future in (bad, hit, never)]
    return [*states, result(oracle, allowed), result(oracle, after)]


@flow
def not_kept(oracle: str) -> int:
    """Values that are too large to be kept, and what is made of them."""
    middle = [step.submit(oracle, large.submit(oracle, n)) for n in range(5)]
    last = large.submit(oracle, 100)
    total = sum(result(oracle, future) for future in middle)
    return total + result(oracle, step.submit(oracle, last)) + result(oracle, last)


@flow
def kept_in_a_store(oracle: str) -> int:
    """Values that are stored, by their workers or where they are called, and what is made of them."""
    middle = [step.submit(oracle, stored.submit(oracle, n)) for n in range(5)]
    mapped = stored.map(unmapped(oracle), range(10, 14))
    here = shown(oracle, stored(oracle, 20))
    total = sum(result(oracle, future) for future in [*middle, *mapped])
    return total + here + result(oracle, step.submit(oracle, list(mapped)))


@flow
def found_in_the_cache(oracle: str) -> int:
    """Values that are computed once, and found in the cache from then on."""
    total = sum(result(oracle, future) for future in cached.map(unmapped(oracle), range(6)))
    total += sum(result(oracle, cached.submit(oracle, n)) for n in range(6))
    total += sum(shown(oracle, cached_large(oracle, n)) for n in range(3))
    again = [cached_large.submit(oracle, n) for n in range(3)]
    return total + sum(result(oracle, step.submit(oracle, future)) for future in again)


@flow(retries=2)
def tried_again(oracle: str) -> int:
    """A flow that fails at first; its finished work is found again."""
    total = sum(result(oracle, future) for future in step.map(unmapped(oracle), range(4)))
    for time_ in range(2):
        if not happened(oracle, f"raised {time_}", "the flow"):
            raise ValueError("not yet")
        total += shown(oracle, step(oracle, 100 + time_))
    return total


@flow
def in_threads(oracle: str) -> int:
    """Calls and submits from threads of the flow's own."""
    with ThreadPoolExecutor(4) as pool:
        called_there = [
            pool.submit(contextvars.copy_context().run, step, oracle, n) for n in range(6)
        ]
        submitted = [pool.submit(current_run().bind(step.submit), oracle, 10 + n) for n in range(6)]
        total = sum(shown(oracle, call.result()) for call in called_there)
        return total + sum(result(oracle, future.result()) for future in submitted)


@flow
def cancels(oracle: str) -> int:
    """Work that the flow itself cancels, among work that goes on."""
    futures = [step.submit(oracle, n) for n in range(6)]
    left = [step.submit(oracle, future) for future in futures]
    for future in left[::2]:
        future.cancel()
    for future in left:
        seen(oracle, future)
    return sum(result(oracle, future) for future in futures)


@flow
def forks(oracle: str) -> int:
    """Bodies that fork, and a flow that does."""
    futures = [forking.submit(oracle, n) for n in range(8)]
    child = os.fork()
    if child == 0:
        try:
            step(oracle, -100)
            note(oracle, "doubled")
        except JournalUnavailable:
            note(oracle, "refused in a fork")
        os._exit(0)
    os.waitpid(child, 0)
    return sum(result(oracle, future) for future in futures)


@flow
def steady(oracle: str) -> int:
    """Task runs one after the other, with log lines: something is written all the time."""
    total = 0
    for n in range(STEADY):
        get_run_logger().info("at %d", n)
        total += result(oracle, step.submit(oracle, n))
    return total


@dataclass(frozen=True, slots=True)
class Case:
    """A flow and what it returns; `runners` are those that it is tried on."""

    flow: Flow[..., Any]
    value: object
    runners: tuple[str, ...] = ("inline", "threads", "dask-in-process")


NOT_INLINE = ("threads", "dask-in-process")

CASES: Mapping[str, Case] = {
    "chain": Case(chain, 15),
    "maps": Case(maps, sum(range(15)) + 30 + (sum(range(15)) + 30 + 45 + 1)),
    "many": Case(many, sum(range(300))),
    "retries": Case(retries, 21 + 28),
    "timeouts": Case(timeouts, 3),
    "subflows": Case(subflows, sum(3 * n + 6 + n + 1 for n in (0, 1, 2, 10, 11))),
    "nested": Case(nested, sum(3 * n + 6 + 1 for n in range(4))),
    "calls": Case(calls, 13),
    "async": Case(asynchronous, 28 + sum(2 * (28 + n) + 1 for n in range(4))),
    "as completed": Case(as_they_complete, sum(range(10)) + 30, NOT_INLINE),
    "failures": Case(failures, ["Failed", "UpstreamFailed", "UpstreamFailed", 0, 7]),
    "not kept": Case(not_kept, 15 + 101 + 100),
    "stored": Case(kept_in_a_store, 15 + 46 + 20 + 47),
    "cached": Case(found_in_the_cache, 15 + 15 + 3 + 6),
    "flow retried": Case(tried_again, 10 + 101 + 102),
    "threads of its own": Case(in_threads, 21 + 81),
    "forks": Case(forks, 28, ("inline", "threads", "dask-in-process")),
    "steady": Case(steady, STEADY * (STEADY + 1) // 2, ()),
    "cancels": Case(cancels, 21, NOT_INLINE),
}
