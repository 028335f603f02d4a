"""The feed, on the scheduler: it knows the owners of work, and tells each one's driver what happens to it.

What happens to the keys of an owner, and what attempts say, goes to its driver in numbered batches; the
last of them are kept, for a driver that has lost its connection, or for the next one. An owner whose driver
has gone is let go after a time, with all that it wants. The functions at the end are called by drivers.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False
# mypy: disallow-subclassing-any=False

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from distributed import Scheduler, SchedulerPlugin

from dflow.attempts import clock
from task_runners.dask import again, names, payload, station, wire
from task_runners.dask.owner import Owner

FLUSH = 0.02
"""Seconds in which at most `BURST` batches go to a driver: what comes then waits for others."""
BURST = 4
"""How many batches go at once: a single task brings a start, an outcome and a value."""
ENOUGH = 2
"""How many unfinished keys for each thread of the workers let these go on: then news wait for others."""
_log = logging.getLogger("dflow.runners")


def _guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Let nothing be raised: in a handler of the scheduler that would close its peer's connection."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            _log.exception("A message of dflow could not be handled on the scheduler.")

    return guarded


class Feed(SchedulerPlugin):
    """Knows the owners, and tells their drivers."""

    name = f"dflow-feed-{station.PROTOCOL}"

    def __init__(self, scheduler: Any) -> None:
        self.owners: dict[str, Owner] = {}
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._by_key: dict[Any, Owner] = {}
        self._by_run: dict[str, Owner] = {}
        self._leaving: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()
        wire.handle(scheduler, wire.LETTERS, _guarded(self._on_letters))
        wire.handle(scheduler, wire.RELEASE, _guarded(self._on_release))

    # What drivers ask for --------------------------------------------------------------------------

    def attach(self, name: str, client: str, run: str, lease: float) -> bool:
        """Make a client the driver of an owner; return whether the owner was there before."""
        owner = self.owners.get(name)
        known = owner is not None
        if owner is None:
            wire.own(self._scheduler, name)
            owner = self.owners[name] = self._by_run[run] = Owner(name, run, lease)
        if owner.timer is not None:
            owner.timer.cancel()
        owner.timer, owner.driver, owner.lease = None, client, lease
        return known

    def since(self, name: str, after: int) -> list[Mapping[str, Any]]:
        """Return the batches after a number that are still there, what waits for its time included."""
        owner = self.owners[name]
        self._flush(owner, quietly=True)
        return [batch for number, batch in owner.ring if number > after]

    def let_go(self, name: str) -> None:
        """Forget an owner; nobody wants its work any more."""
        owner = self.owners.pop(name, None)
        if owner is None:
            return
        self._by_run.pop(owner.run, None)
        for handle in (owner.flush, owner.timer):
            if handle is not None:
                handle.cancel()
        for key in owner.keys:
            self._by_key.pop(key, None)
        wire.disown(self._scheduler, name)
        wire.forget_topics(self._scheduler, names.letters_topic(owner.run))

    def release(self, name: str, keys: Iterable[Any]) -> None:
        """Let keys of an owner go: what becomes of them is not told any more."""
        owner = self.owners.get(name)
        keys = list(keys)
        for key in keys:
            self._by_key.pop(key, None)
            if owner is not None:
                owner.keys.discard(key)
                owner.open.discard(key)
        wire.let_go(self._scheduler, name, keys)

    def _on_release(self, owner: str, keys: Iterable[Any], client: str = "", **_: Any) -> None:
        known = self.owners.get(owner)
        if known is not None and known.driver == client:
            self.release(owner, keys)

    # What happens -----------------------------------------------------------------------------------

    def _on_letters(self, run: str, station: str, number: int, data: bytes, **_: Any) -> None:
        owner = self._by_run.get(run)
        if owner is not None:
            owner.letters.append([station, number, data])
            self._soon(owner)

    def update_graph(
        self,
        scheduler: Scheduler,  # noqa: ARG002  (of distributed)
        *,
        client: str,
        keys: set[Any],
        **_: Any,
    ) -> None:
        """Note which keys an owner wants from now on."""
        owner = self.owners.get(client)
        if owner is not None:
            owner.keys.update(keys)
            owner.open.update(keys)
            self._by_key.update(dict.fromkeys(keys, owner))

    def transition(self, key: Any, start: Any, finish: Any, *_args: Any, **_: Any) -> None:
        """Note what becomes of the keys of owners."""
        if finish == "processing" and key in self._by_key:
            wire.not_again(self._scheduler, key)
        if finish not in _TOLD and start != "memory":
            return
        if start == "memory" and finish == "released":
            again.as_lost(self._scheduler.tasks[key])
        owner = self._by_key.get(key)
        if owner is None:
            return
        ticket = key[1]
        owner.open.discard(key)
        if finish == "memory":
            news = ["memory", ticket]
        elif finish == "erred":
            news = ["erred", ticket, wire.error_of(self._scheduler.tasks[key])]
        elif finish == "forgotten":
            self._by_key.pop(key, None)
            owner.keys.discard(key)
            news = ["gone", ticket]
        else:
            owner.open.add(key)
            news = ["lost", ticket]
        owner.news.append(news)
        self._soon(owner)

    def log_event(self, topic: str, msg: Any) -> None:
        """Note what became of a graph, and which worker leaves, or has left with work of owners."""
        owner = self.owners.get(topic)
        if owner is not None and msg.get("action") == "update-graph":
            owner.news.append(["graph", msg.get("stimulus_id"), msg["status"]])
            self._soon(owner, patiently=msg["status"] == "OK")
        elif topic == "all" and isinstance(msg, dict) and msg.get("action") == "remove-worker":
            self._worker_left(msg)
        elif isinstance(msg, dict) and msg.get("action") == "worker-status-change":
            changed = self._leaving.add if msg["status"] in wire.LEAVING else self._leaving.discard
            changed(topic)
        elif topic.startswith(names.OWNER) and isinstance(msg, dict) and "station" in msg:
            self._on_letters(topic.removeprefix(names.OWNER), **msg)

    def _worker_left(self, told: Mapping[str, Any]) -> None:
        """Tell of a worker that has left as it was meant to; with any other one its tasks have erred."""
        worker = told["worker"]
        planned = bool(told.get("expected")) or worker in self._leaving
        self._leaving.discard(worker)
        tickets: dict[str, list[int]] = {}
        for key in told.get("processing-tasks", ()) if planned else ():
            owner = self._by_key.get(key)
            if owner is not None:
                again.not_at_all(self._scheduler.tasks[key])
                tickets.setdefault(owner.name, []).append(key[1])
        for name, some in tickets.items():
            owner = self.owners[name]
            owner.news.insert(0, ["left", worker, some])  # before what has erred because of it
            self._soon(owner)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:  # noqa: ARG002  (of distributed)
        """Note how many threads there are from now on."""
        for owner in self.owners.values():
            owner.news.append(["threads", scheduler.total_nthreads])
            self._soon(owner)

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Note how many threads there are left."""
        self.add_worker(scheduler, worker)

    def restart(self, scheduler: Scheduler) -> None:  # noqa: ARG002  (of distributed)
        """Note that the scheduler has dropped everything."""
        self._by_key.clear()
        for owner in self.owners.values():
            owner.keys.clear()
            owner.open.clear()
            owner.news.append(["restarted", 0])
            self._soon(owner)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002  (of distributed)
        """Note that a driver has gone: from now on its owners have so long for another one."""
        for owner in [one for one in self.owners.values() if one.driver == client]:
            owner.driver, owner.since = None, clock.now()
            owner.timer = self._loop.call_later(owner.lease, self._expired, owner)

    def _expired(self, owner: Owner) -> None:
        if owner.driver is None and self.owners.get(owner.name) is owner:
            _log.info("The driver of '%s' did not come back: its work is let go.", owner.name)
            self.let_go(owner.name)
            closing = wire.on_workers(self._scheduler, station.close, owner.run)
            task = self._loop.create_task(closing)
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # Telling ------------------------------------------------------------------------------------------

    def _soon(self, owner: Owner, *, patiently: bool = False) -> None:
        """See to it that what is noted is sent: at once, if little was sent just before.

        Where much is at work yet it waits for others: neither the workers nor the driver lack anything.
        """
        now = self._loop.time()
        if now >= owner.window:
            owner.window, owner.sent = now + FLUSH, 0
        patiently |= len(owner.open) > ENOUGH * self._scheduler.total_nthreads
        due = now if owner.sent < BURST and not patiently else owner.window
        if owner.flush is None or due < owner.flush.when():
            if owner.flush is not None:
                owner.flush.cancel()
            owner.flush = self._loop.call_at(due, self._flush, owner)

    def _flush(self, owner: Owner, *, quietly: bool = False) -> None:
        """Make a batch of what is noted, keep it for a time, and send it, unless `quietly`."""
        if owner.flush is not None:
            owner.flush.cancel()
            owner.flush = None
        if not (owner.news or owner.letters):
            return
        sent = owner.driver is not None and not quietly
        batch = owner.next_batch(sent)
        if sent and owner.driver is not None:
            topic = names.feed_topic(owner.name)
            wire.tell(self._scheduler, owner.driver, topic, clock.now(), batch)


