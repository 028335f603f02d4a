"""The owned way to a cluster: work is wanted by the run, under a name that outlives its drivers.

Graphs are sent under the owner's name, and keys are let go in lists; there are no futures. What becomes of
them comes as numbered batches from the feed on the scheduler. After a break of the connection the driver
takes its owner up again: it asks for what it has missed, sends again what has not arrived, and goes on.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dask.task_spec import Task, TaskRef

from dflow.attempts.link import open_batch
from dflow.errors import ClusterError
from dflow.messages import Key, LogEntry, Printed
from task_runners.dask import again, feed, names, placements, station, wire
from task_runners.dask.carried import OfItem, applied, outcome_of
from task_runners.dask.fetched import Fetched, loaded
from task_runners.dask.graph import Draft, Graph, Sent, tickets
from task_runners.dask.line import Line
from task_runners.dask.parcels import DaskKey

UNRECORDED = 1.0
"""Seconds after which what a driver has heard of a key is recorded: until then another one may ask for it."""
LINGER = 0.25
"""Seconds that keys wait for others to be let go of together, if their values came with their outcomes."""
_log = logging.getLogger("dflow.runners")


class Owned:
    """The work of one flow run, wanted under the name of its owner."""

    def __init__(self, line: Line, owner: str, lease: float) -> None:
        """Take the owner up. Raises `wire.Unavailable` where something is missing that this relies on."""
        self.owner = owner
        self._line = line
        self._client = line.client
        self._lease = lease
        self._status: dict[int, str] = {}
        self._orders = itertools.count()
        self._graphs = itertools.count(1)
        self._sent: dict[str, Sent] = {}
        self._out: set[str] = set()
        self._let_go: list[DaskKey] = []
        self._letting_go = False
        self._fetched = Fetched(self._client, self._status)
        self._early: dict[int, Mapping[str, Any]] = {}
        self._received = -1  # until it is known where batches begin
        self._catching_up = False
        self._lost = False
        lacks = wire.missing_in(self._client)
        if lacks:
            raise wire.Unavailable(f"distributed here lacks {', '.join(lacks)}")
        wire.listen(self._client, names.feed_topic(owner), self._on_batch)
        self._stream = wire.forgetful(wire.stream(self._client))
        found = self._client.run_on_scheduler(_attach, *self._introduction())
        if found["missing"]:
            raise wire.Unavailable(
                f"distributed on the scheduler lacks {', '.join(found['missing'])}"
            )
        self.found = bool(found["known"])
        """Whether an earlier driver has left something under this name."""
        self._received = found["number"]
        line.in_loop(self._read_in_turn)

    def _introduction(self) -> tuple[str, str, str, float]:
        return self.owner, self._client.id, self._line.run, self._lease

    @property
    def alive(self) -> bool:
        """Whether the scheduler is there, and knows of this work; a connection that broke may come back."""
        status = self._client.status
        if status == "running" and wire.stream(self._client) is not self._stream:
            self._line.in_loop(self._come_back)
        return not self._lost and (
            status == "running" or (status == "connecting" and self._line.foreign)
        )

    # Out --------------------------------------------------------------------------------------------

    def submit(self, draft: Draft, annotations: Mapping[str, Any]) -> None:
        """Hand a graph to Dask, want all its keys, and tell what becomes of them."""
        if self.found:  # nobody has asked for what an earlier driver has left
            self.take_up((), (), lambda *_: None)
        self._submit(draft.graph, annotations)

    def _submit(self, graph: Graph, annotations: Mapping[str, Any]) -> None:
        stimulus = f"{self.owner}-{self._client.id}-{next(self._graphs)}"
        priorities = {key: next(self._orders) for key in graph}
        message = wire.graph(self.owner, graph, priorities, annotations, stimulus)
        self._sent[stimulus] = Sent(message, tuple(graph))  # first: what it has is under way
        self._status.update((key[1], "pending") for key in graph)
        self._line.in_loop(self._send, stimulus)

    def left(self) -> list[tuple[DaskKey, str, bytes | None]]:
        """Return what an earlier driver has left: keys, their states, and what dispatches they are of."""
        if not self.found:
            return []
        found: Any = self._client.run_on_scheduler(feed.inventory, self.owner)
        return list(found)

    def take_up(
        self, keys: Sequence[DaskKey], attempts: Sequence[Key], tell: Callable[[Any, bool], None]
    ) -> None:
        """Go on with keys that an earlier driver has left, and the attempts in them; all else is let go.

        `tell` is called with the news that are still there, and whether they were sent to that driver.
        """
        self.found = False
        self._status.update((key[1], "pending") for key in keys)
        for batch, heard in self._client.sync(self._take_up, keys, attempts):
            tell(batch, heard)

    async def _take_up(
        self, keys: Sequence[DaskKey], attempts: Sequence[Key]
    ) -> list[tuple[Mapping[str, Any], bool]]:
        run = self._client.run_on_scheduler
        await run(feed.release_others, self.owner, keys)
        if not keys:
            await self._dismiss(attempts)
            return []
        told: Any = await run(feed.catch_up, self.owner, 0)
        found = [(batch, batch["sent"]) for batch in told["batches"]]
        for batch, _ in found:
            self._note(batch)
        if found:
            self._received = max(self._received, found[-1][0]["number"])
        last = {"news": self._different(told["stand"]), "letters": ()}
        self._note(last)
        self._read_in_turn()
        await self._dismiss(attempts)
        return [*found, (last, False)]

    async def _dismiss(self, attempts: Sequence[Key]) -> None:
        await self._client.run(station.dismiss, self._line.run, attempts, on_error="ignore")

    def status(self, key: DaskKey) -> str:
        """Return pending, finished, error, lost or cancelled; cancelled too for a key that is not held."""
        return self._status.get(key[1], "cancelled")

    def release(self, keys: Sequence[DaskKey], *, light: bool = False) -> None:
        """Let go of keys: of `light` ones, whose values came with their outcomes, in a moment."""
        held = [key for key in keys if self._status.pop(key[1], None) is not None]
        if held:
            after = UNRECORDED if self._line.foreign else LINGER * light
            self._line.in_loop(self._release, held, after)

    def gather(self, key: DaskKey) -> Any:
        """Return what a key holds. Raises KeyError for a key that is not held, or why there is nothing."""
        if key[1] not in self._status:
            raise KeyError(key)
        return self._client.sync(self._fetched.fetch, key)

    def gather_each(self, keys: Sequence[DaskKey]) -> Mapping[DaskKey, Any]:
        """Return what those of several keys hold that can be gathered in one go; raises nothing."""
        there = [key for key in keys if self.status(key) == "finished"]
        try:
            found: Mapping[DaskKey, Any] = self._client.sync(self._fetched.fetch_each, there)
        except Exception:
            _log.debug("Values could not be gathered in one go.", exc_info=True)
            return {}
        return found

    def apply(self, function: OfItem, key: DaskKey) -> Any:
        """Return what a function makes of a value, on the cluster. Raises whatever that raises."""
        if key[1] not in self._status:
            raise KeyError(key)
        return self._client.sync(self._ask, key, applied, function)

    def recover(self, ticket: int, key: DaskKey) -> None:
        """Ask for the outcome that came with a value."""
        self._line.in_loop(self._ask_outcome, ticket, key)

    async def leave(self) -> bool:
        """Let go of the owner, with all that it wants; return False if another client drives it by now."""
        self._status.clear()
        return bool(await self._client.run_on_scheduler(feed.leave, self.owner, self._client.id))

    def close(self) -> None:
        """Wake who still waits for something."""
        self._lost = True
        self._line.in_loop(self._fetched.end)

    # In the client's thread: sending ----------------------------------------------------------------

    def _send(self, stimulus: str) -> None:
        self._out.add(stimulus)
        wire.send(self._client, self._stream, self._sent[stimulus].message)

    def _release(self, keys: Sequence[DaskKey], after: float) -> None:
        self._let_go.extend(keys)
        if not after:
            self._send_released()
        elif not self._letting_go:
            self._letting_go = True
            asyncio.get_running_loop().call_later(after, self._send_released)

    def _send_released(self) -> None:
        self._letting_go = False
        message = wire.released(self.owner, self._let_go)
        if self._let_go and wire.send(self._client, self._stream, message):
            self._let_go = []

    async def _come_back(self) -> None:
        """Take the owner up again after a break."""
        stream = wire.stream(self._client)
        if self._catching_up or stream is None or stream is self._stream:
            return
        self._catching_up = True
        try:
            found = await self._client.run_on_scheduler(_attach, *self._introduction())
            if found["missing"] or not found["known"]:
                self._lost = True
                self._line.post(lambda: None)
                return
            stand = await self._catch_up()
        except OSError:
            return  # it has broken again: the next look finds it
        finally:
            self._catching_up = False
        self._stream = wire.forgetful(stream)
        self._send_again({key for key, *_ in stand})
        _log.info("The connection to the Dask scheduler broke, and is there again.")

    def _send_again(self, wanted: set[DaskKey]) -> None:
        """Send what has not arrived; what is wanted there and not here is let go again."""
        for sent in [self._sent[stimulus] for stimulus in self._out]:
            if wanted.isdisjoint(sent.keys):
                wire.send(self._client, self._stream, sent.message)
        self._let_go += [key for key in wanted if key[1] not in self._status]
        self._send_released()

    # In the client's thread: hearing ----------------------------------------------------------------

    def _on_batch(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, batch = event
        self._early[batch["number"]] = batch
        if self._received >= 0:
            self._read_in_turn()
        if self._received >= 0 and self._early and not self._catching_up:
            self._line.in_loop(self._fill_gap)

    def _read_in_turn(self) -> None:
        for number in [n for n in self._early if n <= self._received]:
            del self._early[number]
        while (batch := self._early.pop(self._received + 1, None)) is not None:
            self._received += 1
            self._read(batch)

    async def _fill_gap(self) -> None:
        if self._catching_up:
            return
        self._catching_up = True
        try:
            await self._catch_up()
        except OSError:
            pass  # the connection broke: what is missing is asked for when it is back
        finally:
            self._catching_up = False

    async def _catch_up(self) -> Sequence[tuple[DaskKey, str, bytes | None]]:
        """Hear what was missed; return how all that is wanted stands."""
        told: Any = await self._client.run_on_scheduler(feed.catch_up, self.owner, self._received)
        self._early.update((batch["number"], batch) for batch in told["batches"])
        self._read_in_turn()
        if told["batches"] and self._received < told["batches"][-1]["number"]:
            first = min(self._early)
            _log.warning("%d messages of a cluster were lost.", first - self._received - 1)
            self._received = first - 1
            self._read_in_turn()
        stand: Sequence[tuple[DaskKey, str, bytes | None]] = told["stand"]
        self._read({"news": self._different(stand), "letters": ()})
        return stand

    def _different(self, stand: Sequence[tuple[DaskKey, str, bytes | None]]) -> list[Any]:
        """Return as news what is not known here of how things stand."""
        news: list[Any] = []
        for (_, ticket), state, error in stand:
            known = self._status.get(ticket)
            if state == "memory" and known in ("pending", "lost"):
                news.append(["memory", ticket])
            elif state == "erred" and known in ("pending", "lost", "finished"):
                news.append(["erred", ticket, error])
        return news

    def _read(self, batch: Mapping[str, Any]) -> None:
        """Take a batch: what it tells is for the book's own thread."""
        self._note(batch)
        self._line.post(lambda: self.tell(batch))

    def _note(self, batch: Mapping[str, Any]) -> None:
        """Note how keys stand, which others ask for at any time."""
        for kind, ticket, *more in batch["news"]:
            if kind == "graph":
                self._answered(ticket, more[0])
                continue
            status = _STATUS.get(kind)
            if status is not None and ticket in self._status:
                self._status[ticket] = status
            if kind in ("memory", "erred", "gone"):
                self._fetched.wake(ticket, more[0] if kind == "erred" else None)

    def _answered(self, stimulus: str, status: str) -> None:
        """A graph has been taken, or not."""
        sent = self._sent.pop(stimulus, None)
        self._out.discard(stimulus)
        if sent is None or status == "OK":
            return
        for _, ticket in sent.keys:
            if ticket in self._status:
                self._status[ticket] = "cancelled"
            self._fetched.wake(ticket, None)
        self._line.in_loop(self._find_lost, sent, status)

    async def _find_lost(self, sent: Sent, status: str) -> None:
        """Tell of a graph that was not taken, after what is gone of all that is held."""
        with contextlib.suppress(OSError):
            held = set(self._status)  # before those under way are counted, which come in any thread
            under_way = [key for one in list(self._sent.values()) for key in one.keys]
            stand = await self._catch_up()
            there = {key[1] for key in (*under_way, *sent.keys, *(key for key, *_ in stand))}
            for ticket in (held - there) & self._status.keys():
                self._status[ticket] = "error"
        self._line.post(lambda: self._refused(sent.keys, status))

    # In the thread that owns the book ---------------------------------------------------------------

    def tell(self, batch: Mapping[str, Any], heard: bool = False) -> None:
        """Tell of a batch; of one that an earlier driver has `heard` only what it may not have recorded."""
        reader = self._line.reader
        for _, _, data in batch["letters"]:
            letters = open_batch(data)
            if heard:
                letters = [each for each in letters if not isinstance(each[1], LogEntry | Printed)]
            reader.letters(letters)
        for kind, *more in batch["news"]:
            if kind == "memory":
                reader.finished(more[0])
            elif kind == "erred":
                reader.erred(more[0], loaded(more[1]))
            elif kind == "gone":
                reader.cancelled(more[0], "it was cancelled")
            elif kind == "left":
                reader.retired(*more)
            elif kind == "threads" and self._line.foreign:
                reader.threads(more[0])
            elif kind == "restarted":
                self._lost = True

    def _refused(self, keys: Sequence[DaskKey], status: str) -> None:
        for _, ticket in keys:
            if status == "cancelled":
                self._line.reader.cancelled(ticket, "lost dependencies")
            else:
                error = ClusterError("The Dask scheduler could not take a graph: its log says why.")
                self._line.reader.erred(ticket, error)

    # In the client's thread: values -----------------------------------------------------------------

    async def _ask(self, key: DaskKey, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a task of its own makes of a value, before anything else is done."""
        asked: DaskKey = (f"dflow-asked-{self._line.run}", next(tickets))
        graph = Graph({asked: Task(asked, function, *args, TaskRef(key))})
        self._submit(graph, {"priority": placements.FIRST})
        try:
            return await self._fetched.fetch(asked)
        finally:
            self.release([asked])

    async def _ask_outcome(self, ticket: int, key: DaskKey) -> None:
        data: bytes | None = None
        try:
            if key[1] in self._status:
                data = await self._ask(key, outcome_of)
        except Exception:
            _log.debug("An outcome could not be recovered.", exc_info=True)
        self._line.post(lambda: self._line.reader.recovered(ticket, data))


_STATUS = {"memory": "finished", "erred": "error", "lost": "lost", "gone": "cancelled"}


def _attach(
    name: str, client: str, run: str, lease: float, dask_scheduler: Any = None
) -> Mapping[str, Any]:
    """Take an owner up on the scheduler, which listens from then on to what workers give back."""
    found = feed.attach(name, client, run, lease, dask_scheduler)
    if not found["missing"]:
        again.listen(dask_scheduler)
    return found
