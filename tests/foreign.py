"""Clusters that are not ours, as anybody starts them: reached by their address, with Dask's own settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import LocalCluster


@contextmanager
def foreign_cluster(**options: Any) -> Iterator[LocalCluster]:
    """Give a cluster of two worker processes with one thread each, or as `options` say."""
    shape = {"n_workers": 2, "threads_per_worker": 1} | options
    dashboards = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**shape, **dashboards, silence_logs=50) as made:
        yield made
