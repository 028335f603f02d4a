"""The cache as the driver uses it: what is found costs no worker; what is not, is computed once.

One thread of the session looks up what the ledger asks about, and posts the answers. Of several task runs
with one key the first computes, and the others wait for it; between drivers a lease on the key sees to that.
Nothing that goes wrong with stores or leases is a failure of the run: then the value is computed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from dflow.attempts.context import beside
from dflow.core import events as ev
from dflow.core.records import Held, Stage, TaskRun
from dflow.engine import callbacks, run_logs
from dflow.engine.claims import LookUp
from dflow.engine.ledger import Ledger
from dflow.engine.needs import takes
from dflow.engine.tracker import Do
from dflow.errors import DflowError
from dflow.messages import CacheAs, Caching, LateKey, PartialKey
from dflow.ports import Holder, Leases
from dflow.results import cache
from dflow.results.cache import CacheRecord
from dflow.results.keys import digest_of
from dflow.results.pickling import loads

if TYPE_CHECKING:
    from dflow.engine.session import Session

LEASE = 60.0
"""Seconds for which a key is held; it is renewed with each sign of life of the driver."""
POLL = 0.1
"""Seconds between two looks at keys that other drivers hold."""
MOST = 64
"""How many of these are looked at together, so that nobody else is held up."""
ASKING = 8
"""How many policies and functions of the user's are asked at once."""
GROUP = 500
"""How many answers go to the tracker together."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A task run that was looked up is final."""

    task_run_id: str


@dataclass(frozen=True, slots=True)
class _Call:
    """What is known of a cached call, before its key is."""

    key: PartialKey | LateKey | None
    caching: Caching
    storage: str


