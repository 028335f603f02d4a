"""Tasks whose results are kept, for tests of results: each execution leaves a line in a file."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dflow import task
from dflow.core.records import FlowRun, Held, Stored, TaskRun
from dflow.results import register_serializer
from dflow.results.stores import store
from tests.api.shared_flows import seen

SIZE = 100_000
"""How many bytes a large result has, about."""


def note(oracle: str | None, what: str) -> None:
    """Leave a line: what ran, and in which process."""
    if oracle is not None:
        with Path(oracle).open("a", encoding="utf-8") as file:
            file.write(f"{what} {os.getpid()}\n")


def ran(oracle: Path) -> list[str]:
    """Return what has run, in order."""
    return [line.split()[0] for line in oracle.read_text(encoding="utf-8").splitlines()]


@task
def large(number: int, oracle: str | None = None) -> np.ndarray[Any, Any]:
    """Return what does not fit into the record."""
    note(oracle, f"large-{number}")
    return np.full(SIZE // 8, float(number))


@task
def small(number: int) -> dict[str, int]:
    """Return what fits."""
    return {"number": number}


@task
async def large_async(number: int) -> np.ndarray[Any, Any]:
    """Return the same, on a loop."""
    await asyncio.sleep(0)
    return np.full(SIZE // 8, float(number))


@task
def large_items(number: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield what does not fit together."""
    for _ in range(3):
        yield np.full(SIZE // 8, float(number))


@task
async def large_async_items(number: int) -> AsyncIterator[np.ndarray[Any, Any]]:
    """Yield the same, on a loop."""
    for _ in range(3):
        yield np.full(SIZE // 8, float(number))


@task
def total(arrays: Any, oracle: str | None = None) -> float:
    """Take the values of others."""
    note(oracle, "total")
    return float(np.sum(arrays))


@task
def several(numbers: list[int]) -> float:
    """Call, submit and map tasks inside of a task."""
    called = large(numbers[0])
    mapped = large.map(numbers[1:]).result()
    return float(np.sum([called, *mapped]))


@task
def cannot_be_pickled() -> Any:
    """Return a large value with a lock in it."""
    return [np.zeros(SIZE), threading.Lock()]


@task
def tuples() -> Any:
    """Return what JSON would turn into something else."""
    return [(number, number) for number in range(SIZE // 10)]


class Backwards:
    """A serializer of texts, of a user's."""

    def dumps(self, value: str) -> bytes:
        """Return the text, backwards."""
        return value[::-1].encode()

    def loads(self, data: bytearray) -> str:
        """Return it."""
        return data.decode()[::-1]


register_serializer("backwards", Backwards())


class Slow:
    """A serializer that takes its time."""

    def dumps(self, value: Any) -> bytes:
        """Return a pickle, after longer than any deadline of the tests."""
        threading.Event().wait(1.3)
        return pickle.dumps(value)

    def loads(self, data: bytearray) -> Any:
        """Return the value."""
        return pickle.loads(data)


register_serializer("slow", Slow())


@task(result_serializer="backwards")
def text() -> str:
    """Return a large text."""
    return "abc" * (SIZE // 3)


# What is recorded ------------------------------------------------------------------------------------


def held(name: str) -> tuple[Held, Stored | None]:
    """Return where the value of a task run, or a flow run, of the latest run is."""
    runs: list[TaskRun | FlowRun] = [*seen().tasks, *seen().flows]
    (run,) = [run for run in runs if run.name == name]
    return run.held, run.stored


def stored(name: str) -> Stored:
    """Return where the value of a task run of the latest run is stored; its file must be there."""
    where, found = held(name)
    assert where is Held.STORED, where
    assert found is not None
    assert store(found.storage).size(found.path) == found.size
    return found


def place(name: str) -> Path:
    """Return the file in which the value of a task run of the latest run is stored."""
    found = stored(name)
    return Path(found.storage.removeprefix("file://")) / found.path


def not_kept(name: str) -> bool:
    """Tell whether the value of a task run of the latest run is only at its runner."""
    return held(name) == (Held.RUNNER, None)
