"""The clusters and connections that open runners stand on: started at the first use, shared, closed once.

Runners that are equal share one per process. What a fork of this process inherits of them is dead there.
After all are closed no process, connection or thread is left but one: distributed keeps a thread for
serialization, "Dask-Offload", which is idle, a daemon, and cannot be ended without breaking what comes later.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit
from weakref import WeakSet

import dask
from distributed import Client, Scheduler, SpecCluster, Worker

from dflow.attempts.haste import hurry, in_haste, interrupted_twice
from dflow.errors import ClusterError
from task_runners.dask import hosting, settings, station, versions
from task_runners.dask.internals import hide_noise
from task_runners.dask.main_guard import script_of
from task_runners.dask.runner import DaskTaskRunner, OwnCluster
from task_runners.sharing import Shared

CONNECT = 10.0
"""Seconds in which a scheduler must answer."""
LEAVE = 0.5
"""Seconds after which a body that goes on does not hold up the end of a worker in this process."""

_log = logging.getLogger("dflow.runners")


class Cluster(Protocol):
    """What an open runner needs to know of a cluster."""

    @property
    def own(self) -> OwnCluster | None:
        """How it was asked for, if it is ours."""

    @property
    def script_there(self) -> bool:
        """Whether its workers have loaded the script that runs here."""

    def connect(self) -> Client:
        """Return a new client. Raises `ClusterError`."""

    def in_use(self) -> bool:
        """Tell whether a client of it is open."""

    def alive(self) -> bool:
        """Tell whether it can be used."""

    def importable(self, module: ModuleType) -> bool:
        """Tell whether its workers can import a module."""

    def close(self) -> None:
        """Let go of it; what is ours ends."""


class _Threads(Worker):
    """A worker in this process. Bodies that go on are not waited for long when it closes: they may hang."""

    async def close(  # type: ignore[override]  # its releases differ in what they take
        self,
        timeout: float = LEAVE,  # noqa: ASYNC109  (of distributed)
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Close, and leave behind what has not ended after so many seconds."""
        return await super().close(0.0 if in_haste() else timeout, *args, **kwargs)


class InProcess:
    """A cluster of threads in this process."""

    script_there = True

    def __init__(self, own: OwnCluster) -> None:
        _check_dashboard(own)
        self.own: OwnCluster | None = own
        self._quiet = _Quiet()
        self._clients: WeakSet[Client] = WeakSet()
        workers, _ = settings.size(own)
        try:
            # Dask reads these settings while it starts; afterwards they are the user's again.
            with dask.config.set(settings.configuration(own)):
                self._cluster = SpecCluster(
                    scheduler={"cls": Scheduler, "options": settings.scheduler(own)},
                    workers={
                        n: {"cls": _Threads, "options": settings.worker(own)}
                        for n in range(workers)
                    },
                )
        except Exception as error:
            self._quiet.end()
            raise ClusterError(f"The cluster in this process could not start: {error}") from error
        _tell_dashboard(own, self._cluster)

    def connect(self) -> Client:
        """Return a new client."""
        client = Client(self._cluster, set_as_default=False)
        self._clients.add(client)
        return client

    def in_use(self) -> bool:
        """Tell whether a client is open."""
        return _any_open(self._clients)

    def alive(self) -> bool:
        """Tell whether it runs."""
        return str(self._cluster.status.name) == "running"

    def importable(self, module: ModuleType) -> bool:
        """Tell whether a module is loaded: workers have what this process has."""
        return module.__name__ in sys.modules

    def close(self) -> None:
        """Close the cluster and end its threads."""
        try:
            self._cluster.close(timeout=CONNECT)
        except KeyboardInterrupt:
            self._cluster.shutdown_on_close = False  # nor does Dask wait for it at exit
            raise
        finally:
            self._quiet.end()


def _any_open(clients: Iterable[Client]) -> bool:
    return any(client.status != "closed" for client in list(clients))


