"""Attempts on Dask: the only room that knows Dask and distributed.

`runner` describes, `clusters` starts and shares, `open_runner` is at work for one flow run. What runs on
workers is in `execution` and `station`. Importing this package loads neither Dask nor distributed.
"""

from __future__ import annotations

from task_runners.dask.runner import DaskTaskRunner

__all__ = ["DaskTaskRunner", "in_process"]


def in_process() -> DaskTaskRunner:
    """Return the runner with a Dask cluster of threads in this process: no start-up time, no pickling."""
    return DaskTaskRunner(cluster_kwargs={"processes": False})
