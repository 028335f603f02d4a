"""The process in which the scheduler and the nannies of a cluster of ours live: ``python -m`` this module.

It reads one line of configuration from its standard input, starts the cluster, and writes one line, the
address of the scheduler or what went wrong, to a pipe. It runs nobody's script and no bodies. It ends, with
all its workers, when it is told to, and at once when its driver is gone: when its standard input ends or its
parent is another one (a fork of the driver may hold the pipe open).
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from multiprocessing import process, resource_tracker
from types import ModuleType
from typing import Any

import psutil

from task_runners.dask.runner import OwnCluster

LOOK = 0.5
"""Seconds between two looks at whether the driver lives."""
CLOSING = 4.0
"""Seconds that workers get to close."""


class Tie:
    """Watches the driver: by the pipe from it, and by being its child."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self.told_to_close = threading.Event()

    def watch(self) -> None:
        """Begin to watch. When the driver goes without a word, this process ends at once."""
        threading.Thread(target=self._listen, name="dflow-listen", daemon=True).start()
        threading.Thread(target=self._look, name="dflow-look", daemon=True).start()

    def _listen(self) -> None:
        if sys.stdin.buffer.readline():
            self.told_to_close.set()
        else:
            end_at_once()

    def _look(self) -> None:
        while os.getppid() == self._parent:
            if self.told_to_close.wait(LOOK):
                return
        end_at_once()


def end_at_once() -> None:
    """End this process and all that came from it."""
    kill(psutil.Process().children(recursive=True))
    os._exit(1)


def start_cleaner() -> None:
    """Start the process in which multiprocessing cleans up after a process that could not.

    It would warn of what it finds, on the terminal of a user who has killed the driver on purpose.
    """
    quiet = "ignore:resource_tracker:UserWarning"
    sys.warnoptions.append(quiet)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes that may have ended already; the cleaner ends by itself once they have."""
    cleaner = getattr(resource_tracker._resource_tracker, "_pid", None)
    for child in processes:
        if child.pid == cleaner:
            continue
        try:
            child.kill()
        except psutil.Error:
            continue


def adopt(configuration: dict[str, Any]) -> None:
    """Take over what workers are to have of the driver: search path, folder, arguments, script."""
    if configuration["python_path"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = configuration["python_path"]
    sys.path[:] = configuration["path"]
    sys.argv[:] = configuration["argv"]
    os.chdir(configuration["cwd"])
    if configuration["original_dir"] is not None:
        process.ORIGINAL_DIR = configuration["original_dir"]  # type: ignore[attr-defined]  # not in its stubs
    sys.modules["__main__"] = stand_in(configuration["script"])


def stand_in(script: dict[str, str | None] | None) -> ModuleType:
    """Return a main module from which multiprocessing reads what its children are to load."""
    main = ModuleType("__main__")
    if script is not None and script["name"] is not None:
        main.__spec__ = ModuleSpec(script["name"], None)
    elif script is not None and script["path"] is not None:
        main.__file__ = script["path"]
    return main


def start(configuration: dict[str, Any], failed: Callable[[str], None]) -> Any:
    """Start the cluster and return it; `failed` is called if a worker ends before it is one."""
    import dask  # lazy: found by the search path that was adopted

    from task_runners.dask import settings  # lazy: it imports Dask
    from task_runners.dask.forks import METHOD, ForkServer  # lazy: the same

    own = OwnCluster(**configuration["cluster"])
    if not settings.logs_are_configured():
        os.environ["DASK_LOGGING__DISTRIBUTED"] = "error"  # read by workers when they load Dask
    # It loads Dask while this process does.
    forks = ForkServer(settings.configuration(own), configuration["loaded"])

    from distributed import Scheduler, SpecCluster  # lazy: the same

    from task_runners.dask.heap import Heap  # lazy: the same
    from task_runners.dask.internals import (
        ReportingNanny,
        Residents,
        keep_preload,
    )  # lazy: the same

    ReportingNanny.never_started = lambda code: failed(
        f"a worker process ended while it started (exit code {code}). What it wrote is above."
    )
    dask.config.set(settings.configuration(own))
    keep_preload()
    dask.config.set({METHOD: forks.method})
    # How workers end the driver tells, in its own words.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    options = {**settings.worker(own), "plugins": (Heap(),)}
    return SpecCluster(
        scheduler={
            "cls": Scheduler,
            "options": {**settings.scheduler(own), "plugins": (Residents(),)},
        },
        workers={
            number: {"cls": ReportingNanny, "options": options}
            for number in range(settings.size(own)[0])
        },
    )


class Report:
    """The one line that the driver waits for."""

    def __init__(self, to: int) -> None:
        self._lock = threading.Lock()
        self._to = to
        self._written = False

    def write(self, message: dict[str, str]) -> None:
        """Write the line, if it was not written before."""
        with self._lock:
            if not self._written:
                self._written = True
                with os.fdopen(self._to, "w") as pipe:
                    pipe.write(json.dumps(message) + "\n")

    def failed(self, why: str) -> None:
        """Say that there is no cluster, and end."""
        self.write({"error": why})
        end_at_once()


def main() -> None:
    """Run the cluster for as long as the driver wants it."""
    configuration = json.loads(sys.stdin.buffer.readline())
    report = Report(configuration["report_to"])
    tie = Tie(configuration["parent"])
    tie.watch()
    try:
        adopt(configuration)
        start_cleaner()
        cluster = start(configuration, report.failed)
    except BaseException as error:
        report.failed(f"{type(error).__name__}: {error}")
        raise
    report.write({"address": cluster.scheduler_address})
    tie.told_to_close.wait()
    processes = psutil.Process().children(recursive=True)
    try:
        cluster.close(timeout=CLOSING)
    finally:
        kill(processes)
        os._exit(0)


if __name__ == "__main__":
    main()