class Caches:
    """Looks up the cached task runs of one session. `holder` is the process on whose life its leases depend."""

    def __init__(self, session: Session, leases: Leases, holder: Holder | None) -> None:
        self._session = session
        self._leases = leases
        self._holder = holder
        self._owner = session.ids.run_id()
        self._posts: SimpleQueue[LookUp | _Ended | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._askers: ThreadPoolExecutor | None = None
        self._holds = False
        self._calls: dict[str, _Call] = {}
        self._keys: dict[str, CacheAs] = {}
        # In the thread of its own:
        self._origins: dict[tuple[str, int], str] = {}
        self._leaders: dict[str, CacheAs] = {}
        self._leading: dict[CacheAs, str] = {}
        self._followers: dict[CacheAs, dict[str, LookUp]] = {}
        self._elsewhere: dict[CacheAs, LookUp] = {}
        self._complained: set[str] = set()

    # From the tracker's thread ------------------------------------------------------------------------

    def watch(self, task_run_ids: Sequence[str], caching: Caching, storage: str) -> None:
        """Note how task runs that are asked for are cached, in `storage` if they do not say where."""
        where = caching.storage or storage
        for task_run_id, key in zip(task_run_ids, caching.keys, strict=True):
            if key is not None:
                self._calls[task_run_id] = _Call(key, caching, where)

    def look_up(self, order: LookUp) -> None:
        """Find out whether a value is in the cache."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dflow-cache", daemon=True)
            self._thread.start()
        self._posts.put(order)

    def settled(self, run: TaskRun) -> None:
        """Note that a task run is final: those who wait for its key may look again."""
        if run.id in self._calls and self._thread is not None:
            self._posts.put(_Ended(run.id))

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
            self._thread.join()
        if self._askers is not None:
            self._askers.shutdown(wait=False, cancel_futures=True)
        if self._holds:
            with suppress(DflowError):  # others have them when they expire, or this process ends
                self._leases.release_all(self._owner)

    # The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            orders: list[LookUp] = []
            ended: list[str] = []
            for post in self._gather():
                if post is None:
                    return
                if isinstance(post, LookUp):
                    orders.append(post)
                else:
                    ended.append(post.task_run_id)
            try:
                orders += self._let_follow(ended)
                self._answer(orders)
                self._look_elsewhere()
            except DflowError:
                return  # the session has ended
            except Exception as error:
                self._complain("its lookup failed", error)
                self._post([(order, None) for order in orders])

    def _gather(self) -> Iterable[LookUp | _Ended | None]:
        try:
            yield self._posts.get(timeout=POLL if self._elsewhere else None)
            while True:
                yield self._posts.get_nowait()
        except Empty:
            return

    def _answer(self, orders: Sequence[LookUp]) -> None:
        """Answer what can be answered now; the rest waits for who computes its key."""
        keyed: list[tuple[LookUp, CacheAs]] = []
        unknown: list[LookUp] = []
        for order in orders:
            key = self._key_of(order)
            if key is None:
                continue
            self._keys[order.run_id] = key
            refresh = self._calls[order.run_id].caching.refresh
            (unknown.append(order) if refresh else keyed.append((order, key)))
        found = self._look({key for _, key in keyed})
        self._post([(order, found[key]) for order, key in keyed if key in found])
        missed = [(order, key) for order, key in keyed if key not in found]
        unknown += [order for order, _ in missed if not order.lead]
        self._post([(order, None) for order in unknown])
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
            found.update((wanted[name], record) for name, record in records.items())
        return found

    def _post(self, answers: Sequence[tuple[LookUp, CacheRecord | None]]) -> None:
        for start in range(0, len(answers), GROUP):
            some = answers[start : start + GROUP]
            self._session.tracker.post(Do(partial(self._apply, some)))

    def _apply(self, answers: Sequence[tuple[LookUp, CacheRecord | None]], ledger: Ledger) -> None:
        """Let the ledger go on with what was answered; in the tracker's thread."""
        now = self._session.clock.now()
        for order, record in answers:
            if record is None:
                ledger.look_again(order, now)
            elif ledger.lookups.answered(order):
                ledger.apply(_hit(order.run_id, record, now))
            if ledger.table.task_runs[order.run_id].stage.final:
                self._posts.put(_Ended(order.run_id))

    # Who computes -------------------------------------------------------------------------------------

    def _lead(self, missed: Sequence[tuple[LookUp, CacheAs]]) -> None:
        """Let the first with each key compute it, if no other driver does; the others follow."""
        wanted: dict[CacheAs, LookUp] = {}
        for order, key in missed:
            if key in self._leading or key in self._elsewhere or key in wanted:
                self._followers.setdefault(key, {})[order.run_id] = order
            else:
                wanted[key] = order
        self._take(wanted)

    def _take(self, wanted: dict[CacheAs, LookUp]) -> bool:
        """Take the leases of keys; what others hold is waited for. Return whether there were any to be had."""
        taken = self._leased(wanted)
        found = self._look(taken)
        self._release(list(found))
        answers: list[tuple[LookUp, CacheRecord | None]] = []
        again: list[LookUp] = []
        for key, order in wanted.items():
            if key not in taken:
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
            first = list(self._elsewhere)[:MOST]
            some = {key: self._elsewhere.pop(key) for key in first}
            going = self._take(some) and bool(self._elsewhere)

    def _let_follow(self, ended: Sequence[str]) -> list[LookUp]:
        """Give free the keys of task runs that are final; return who wants to look again."""
        free: list[CacheAs] = []
        again: list[LookUp] = []
        for task_run_id in ended:
            key = self._leaders.pop(task_run_id, None)
            if key is not None:
                del self._leading[key]
                free.append(key)
            else:
                key = self._keys.get(task_run_id)
                if key is None or self._forget_waiting(task_run_id, key):
                    continue
            again += self._followers.pop(key, {}).values()
        self._release(free)
        return again

    def _forget_waiting(self, task_run_id: str, key: CacheAs) -> bool:
        """Wait no more on behalf of a task run; return whether others wait on, or nobody did."""
        self._followers.get(key, {}).pop(task_run_id, None)
        waiting = self._elsewhere.get(key)
        if waiting is None or waiting.run_id != task_run_id:
            return True
        del self._elsewhere[key]
        return False

    # Keys -------------------------------------------------------------------------------------------------

    def _key_of(self, order: LookUp) -> CacheAs | None:
        """Return the key of a task run; None if somebody has to be asked for it, or there is none."""
        call = self._calls[order.run_id]
        if isinstance(call.key, LateKey):
            self._ask(order, call, call.key)
            return None
        digest = None if call.key is None else self._completed(call.key)
        if digest is None:
            self._keys.pop(order.run_id, None)
            self._post([(order, None)])
            return None
        return CacheAs(key=digest, storage=call.storage, seconds=call.caching.seconds)

    def _completed(self, key: PartialKey) -> str | None:
        """Return a key with where the values come from that it depends on; None if that is not to be told."""
        origins = [self._origin(task_run_id) for task_run_id in key.refs]
        if None in origins:
            return None
        return digest_of(key.text, *(origin for origin in origins if origin is not None))

    def _origin(self, task_run_id: str) -> str | None:
        """Return what tells the value of a task run from all others, without loading it."""
        run = self._session.tracker.shown.get(task_run_id)
        if not isinstance(run, TaskRun) or run.stage is not Stage.COMPLETED:
            return None
        if run.stored is not None:
            return f"stored {run.stored.serializer} {run.stored.digest}"
        if run.held is not Held.JOURNAL:
            root = self._session.root.root_id
            return f"run {root} {run.id} {run.generation} {run.dispatch}"
        known = (run.id, run.generation)
        if known not in self._origins:
            self._origins[known] = digest_of("value", self._session.kept_bytes(run.id))
        return self._origins[known]

    def _ask(self, order: LookUp, call: _Call, key: LateKey) -> None:
        """Let the user's code make a key, in a thread where it holds up nobody."""
        if self._askers is None:
            self._askers = ThreadPoolExecutor(ASKING, thread_name_prefix="dflow-cache-key")
        self._askers.submit(self._ask_user, order, call, key)

    def _ask_user(self, order: LookUp, call: _Call, key: LateKey) -> None:
        run = self._session.task_run(order.run_id)
        text: str | None = None
        try:
            question: Any = key.question
            if isinstance(question, bytes):
                question = loads(question)
            values = {up.task_run_id: self._value(up.task_run_id) for up in takes(run.upstreams)}
            with beside(callbacks.told_of_task(self._session, run)):
                text = question.answer(values)
        except BaseException as error:  # the user's code may raise anything
            self._complain(f"the key of '{run.name}' could not be made", error)
        made = None if text is None else PartialKey(digest_of(text))
        self._calls[order.run_id] = _Call(made, call.caching, call.storage)
        self._posts.put(order)

    def _value(self, task_run_id: str) -> Any:
        run = self._session.task_run(task_run_id)
        if run.stage is Stage.COMPLETED:
            return self._session.value_of(run)
        return self._session.stand_in(task_run_id)

    def _complain(self, what: str, error: BaseException) -> None:
        """Warn once of what makes the cache useless for now."""
        if what not in self._complained:
            self._complained.add(what)
            run_logs.show(
                logging.WARNING,
                f"WARNING {self._session.root.flow_run_name} | Some task runs go without the cache: {what}: "
                f"{error}",
            )


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
