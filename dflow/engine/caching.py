"""The cache as the driver uses it: what is found costs no worker; what is not, is computed once.

One thread of the session looks up what the ledger asks about, and posts the answers. Of several task runs
with one key the first computes, and the others wait for it; between drivers a lease on the key sees to that.
Nothing that goes wrong with stores or leases is a failure of the run: then the value is computed.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from dflow.attempts.context import FlowInfo
from dflow.core import events as ev
from dflow.core.records import Held, TaskRun
from dflow.core.values import CacheAs
from dflow.engine.cached_calls import Asked, CachedCalls
from dflow.engine.claims import LookUp
from dflow.engine.ledger import Ledger
from dflow.engine.tracker import Do
from dflow.errors import DflowError
from dflow.messages import CallOptions
from dflow.ports import Holder, Leases
from dflow.results import cache
from dflow.results.cache import CacheRecord

if TYPE_CHECKING:
    from dflow.engine.session import Session

LEASE = 60.0
"""Seconds for which a key is held; it is renewed with each sign of life of the driver."""
POLL = 0.1
"""Seconds between two looks at keys that other drivers hold."""
MOST = 64
"""How many of these are looked at together, so that nobody else is held up."""
PATIENCE = 10.0
"""Seconds in which the thread is expected to end; a store that does not answer holds up nobody for ever."""
GROUP = 500
"""How many answers go to the tracker together."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A task run that was looked up is final; or its value is `lost`, which may be that of the cache."""

    task_run_id: str
    lost: bool = False


