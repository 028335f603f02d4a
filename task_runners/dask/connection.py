"""One client of one cluster for one flow run: graphs go out by it, and what Dask knows comes back.

What comes back is posted as calls, to be made by the thread that owns the flow run's book. The client's own
thread, which all clients of a cluster share, only passes things on. There are two ways of holding work and
of hearing what becomes of it, `owned` and `plain`; what both have in common is here.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client

from dflow.errors import ClusterError
from dflow.messages import Down, Key
from task_runners.dask import internals, names, placements, station
from task_runners.dask.carried import OfItem
from task_runners.dask.clusters import Cluster
from task_runners.dask.graph import Draft
from task_runners.dask.left_work import Left
from task_runners.dask.line import Line, Post, Way
from task_runners.dask.owned import Owned
from task_runners.dask.parcels import DaskKey, Parcel
from task_runners.dask.plain import Plain
from task_runners.dask.reader import Reader

MEMORY = "worker-restart-memory"
"""The topic on which distributed's nannies tell that they stop a worker for its memory."""
GOODBYE = 5.0
"""Seconds that workers get to let a flow run go."""

ANSWER = 10.0
"""Seconds in which workers answer what a driver wants to know before it goes on."""

FORCE = "DFLOW_DASK_WAY"
"""The environment variable that can ask for the plain way, where the owned one could be taken."""

_log = logging.getLogger("dflow.runners")


