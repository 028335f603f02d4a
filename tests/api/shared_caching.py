"""Cached tasks for tests in which several processes share a cache; each body says in a file that it ran."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from dflow import flow, task
from dflow.cache_policies import INPUTS, TASK_SOURCE
from task_runners import ThreadPoolTaskRunner

COUNT = 100
SAID = "SAID"
"""The environment variable that names the file."""


def say(what: Any, where: str | None = None) -> None:
    """Add a line to the oracle, in one write."""
    with open(where or os.environ[SAID], "ab", buffering=0) as file:
        file.write(f"{what} {os.getpid()}\n".encode())


@task(cache_policy=INPUTS)
def shared(number: int) -> dict[str, Any]:
    """Compute something for a while."""
    say(f"begin {number}")
    time.sleep(0.02)
    say(f"end {number}")
    return {"number": number, "data": bytes(number * 400)}


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def sweep(seed: int, *, submits: bool) -> int:
    """Ask for the same values as all others, in an order of its own."""
    numbers = list(range(COUNT))
    random.Random(seed).shuffle(numbers)
    if submits:
        futures: Any = [shared.submit(number) for number in numbers]
    else:
        futures = shared.map(numbers, max_in_flight=None if seed % 2 else 8)
    found = [future.result() for future in futures]
    assert [(value["number"], len(value["data"])) for value in found] == [
        (n, n * 400) for n in numbers
    ]
    return sum(future.state.name == "Cached" for future in futures)


@task(cache_policy=INPUTS + TASK_SOURCE - "said")
def first(words: set[str], options: dict[str, Any], said: str) -> dict[str, int]:
    """Be the beginning of a chain."""
    say("first", said)
    return {word: len(word) for word in sorted(words) if options}


@task(cache_policy=INPUTS + TASK_SOURCE - "said")
def second(counts: dict[str, int], said: str) -> bytes:
    """Be its middle, with a value that goes to the store."""
    say("second", said)
    return bytes(20_000 + sum(counts.values()))


@task(cache_policy=INPUTS + TASK_SOURCE - "said")
def third(data: bytes, said: str) -> int:
    """Be its end."""
    say("third", said)
    return len(data)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def chain(said: str) -> tuple[int, list[str]]:
    """Run the chain."""
    a = first.submit({"one", "two", "three"}, {"b": 2, "a": {"x", "y"}}, said)
    b = second.submit(a, said)
    c = third.submit(b, said)
    return c.result(), [future.state.name for future in (a, b, c)]


if __name__ == "__main__":
    Path(os.environ[SAID]).touch()
    if sys.argv[1] == "chain":
        print(*chain(os.environ[SAID]))
    else:
        print(sweep(int(sys.argv[1]), submits=sys.argv[2] == "submits"))