_TOLD = frozenset({"memory", "erred", "forgotten"})
"""Into which states a change is told; out of memory into any."""


# Called by drivers ---------------------------------------------------------------------------------


def feed_of(scheduler: Any) -> Feed:
    """Return the feed of a scheduler, made if need be."""
    found: Feed | None = scheduler.plugins.get(Feed.name)
    if found is None:
        found = Feed(scheduler)
        scheduler.add_plugin(found, name=Feed.name)
    return found


def attach(
    name: str, client: str, run: str, lease: float, dask_scheduler: Any = None
) -> Mapping[str, Any]:
    """Make a client the driver of an owner: return what is missing for it, else whether it was known."""
    lacks = wire.missing_on(dask_scheduler)
    if lacks:
        return {"missing": lacks}
    known = feed_of(dask_scheduler).attach(name, client, run, lease)
    number = feed_of(dask_scheduler).owners[name].number
    return {"missing": [], "known": known, "number": number}


def catch_up(name: str, after: int, dask_scheduler: Any = None) -> Mapping[str, Any]:
    """Return the batches after a number, and how all that an owner wants stands: (key, state, error)."""
    batches = feed_of(dask_scheduler).since(name, after)
    stand = [
        (task.key, task.state, wire.error_of(task) if task.state == "erred" else None)
        for task in wire.wanted(dask_scheduler, name)
    ]
    return {"batches": batches, "stand": stand}