class _Quiet:
    """Keeps distributed's reports on its own life from a user who asked only for a flow."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("distributed")
        self._level = self._logger.level
        if self._level == logging.INFO and not settings.logs_are_configured():
            self._logger.setLevel(logging.ERROR)

    def end(self) -> None:
        """Put the level back."""
        self._logger.setLevel(self._level)


class Connected:
    """A scheduler in another process; one thread serves all clients of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._clients: WeakSet[Client] = WeakSet()
        hide_noise()
        try:
            self.base = Client(address, set_as_default=False, timeout=CONNECT)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"The scheduler at '{address}' does not answer: {error}. "
                "Check the address, and that the cluster runs."
            ) from error

    def client(self, direct: bool | None) -> Client:
        """Return a new client."""
        try:
            client = Client(
                self.address,
                loop=self.base.loop,
                set_as_default=False,
                timeout=CONNECT,
                direct_to_workers=direct,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(f"The scheduler at '{self.address}' was lost: {error}.") from error
        self._clients.add(client)
        return client

    def in_use(self) -> bool:
        """Tell whether a client is open, beside that of the connection itself."""
        return _any_open(self._clients)

    def alive(self) -> bool:
        """Tell whether the connection stands."""
        return bool(self.base.status == "running")

    def close(self) -> None:
        """Close the connection, with all clients of it that are still open, and end its thread."""
        for client in (*self._clients, self.base):
            client.close(timeout=CONNECT)


class Processes:
    """A cluster of worker processes of ours, on this machine."""

    def __init__(self, own: OwnCluster) -> None:
        _check_dashboard(own)
        self.own: OwnCluster | None = own
        self.script_there = script_of(sys.modules.get("__main__")) is not None
        self._path = list(sys.path)
        self._known: dict[str, bool] = {}
        self._host = hosting.start(own)
        try:
            self._connected = Connected(self._host.address)
        except BaseException:
            self._host.close()
            raise
        _tell_dashboard(own, self._connected.base)

    @property
    def host_pid(self) -> int:
        """The process that has the scheduler and the nannies."""
        return self._host.pid

    def connect(self) -> Client:
        """Return a new client, that takes values straight from the workers."""
        return self._connected.client(direct=True)

    def in_use(self) -> bool:
        """Tell whether a client is open."""
        return self._connected.in_use()

    def alive(self) -> bool:
        """Tell whether its processes run."""
        return self._host.alive() and self._connected.alive()

    def importable(self, module: ModuleType) -> bool:
        """Tell whether a module is found by its name, with the search path that the workers got."""
        name = module.__name__
        if name not in self._known:
            self._known[name] = _found(module, self._path)
        return self._known[name]

    def close(self) -> None:
        """End its processes."""
        self._connected.close()
        self._host.close()


class External:
    """A cluster that is not ours."""

    own = None
    script_there = False

    def __init__(self, address: str) -> None:
        self._connected = Connected(address)
        self._known: dict[str, bool] = {}
        try:
            versions.check(self._connected.base, address)
        except BaseException:
            self._connected.close()
            raise

    def connect(self) -> Client:
        """Return a new client."""
        return self._connected.client(direct=None)

    def in_use(self) -> bool:
        """Tell whether a client is open."""
        return self._connected.in_use()

    def alive(self) -> bool:
        """Tell whether the connection stands."""
        return self._connected.alive()

    def importable(self, module: ModuleType) -> bool:
        """Ask all workers, once for each module, whether they can import it."""
        name = module.__name__
        if name not in self._known:
            answers = self._connected.base.run(station.importable, [name], on_error="return")
            self._known[name] = bool(answers) and all(a == [name] for a in answers.values())
        return self._known[name]

    def close(self) -> None:
        """Close the connection."""
        self._connected.close()


def _check_dashboard(own: OwnCluster) -> None:
    if own.dashboard and importlib.util.find_spec("bokeh") is None:
        raise ClusterError("dashboard=True needs bokeh: pip install 'dflow-dask[dashboard]'.")


def _tell_dashboard(own: OwnCluster, where: Any) -> None:
    if own.dashboard:
        port = urlsplit(where.dashboard_link).port
        _log.info("Dask's dashboard is at http://%s:%s/status", settings.LOOPBACK, port)


def _found(module: ModuleType, path: list[str]) -> bool:
    """Tell whether a search by name finds the very file that a module was loaded from."""
    search: Any = path
    spec = None
    parts = module.__name__.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        spec = PathFinder.find_spec(name, search) or _found_otherwise(name, search, count == 1)
        if spec is None:
            return False
        search = spec.submodule_search_locations
    origin = getattr(getattr(module, "__spec__", None), "origin", None) or getattr(
        module, "__file__", None
    )
    return spec is not None and (origin is None or spec.origin in (None, origin))


def _found_otherwise(name: str, search: Any, top: bool) -> Any:
    """Ask the other finders: for what is built in, and for packages installed to be edited."""
    for finder in sys.meta_path:
        find: Callable[..., Any] | None = getattr(finder, "find_spec", None)
        if find is not None and finder is not PathFinder:
            with contextlib.suppress(Exception):
                spec = find(name, None if top else search)
                if spec is not None:
                    return spec
    return None


# Sharing ---------------------------------------------------------------------------------------------


def _start(runner: DaskTaskRunner) -> Cluster:
    if runner.own is None:
        return External(runner.address or "")
    return Processes(runner.own) if runner.own.processes else InProcess(runner.own)


def _end(cluster: Cluster) -> None:
    try:
        cluster.close()
    except Exception:
        _log.warning("A cluster did not close in order.", exc_info=True)


def _patience(cluster: Cluster) -> float | None:
    return None if cluster.own is None else cluster.own.idle_seconds


shared: Shared[DaskTaskRunner, Cluster] = Shared(
    _start,
    lambda cluster: cluster.alive(),
    _end,
    in_use=lambda cluster: cluster.in_use(),
    patience=_patience,
)
"""The cluster of each runner: anew when it was lost, or was closed because nobody had used it for long.

Starting one may raise `ClusterError`.
"""


@atexit.register
def _end_all() -> None:
    if interrupted_twice():
        hurry()
    with contextlib.suppress(KeyboardInterrupt):  # whoever presses Ctrl-C now does not want to wait
        shared.close_all()
