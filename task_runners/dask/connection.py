"""One client of one cluster for one flow run: graphs go out by it, and what Dask knows comes back.

What comes back is posted as calls, to be made by the thread that owns the flow run's book. The client's own
thread, which all clients of a cluster share, only passes things on.
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

from dask.base import annotate
from distributed import Client, Future, as_completed

from dflow.attempts.link import open_batch
from dflow.errors import ClusterError
from dflow.messages import Down, Key
from task_runners.dask import internals, placements, station
from task_runners.dask.carried import applied, outcome_of
from task_runners.dask.clusters import Cluster
from task_runners.dask.graph import Draft
from task_runners.dask.parcels import DaskKey
from task_runners.dask.reader import Reader
from task_runners.dask.sequence import Sequences

MEMORY = "worker-restart-memory"
"""The topic on which distributed's nannies tell that they stop a worker for its memory."""
GOODBYE = 5.0
"""Seconds that workers get to let a flow run go."""

ANSWER = 10.0
"""Seconds in which workers answer what a driver wants to know before it goes on."""

_log = logging.getLogger("dflow.runners")

Post = Callable[[Callable[[], None]], None]


class Connection:
    """A client at work for one flow run."""

    def __init__(self, cluster: Cluster, post: Post, reader: Reader) -> None:
        self.cluster = cluster
        self.run = os.urandom(3).hex()
        self._post = post
        self._reader = reader
        self._sequences = Sequences()
        self._futures: dict[DaskKey, Future] = {}
        self._letters: list[tuple[str, Key, Down, dict[Key, DaskKey | bytes]]] = []
        self._delivering = False
        self._client: Client = cluster.connect()
        self._local = cluster.own is not None and not cluster.own.processes
        self._places = f"{station.topic_of(self.run)}-places"
        self._topics = {} if self._local else self._subscribe()

    def _subscribe(self) -> dict[str, Callable[[Any], None]]:
        topics: dict[str, Callable[[Any], None]] = {
            station.topic_of(self.run): self._on_batch,
            internals.DEATHS: self._on_death,
            MEMORY: self._on_memory,
        }
        if self.cluster.own is None:
            topics["all"] = self._on_scheduler_event
        for topic, handler in topics.items():
            self._client.subscribe_topic(topic, handler)
        return topics

    @property
    def alive(self) -> bool:
        """Whether the scheduler is there."""
        return bool(self._client.status == "running")

    # Out --------------------------------------------------------------------------------------------

    def submit(self, draft: Draft) -> None:
        """Hand a graph to Dask, hold all its keys, and begin to watch its dispatches."""
        keys = list(draft.graph)
        if any(each.placement.resources or each.placement.workers for each in draft.parcels):
            self._watch_places()
        with annotate(**placements.on_graph(draft.parcels, self._places)):
            found = self._client.get(draft.graph, keys, sync=False)
        self._futures.update(zip(keys, found, strict=True))
        self._in_loop(self._watch, [self._futures[each.dask_key] for each in draft.parcels])

    def status(self, key: DaskKey) -> str:
        """Return pending, finished, error, lost or cancelled; cancelled too for a key that is not held."""
        future = self._futures.get(key)
        return "cancelled" if future is None else str(future.status)

    def release(self, keys: Sequence[DaskKey]) -> None:
        """Let go of keys."""
        for key in keys:
            future = self._futures.pop(key, None)
            if future is not None:
                future.release()

    def _watch_places(self) -> None:
        """See to it that the scheduler finds workers that are named, and tells what nobody can take."""
        if self._places in self._topics:
            return
        try:
            self._client.register_plugin(placements.Places())
        except Exception as error:
            raise ClusterError(
                f"The Dask scheduler does not take a plugin, which resources= and workers= need: {error!r}."
            ) from error
        self._client.subscribe_topic(self._places, self._on_nowhere)
        self._topics[self._places] = self._on_nowhere

    def gather(self, key: DaskKey) -> Any:
        """Return what a key holds. Raises whatever Dask raises, KeyError for a key that is not held."""
        return self._client.gather(self._futures[key])

    def withdraw(self, tickets: Sequence[int]) -> None:
        """Let workers refuse dispatches that have not begun."""
        self._in_loop(self._forbid, tickets)

    def recover(self, ticket: int, key: DaskKey) -> None:
        """Ask for the outcome that came with a value."""
        self._in_loop(self._ask_outcome, ticket, self._futures.get(key))

    def deliver(
        self, worker: str, key: Key, message: Down, places: dict[Key, DaskKey | bytes]
    ) -> None:
        """Send a message to an attempt on a worker; messages arrive in the order of these calls."""
        self._letters.append((worker, key, message, places))
        self._in_loop(self._deliver)

    def apply(self, function: Callable[[Any], Any], key: DaskKey, task_run_id: str) -> Any:
        """Return what a function makes of a value, on the cluster. Raises whatever that raises."""
        held = self._futures[key]
        return self._client.submit(
            applied, function, held, task_run_id, pure=False, priority=placements.FIRST
        ).result()

    def ask_threads(self, told: Callable[[int], None]) -> None:
        """Find out how many threads the workers have."""
        self._in_loop(self._ask_threads, told)

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
        self.release(list(self._futures))
        with contextlib.suppress(Exception):
            self._client.close(timeout=GOODBYE)

    async def _leave(self) -> None:
        for topic in self._topics:
            self._client.unsubscribe_topic(topic)
        await self._client.run(station.close, self.run, on_error="ignore")
        for topic in (station.topic_of(self.run), self._places):
            await self._client.run_on_scheduler(internals.forget_topic, topic)

    def _in_loop(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a coroutine function in the client's thread."""
        loop: Any = self._client.loop
        with contextlib.suppress(RuntimeError):  # the loop has ended: all is lost, and soon seen
            loop.add_callback(function, *args)

    # In, in the client's thread -----------------------------------------------------------------------

    async def _watch(self, futures: Sequence[Future]) -> None:
        async for future in as_completed(futures, loop=self._client.loop):
            await self._look(future)

    async def _look(self, future: Future) -> None:
        key: Any = future.key
        ticket: int = key[1]
        told = self._reader
        match future.status:
            case "finished":
                self._post(lambda: told.finished(ticket))
            case "error":
                error = await future.exception()
                self._post(lambda: told.erred(ticket, error))
            case "cancelled":
                reason = await _reason(future)
                self._post(lambda: told.cancelled(ticket, reason))
            case _:  # it was finished, and is being computed again already
                self._in_loop(self._watch, [future])

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

    async def _ask_outcome(self, ticket: int, future: Future | None) -> None:
        data: bytes | None = None
        with contextlib.suppress(Exception):
            asked = self._client.submit(outcome_of, future, pure=False, priority=placements.FIRST)
            data = await asked
        self._post(lambda: self._reader.recovered(ticket, data))

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

    def _on_batch(self, event: tuple[float, dict[str, Any]]) -> None:
        _, batch = event
        self._post(lambda: self._take(batch))

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

    def _on_scheduler_event(self, event: tuple[float, Any]) -> None:
        _, news = event
        if isinstance(news, dict) and news.get("action") == "remove-worker":
            keys = list(news.get("processing-tasks", ()))
            worker, expected = news["worker"], bool(news.get("expected"))
            self._post(lambda: self._reader.removed(worker, keys, expected))

    # In, in the thread that owns the book ---------------------------------------------------------------

    def _take(self, batch: Mapping[str, Any]) -> None:
        """Take a batch in its turn; fetch what is missing between it and the last one."""
        for data in self._sequences.take(batch["station"], batch["number"], batch["data"]):
            self._reader.letters(open_batch(data))
        if self._sequences.gap:
            self._in_loop(self._replay)

    async def _replay(self) -> None:
        events: Sequence[tuple[float, dict[str, Any]]] = ()
        with contextlib.suppress(Exception):
            events = await self._client.get_events(station.topic_of(self.run))
        self._post(lambda: self._retake([batch for _, batch in events]))

    def _retake(self, batches: Sequence[Mapping[str, Any]]) -> None:
        for batch in batches:
            self._sequences.keep(batch["station"], batch["number"], batch["data"])
        lost, found = self._sequences.skip()
        if lost:
            _log.warning("%d messages of workers were lost on their way.", lost)
        for data in found:
            self._reader.letters(open_batch(data))


async def _reason(future: Future) -> str:
    try:
        await future.result()
    except BaseException as error:
        return str(getattr(error, "reason", "") or "")
    return ""


def _how(exitcode: int) -> str:
    if exitcode < 0:
        try:
            name = f" ({signal.Signals(-exitcode).name})"
        except ValueError:
            name = ""
        return f"was killed by signal {-exitcode}{name}"
    return f"ended by itself, with exit code {exitcode}"
