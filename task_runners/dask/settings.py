"""How clusters of our own are set, where Dask's defaults do not suit us.

These settings are given to the clusters we start; the user's own Dask configuration is left alone.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import dask
from dask.system import CPU_COUNT

from task_runners.dask.runner import OwnCluster

LOOPBACK = "127.0.0.1"
SATURATION = 2.0
"""Tasks that a worker has at hand for each thread: enough that it never waits for the scheduler."""


def size(own: OwnCluster) -> tuple[int, int]:
    """Return the number of workers and of threads for each."""
    workers, threads = own.n_workers, own.threads_per_worker
    if not own.processes:
        workers = workers or 1
        return workers, threads or max(1, CPU_COUNT // workers)
    if workers is None and threads is None:
        workers = _processes(CPU_COUNT)
    if workers is None:
        return max(1, CPU_COUNT // (threads or 1)), threads or 1
    return workers, threads or max(1, CPU_COUNT // workers)


def _processes(cores: int) -> int:
    """Return a number of processes that divides the cores: one each on small machines, else few fat ones."""
    if cores <= 4:
        return cores
    least = max(4, math.isqrt(cores - 1) + 1)
    return min(n for n in range(least, cores + 1) if cores % n == 0)


def configuration(own: OwnCluster) -> dict[str, Any]:
    """Return the Dask configuration of a cluster of our own."""
    workers, _ = size(own)
    cores = str(max(1, CPU_COUNT // workers))
    return {
        # Our tracker decides about every death: nothing is silently run again on another worker.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.worker-saturation": SATURATION,
        # A body may hold the interpreter's lock for long; that its process has died is seen at once anyway.
        "distributed.scheduler.worker-ttl": "1 hour",
        "distributed.scheduler.active-memory-manager.start": False,
        "distributed.scheduler.events-cleanup-delay": "1 minute",
        # A worker that takes long to start again is still one of the cluster.
        "distributed.deploy.lost-worker-timeout": "1 hour",
        # Each of scheduler, nannies and workers would wake up 50 times a second to see whether it is late.
        "distributed.admin.tick.interval": "500ms",
        # Bodies may use multiprocessing.
        "distributed.worker.daemon": False,
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.worker.profile.enabled": False,
        # The logs of messages would keep what they carried.
        "distributed.admin.low-level-log-length": 100,
        # Dask would give each worker one thread for arithmetic.
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": cores,
        "distributed.nanny.pre-spawn-environ.MKL_NUM_THREADS": cores,
        "distributed.nanny.pre-spawn-environ.OPENBLAS_NUM_THREADS": cores,
    }


def logs_are_configured() -> bool:
    """Tell whether the user's Dask configuration says what is to be logged."""
    top: dict[str, Any] = dask.config.config
    keys = {"logging", "logging-file-config"}
    return bool(keys & top.keys() or keys & top.get("distributed", {}).keys())


def scheduler(own: OwnCluster) -> dict[str, Any]:
    """Return the options of the scheduler. What it serves by HTTP is bound to loopback, on any free port."""
    return {**_common(own), "dashboard": own.dashboard}


def worker(own: OwnCluster) -> dict[str, Any]:
    """Return the options of a worker."""
    workers, threads = size(own)
    options = {**_common(own), "nthreads": threads, "dashboard": False}
    options["resources"] = dict(own.resources)
    if not own.processes:
        # Values are never spilled: that would make copies of them, and some cannot be copied.
        return {**options, "memory_limit": 0}
    share = 1.0 / workers  # of the machine's memory
    return {
        **options,
        "memory_limit": share if own.memory_limit is None else own.memory_limit,
        "silence_logs": logging.ERROR,
    }


def _common(own: OwnCluster) -> dict[str, Any]:
    http = {"dashboard_address": f"{LOOPBACK}:0"}
    if own.processes:
        return {**http, "protocol": "tcp://", "host": LOOPBACK}
    return {**http, "protocol": "inproc://"}