class Connection:
    """A client at work for one flow run."""

    def __init__(
        self, cluster: Cluster, post: Post, reader: Reader, owner: str = "", lease: float = 0.0
    ) -> None:
        """Connect. An `owner` is the name that work is owned by, kept `lease` seconds without a driver."""
        self.cluster = cluster
        self._post = post
        self._reader = reader
        self._letters: list[tuple[str, Key, Down, dict[Key, DaskKey | bytes]]] = []
        self._delivering = False
        self._client: Client = cluster.connect()
        local = cluster.own is not None and not cluster.own.processes
        self._line, self._way = _way(cluster, self._client, post, reader, owner, lease)
        self.run = self._line.run
        self._places = names.places_topic(self.run)
        self._watches_places = False
        if not local:
            self._line.listen(internals.DEATHS, self._on_death)
            self._line.listen(MEMORY, self._on_memory)

    @property
    def alive(self) -> bool:
        """Whether the scheduler is there, and knows of this work."""
        return self._way.alive

    # Out --------------------------------------------------------------------------------------------

    def submit(self, draft: Draft) -> None:
        """Hand a graph to Dask, hold all its keys, and begin to watch its dispatches."""
        if any(each.placement.resources or each.placement.workers for each in draft.parcels):
            self._watch_places()
        self._way.submit(draft, placements.on_graph(draft.parcels, self._places))

    def status(self, key: DaskKey) -> str:
        """Return pending, finished, error, lost or cancelled; cancelled too for a key that is not held."""
        return self._way.status(key)

    def release(self, keys: Sequence[DaskKey], *, light: bool = False) -> None:
        """Let go of keys: of `light` ones, whose values came with their outcomes, there is no hurry."""
        self._way.release(keys, light=light)

    def _watch_places(self) -> None:
        """See to it that the scheduler finds workers that are named, and tells what nobody can take."""
        if self._watches_places:
            return
        try:
            self._client.register_plugin(placements.Places())
        except Exception as error:
            raise ClusterError(
                f"The Dask scheduler does not take a plugin, which resources= and workers= need: {error!r}."
            ) from error
        self._line.listen(self._places, self._on_nowhere)
        self._watches_places = True

    def gather(self, key: DaskKey) -> Any:
        """Return what a key holds. Raises whatever Dask raises, KeyError for a key that is not held."""
        return self._way.gather(key)

    def left(self) -> list[Left]:
        """Return what an earlier driver of the flow run has left here."""
        return self._way.left() if isinstance(self._way, Owned) else []

    def take_up(self, parcels: Sequence[Parcel]) -> None:
        """Go on with what an earlier driver has left, and tell what is known of it; all else is let go."""
        if isinstance(self._way, Owned):
            keys = [parcel.dask_key for parcel in parcels]
            attempts = [entry.key for parcel in parcels for entry in parcel.left]
            self._way.take_up(keys, attempts, self._way.tell)

    def withdraw(self, tickets: Sequence[int]) -> None:
        """Let workers refuse dispatches that have not begun."""
        self._line.in_loop(self._forbid, tickets)

    def gather_each(self, keys: Sequence[DaskKey]) -> Mapping[DaskKey, Any]:
        """Return what those of several keys hold that can be gathered in one go."""
        return self._way.gather_each(keys)

    def recover(self, ticket: int, key: DaskKey) -> None:
        """Ask for the outcome that came with a value."""
        self._way.recover(ticket, key)

    def deliver(
        self, worker: str, key: Key, message: Down, places: dict[Key, DaskKey | bytes]
    ) -> None:
        """Send a message to an attempt on a worker; messages arrive in the order of these calls."""
        self._letters.append((worker, key, message, places))
        self._line.in_loop(self._deliver)

    def apply(self, function: Callable[[Any], Any], key: DaskKey, task_run_id: str) -> Any:
        """Return what a function makes of a value, on the cluster. Raises whatever that raises."""
        return self._way.apply(OfItem(function, task_run_id), key)

    def ask_threads(self, told: Callable[[int], None]) -> None:
        """Find out how many threads the workers have."""
        self._line.in_loop(self._ask_threads, told)

    def each_host(self, function: Callable[..., Any], *args: Any) -> Mapping[str, Any]:
        """Call a function on one worker of each host; return what came of it, by host."""
        hosts: dict[str, str] = {}
        with contextlib.suppress(Exception):  # without answers nothing is known
            for address, worker in self._client.scheduler_info(n_workers=-1)["workers"].items():
                hosts.setdefault(worker["host"], address)
            answers = self._client.sync(
                self._client.run,
                function,
                *args,
                workers=list(hosts.values()),
                on_error="ignore",
                callback_timeout=ANSWER,
            )
            return {host: answers[worker] for host, worker in hosts.items() if worker in answers}
        return {}

    def close(self) -> None:
        """Let go of everything: nothing of this flow run stays with the cluster."""
        with contextlib.suppress(Exception):
            if self.alive:
                self._client.sync(self._leave, callback_timeout=GOODBYE)
        self._way.close()
        with contextlib.suppress(Exception):
            self._client.close(timeout=GOODBYE)

    async def _leave(self) -> None:
        for topic in self._line.topics:
            self._client.unsubscribe_topic(topic)
        if await self._way.leave():
            await self._client.run(station.close, self.run, on_error="ignore")
        if self._watches_places:
            await self._client.run_on_scheduler(internals.forget_topic, self._places)

    # In, in the client's thread -----------------------------------------------------------------------

    async def _ask_threads(self, told: Callable[[int], None]) -> None:
        with contextlib.suppress(Exception):
            scheduler: Any = self._client.scheduler
            known = await scheduler.identity(n_workers=0)
            self._post(lambda: told(known["total_threads"]))

    async def _forbid(self, tickets: Sequence[int]) -> None:
        begun: set[int] = set()
        with contextlib.suppress(Exception):
            answers = await self._client.run(station.forbid, self.run, tickets, on_error="ignore")
            begun = {ticket for answer in answers.values() for ticket in answer}
        left = [ticket for ticket in tickets if ticket not in begun]
        self._post(lambda: self._reader.taken_back(left))

    async def _deliver(self) -> None:
        """Send the letters that wait, one journey at a time, so that they keep their order."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._letters:
                waiting, self._letters = self._letters, []
                for worker in dict.fromkeys(letter[0] for letter in waiting):
                    await self._deliver_to(worker, [one for one in waiting if one[0] == worker])
        finally:
            self._delivering = False

    async def _deliver_to(
        self, worker: str, letters: Sequence[tuple[str, Key, Down, dict[Key, DaskKey | bytes]]]
    ) -> None:
        places = {key: place for *_, some in letters for key, place in some.items()}
        messages = [(key, message) for _, key, message, _ in letters]
        with contextlib.suppress(Exception):  # a worker that is gone hears nothing
            await self._client.run(
                station.deliver, self.run, messages, places, workers=[worker], on_error="ignore"
            )

    def _on_death(self, event: tuple[float, dict[str, Any]]) -> None:
        _, death = event
        worker, how = death["worker"], _how(death["exitcode"])
        self._post(lambda: self._reader.died(worker, how))

    def _on_memory(self, event: tuple[float, dict[str, Any]]) -> None:
        _, notice = event
        how = f"was stopped because it used too much memory ({notice['rss'] / 2**20:,.0f} MiB)"
        self._post(lambda: self._reader.died(notice["worker"], how))

    def _on_nowhere(self, event: tuple[float, dict[str, Any]]) -> None:
        _, news = event
        self._post(lambda: self._reader.nowhere(news["ticket"], news["cluster"]))


def _way(
    cluster: Cluster, client: Client, post: Post, reader: Reader, owner: str, lease: float
) -> tuple[Line, Way]:
    """Return the owned way, if it can be taken, else the plain one."""
    foreign = cluster.own is None
    local = cluster.own is not None and not cluster.own.processes
    if owner and os.environ.get(FORCE) != "plain":
        line = Line(client, post, reader, names.run_of(owner), foreign, local)
        try:
            return line, Owned(line, owner, lease)
        except Exception as problem:
            _log.info(
                "Dask is used by its public interface alone; a driver that dies takes its work along: %s",
                problem,
            )
    line = Line(client, post, reader, names.run_of_client(), foreign, local)
    return line, Plain(line)


def _how(exitcode: int) -> str:
    if exitcode < 0:
        try:
            name = f" ({signal.Signals(-exitcode).name})"
        except ValueError:
            name = ""
        return f"was killed by signal {-exitcode}{name}"
    return f"ended by itself, with exit code {exitcode}"
