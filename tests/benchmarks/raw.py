"""Raw Dask, in a process of its own: the threads of two drivers in one process would slow each other down."""

from __future__ import annotations

import gc
import multiprocessing
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from dask.distributed import Client, LocalCluster

from tests.benchmarks.ending import end_after
from tests.benchmarks.work import WORKERS

T = TypeVar("T")


class RawDask:
    """A driver of raw Dask with a cluster as `LocalCluster` makes it. It ends when this process does."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs,), name="raw-dask")
        self._process.start()
        theirs.close()
        self.call(_warm)

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self._process.pid or 0)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return what a function gives there, whose first argument is the client. Raises what it raises."""
        self._pipe.send((function, args))
        good, found = self._pipe.recv()
        if not good:
            raise RuntimeError(f"In the process of raw Dask:\n{found}")
        value: T = found
        return value

    def close(self) -> None:
        """Close its cluster, and end its process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection) -> None:
    """Call what is asked for until nobody asks any more, or the parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_after(parent.join)
    with (
        suppress(EOFError, KeyboardInterrupt),
        LocalCluster(**WORKERS, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        while True:
            function, args = pipe.recv()
            try:
                answer = True, function(client, *args)
            except Exception:
                answer = False, traceback.format_exc()
            del function, args
            gc.collect()
            pipe.send(answer)


def _warm(client: Client) -> None:
    client.gather(client.map(_first, range(10), pure=False))


def _first(x: int) -> int:
    return x
