"""The bodies of the benchmarks, for dflow and for raw Dask alike, and the tasks made of them."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dflow
from dflow.cache_policies import INPUTS
from task_runners import DaskTaskRunner, ThreadPoolTaskRunner

Array = NDArray[np.float64]

WORKERS: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1}
SLOTS = 2
TWO_WORKERS = DaskTaskRunner(cluster_kwargs=WORKERS)
TWO_THREADS = ThreadPoolTaskRunner(max_workers=2)


def same(x: int) -> int:
    """Return what is given: with this everything is warmed up, so that nothing is known of the others."""
    return x


def plus_one(x: int) -> int:
    """Do next to nothing."""
    return x + 1


def total(numbers: list[int]) -> int:
    """Add numbers up."""
    return sum(numbers)


def rest(seconds: float) -> float:
    """Take some time, and no processor."""
    time.sleep(seconds)
    return seconds


def compute(seconds: float) -> float:
    """Compute in pure Python, for so many seconds of this thread's own time on a processor."""
    end = time.thread_time() + seconds
    found = 0.0
    while time.thread_time() < end:
        found += sum(math.sqrt(n) for n in range(500))
    return seconds if found else 0.0


def add_to(n: int, array: Array) -> float:
    """Use a little of a large array."""
    return n + float(array[n])


def make(n: int, items: int) -> Array:
    """Make a chunk of data."""
    return np.full(items, float(n))


def transform(chunk: Array) -> Array:
    """Make another chunk of one."""
    return chunk * 2.0 + 1.0


def reduce(chunk: Array) -> float:
    """Make one number of a chunk."""
    return float(chunk.mean())


class TryAgain(Exception):
    """A first attempt."""


def at_once(x: int) -> int:
    """Succeed in whatever attempt this is."""
    return x if dflow.current_run().attempt else -1


def second_time(x: int) -> int:
    """Fail in the first attempt."""
    if dflow.current_run().attempt == 1:
        raise TryAgain
    return x


warm_task = dflow.task(same)
plus_one_task = dflow.task(plus_one)
remembered_task = dflow.task(plus_one, cache_policy=INPUTS)
total_task = dflow.task(total)
rest_task = dflow.task(rest)
compute_task = dflow.task(compute)
add_task = dflow.task(add_to)
make_task = dflow.task(make)
transform_task = dflow.task(transform)
reduce_task = dflow.task(reduce)
at_once_task = dflow.task(at_once, retries=1)
second_time_task = dflow.task(second_time, retries=1)