class Caches:
    """Looks up the cached task runs of one session. Its leases depend on the life of `holder`."""

    def __init__(self, session: Session, leases: Leases, holder: Holder | None) -> None:
        self._session = session
        self._leases = leases
        self._holder = holder
        self._owner = f"{session.root.root_id}.{os.getpid()}"
        self._posts: SimpleQueue[LookUp | _Ended | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._holds = False
        self._calls = CachedCalls(session, self._posts.put, self._complain)
        self._keys: dict[str, CacheAs] = {}
        # In the thread of its own:
        self._leaders: dict[str, CacheAs] = {}
        self._leading: dict[CacheAs, str] = {}
        self._followers: dict[CacheAs, dict[str, LookUp]] = {}
        self._elsewhere: dict[CacheAs, LookUp] = {}
        self._complained: set[str] = set()

    # From the tracker's thread ------------------------------------------------------------------------

    def watch(self, task_run_ids: Sequence[str], options: CallOptions, flow: FlowInfo) -> None:
        """Note how task runs that are asked for are cached."""
        self._calls.watch(task_run_ids, options, flow)

    def look_up(self, order: LookUp) -> None:
        """Find out whether a value is in the cache."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dflow-cache", daemon=True)
            self._thread.start()
        self._posts.put(order)

    def settled(self, run: TaskRun) -> None:
        """Note that a task run is final: those who wait for its key may look again."""
        if self._calls.knows(run.id) and self._thread is not None:
            self._posts.put(_Ended(run.id, lost=run.held is Held.LOST))

    def cached_as(self, task_run_id: str) -> CacheAs | None:
        """Return where the value of a task run that is to be computed goes in the cache."""
        return self._keys.get(task_run_id)

    # From other threads -------------------------------------------------------------------------------

    def renew(self) -> None:
        """Hold the leases for longer."""
        if self._holds:
            self._leases.renew(self._owner, LEASE, self._session.clock.now())

    def close(self) -> None:
        """End the thread, and let go of all leases."""
        if self._thread is not None:
            self._posts.put(None)
            self._thread.join(PATIENCE)
        self._calls.close()
        if self._holds:
            with suppress(DflowError):  # others have them when they expire, or this process ends
                self._leases.release_all(self._owner)

    # The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            orders: list[LookUp] = []
            ended: list[_Ended] = []
            for post in self._gather():
                if post is None:
                    return
                if isinstance(post, LookUp):
                    orders.append(post)
                else:
                    ended.append(post)
            try:
                orders += self._let_follow(ended)
                self._answer(orders)
                self._look_elsewhere()
            except Exception as error:
                if not self._goes_on(orders, error):
                    return

    def _gather(self) -> Iterable[LookUp | _Ended | None]:
        try:
            yield self._posts.get(timeout=POLL if self._elsewhere else None)
            for _ in range(GROUP):
                yield self._posts.get_nowait()
        except Empty:
            return

    def _goes_on(self, orders: Sequence[LookUp], error: Exception) -> bool:
        """Let what could not be looked up be computed; return whether the session still goes on."""
        tracker = self._session.tracker
        if not (tracker.ended or tracker.failure):
            self._complain("a lookup failed", error)
            with suppress(DflowError):
                self._post([(order, None) for order in orders])
        return not (tracker.ended or tracker.failure)

    def _answer(self, orders: Sequence[LookUp]) -> None:
        """Answer what can be answered now; the rest waits for who computes its key."""
        wanted: list[tuple[LookUp, CacheAs]] = []
        to_compute: list[LookUp] = []
        for order in orders:
            key = self._calls.key_of(order)
            if isinstance(key, Asked):
                continue
            if key is None:
                self._keys.pop(order.run_id, None)
                to_compute.append(order)
                continue
            self._keys[order.run_id] = key
            if order.anew or self._calls.refreshed(order.run_id):
                to_compute.append(order)
            else:
                wanted.append((order, key))
        found = self._look({key for _, key in wanted})
        self._post([(order, found[key]) for order, key in wanted if key in found])
        missed = [(order, key) for order, key in wanted if key not in found]
        to_compute += [order for order, _ in missed if not order.lead]
        self._post([(order, None) for order in to_compute])
        self._lead([(order, key) for order, key in missed if order.lead])

    def _look(self, keys: set[CacheAs]) -> dict[CacheAs, CacheRecord]:
        """Return what is in the cache."""
        stores: dict[str, dict[str, CacheAs]] = {}
        for key in keys:
            stores.setdefault(key.storage, {})[key.key] = key
        found: dict[CacheAs, CacheRecord] = {}
        for storage, wanted in stores.items():
            try:
                records = cache.look(storage, wanted, self._session.clock.now())
            except DflowError as error:
                self._complain("the cache cannot be read", error)
                continue
            found.update(
                (wanted[name], record)
                for name, record in records.items()
                if wanted[name].maker.trusts(record.maker)
            )
        return found

    def _post(self, answers: Sequence[tuple[LookUp, CacheRecord | None]]) -> None:
        for start in range(0, len(answers), GROUP):
            some = answers[start : start + GROUP]
            self._session.tracker.post(Do(partial(self._apply, some)))

    def _apply(self, answers: Sequence[tuple[LookUp, CacheRecord | None]], ledger: Ledger) -> None:
        """Let the ledger go on with what was answered; in the tracker's thread."""
        now = self._session.clock.now()
        for order, record in answers:
            if ledger.table.task_runs[order.run_id].stage.final:
                self._posts.put(_Ended(order.run_id))
            elif record is None:
                ledger.look_again(order, now)
            elif ledger.lookups.answered(order):
                ledger.apply(_hit(order.run_id, record, now))

    # Who computes -------------------------------------------------------------------------------------

    def _lead(self, missed: Sequence[tuple[LookUp, CacheAs]]) -> None:
        """Let the first with each key compute it, if no other driver does; the others follow."""
        wanted: dict[CacheAs, LookUp] = {}
        for order, key in missed:
            if self._is_called_by(order.run_id, self._leading.get(key)):
                self._post([(order, None)])  # they would wait for each other
            elif key in self._leading or key in self._elsewhere or key in wanted:
                self._followers.setdefault(key, {})[order.run_id] = order
            else:
                wanted[key] = order
        self._take(wanted)

    def _is_called_by(self, run_id: str | None, leader: str | None) -> bool:
        """Tell whether a run is called in the body of a task run, or in one that is called there."""
        table = self._session.ledger.table
        while leader is not None and run_id is not None and run_id != leader:
            run = table.task_runs.get(run_id) or table.flow_runs.get(run_id)
            run_id = None if run is None else run.parent_id
        return leader is not None and run_id == leader

    def _take(self, wanted: dict[CacheAs, LookUp]) -> bool:
        """Take the leases of keys; what others hold is waited for. Return whether any were to be had."""
        taken = self._leased(wanted)
        found = self._look(taken)
        self._release(list(found))
        answers: list[tuple[LookUp, CacheRecord | None]] = []
        again: list[LookUp] = []
        for key, order in wanted.items():
            if key not in taken:
                self._elsewhere.pop(key, None)  # it goes to the end of the queue
                self._elsewhere[key] = order
                continue
            self._elsewhere.pop(key, None)
            answers.append((order, found.get(key)))
            if key in found:
                again += self._followers.pop(key, {}).values()
            else:
                self._leading[key], self._leaders[order.run_id] = order.run_id, key
        self._post(answers)
        if again:
            self._answer(again)
        return bool(taken)

    def _leased(self, wanted: Iterable[CacheAs]) -> set[CacheAs]:
        names = {_lease(key): key for key in wanted}
        if not names:
            return set()
        now = self._session.clock.now()
        try:
            self._holds = True
            taken = self._leases.acquire_each(
                list(names), self._owner, LEASE, now, holder=self._holder
            )
        except DflowError as error:
            self._complain("who computes a key cannot be settled with other drivers", error)
            return set(names.values())
        return {names[name] for name in taken}

    def _release(self, keys: Sequence[CacheAs]) -> None:
        if keys:
            try:
                self._leases.release_each([_lease(key) for key in keys], self._owner)
            except DflowError as error:
                self._complain("a key cannot be given free", error)

    def _look_elsewhere(self) -> None:
        """See whether other drivers are done with their keys, or gone."""
        going = bool(self._elsewhere)
        while going:
            some = dict(itertools.islice(self._elsewhere.items(), MOST))
            going = self._take(some) and bool(self._elsewhere)

    def _let_follow(self, ended: Sequence[_Ended]) -> list[LookUp]:
        """Give free the keys of task runs that are final; return who wants to look again."""
        free: list[CacheAs] = []
        again: list[LookUp] = []
        for end in ended:
            key = self._leaders.pop(end.task_run_id, None)
            if key is not None:
                del self._leading[key]
                free.append(key)
            else:
                key = self._keys.get(end.task_run_id)
                if key is not None and end.lost:
                    self._forget(key)
                if key is None or self._forget_waiting(end.task_run_id, key):
                    continue
            again += self._followers.pop(key, {}).values()
        self._release(free)
        return again

    def _forget(self, key: CacheAs) -> None:
        """Let nobody find a value any more that is gone or damaged."""
        try:
            cache.forget(key.storage, key.key)
        except DflowError as error:
            self._complain("a value that is lost cannot be taken out of the cache", error)

    def _forget_waiting(self, task_run_id: str, key: CacheAs) -> bool:
        """Wait no more on behalf of a task run; return whether others wait on, or nobody did."""
        self._followers.get(key, {}).pop(task_run_id, None)
        waiting = self._elsewhere.get(key)
        if waiting is None or waiting.run_id != task_run_id:
            return True
        del self._elsewhere[key]
        return False

    def _complain(self, what: str, error: BaseException) -> None:
        """Warn once of what makes the cache useless for now."""
        if what not in self._complained:
            self._complained.add(what)
            with suppress(DflowError):  # the session has ended
                self._session.warn(f"Some task runs go without the cache, because {what}: {error}")


def _lease(key: CacheAs) -> str:
    return f"cache {key.storage} {key.key}"


def _hit(task_run_id: str, record: CacheRecord, at: float) -> ev.CacheHit:
    return ev.CacheHit(
        at=at,
        task_run_id=task_run_id,
        held=Held.JOURNAL if record.stored is None else Held.STORED,
        value=record.value,
        stored=record.stored,
        message=f"Computed by '{record.task_run}' of run '{record.flow_run}'.",
    )