def inventory(name: str, dask_scheduler: Any = None) -> list[tuple[Any, str, bytes | None]]:
    """Return what an owner wants: keys, their states, and the `payload.summary` of parcels."""
    found = []
    for task in wire.wanted(dask_scheduler, name):
        data = wire.payload_of(task)
        about = None if data is None else payload.summary(data)
        found.append((task.key, task.state, about))
    return found


def release_others(name: str, kept: Iterable[Any], dask_scheduler: Any = None) -> None:
    """Let go of all keys of an owner but these."""
    others = {task.key for task in wire.wanted(dask_scheduler, name)} - set(kept)
    feed_of(dask_scheduler).release(name, others)


class About(TypedDict):
    """What `owners` tells of one; `alone` is for how many seconds it has had no driver."""

    name: str
    run: str
    keys: int
    states: dict[str, int]
    driven: bool
    alone: float | None
    lease: float


def owners(dask_scheduler: Any = None) -> list[About]:
    """Return what is known of each owner on this scheduler; makes nothing."""
    found: Feed | None = dask_scheduler.plugins.get(Feed.name)
    return [
        About(
            name=owner.name,
            run=names.root_of(owner.name),
            keys=len(owner.keys),
            states=dict(Counter(task.state for task in wire.wanted(dask_scheduler, owner.name))),
            driven=owner.driver is not None,
            alone=None if owner.driver is not None else max(0.0, clock.now() - owner.since),
            lease=owner.lease,
        )
        for owner in (found.owners.values() if found is not None else ())
    ]


def leave(name: str, client: str, dask_scheduler: Any = None) -> bool:
    """Let go of an owner, if this client is still its driver; return whether it was."""
    feed = dask_scheduler.plugins.get(Feed.name)
    owner = None if feed is None else feed.owners.get(name)
    if owner is None or owner.driver != client:
        return False
    feed.let_go(name)
    return True
