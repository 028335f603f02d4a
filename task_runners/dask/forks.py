"""Worker processes as forks of one that has loaded Dask, instead of new ones that each load it: on Linux.

That process, multiprocessing's fork server, is started as soon as its environment is known, so that it loads
Dask while this process does. Where it is not what Dask would have given to new processes, these are spawned.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, set_forkserver_preload

import dask

from task_runners.dask import forked

METHOD = "distributed.worker.multiprocessing-method"
BEFORE = "distributed.nanny.pre-spawn-environ"
"""Dask's settings: how worker processes are made, and variables that they have from their start on."""
DEFAULTS = {"MALLOC_TRIM_THRESHOLD_": "65536", "PYTHONHASHSEED": "6640"}
"""What Dask gives to new worker processes unless it is told otherwise."""
MODULES = ("distributed", "task_runners.dask.execution")


class ForkServer:
    """The fork server of this process, begun with what is known before Dask's workers are loaded.

    It also loads these modules: what every script that uses us loads.
    """

    def __init__(self, configuration: Mapping[str, object], modules: Sequence[str]) -> None:
        self._asked: str | None = dask.config.get(METHOD, None)  # by the user: ours is not set yet
        self._given: dict[str, str] = {}
        if sys.platform == "linux" and self._asked in (None, "forkserver"):
            with dask.config.set(configuration):
                self._given = {**DEFAULTS, **variables()}
            begin(self._given, [*MODULES, *modules])

    @property
    def method(self) -> str:
        """How worker processes are to be made, now that all of Dask's settings are known."""
        wanted = {"PYTHONHASHSEED": DEFAULTS["PYTHONHASHSEED"], **variables()}
        return method(self._asked, self._given, wanted)


def method(asked: str | None, given: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Return how worker processes are made: forks only have what the fork server was given."""
    if not given:
        return asked or "spawn"
    return "forkserver" if wanted.items() <= given.items() else "spawn"


def variables() -> dict[str, str]:
    """Return the variables that Dask's settings want for worker processes; those that are set go first."""
    found = dask.config.get(BEFORE, None) or {}
    return {
        name: os.environ.get(name, str(value)) for name, value in found.items() if value is not None
    }


def begin(given: Mapping[str, str], modules: Sequence[str]) -> None:
    """Start the fork server, with these variables, and with the search path of this process."""
    start = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
    before = dict(os.environ)
    orders = {"environment": {name: before.get(name) for name in start}, "modules": list(modules)}
    added = {**given, **start, forked.ORDERS: json.dumps(orders)}
    os.environ.update(added)
    try:
        set_forkserver_preload([forked.__name__])
        forkserver.ensure_running()
    finally:
        for name in added:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]
