"""From a cached call to its key: what was missing of it where the call was made is filled in by the driver.

A value that is kept is not hashed again: what its record knows of it stands for it. One that is kept nowhere
is hashed where it is, once. So nothing is loaded for a key, unless a policy or a function of the user's asks
for the values themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dflow.attempts.context import FlowInfo, beside
from dflow.core.records import Held, Stage, TaskRun
from dflow.core.values import CacheAs
from dflow.engine import callbacks
from dflow.engine.claims import LookUp
from dflow.engine.needs import takes
from dflow.errors import DflowError
from dflow.messages import Caching, CallOptions, LateKey, PartialKey
from dflow.results.keys import content_text, digest_of
from dflow.results.pickling import loads

if TYPE_CHECKING:
    from dflow.engine.session import Session

FORM = "1"
"""How keys are made: another number where the same call would have another key."""
ASKING = 8
"""How many policies and functions of the user's are asked, and values hashed, at once."""


_Value = tuple[str, int, int]
"""The execution that made a value: task run, generation, dispatch."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a key needs is being made, and the question is put again when it is there."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What is known of a cached call."""

    key: PartialKey | LateKey | None
    caching: Caching
    storage: str


def _value(run: TaskRun) -> _Value:
    return run.id, run.generation, run.dispatch


def cached_of(task_run_ids: Sequence[str], caching: Caching | None) -> frozenset[str]:
    """Return those task runs that have a key, or may have one."""
    if caching is None:
        return frozenset()
    keyed = zip(task_run_ids, caching.keys, strict=True)
    return frozenset(task_run_id for task_run_id, key in keyed if key is not None)


class CachedCalls:
    """The cached calls of one session. A question whose key has been made meanwhile goes to `again`."""

    def __init__(
        self,
        session: Session,
        again: Callable[[LookUp], None],
        complain: Callable[[str, BaseException], None],
    ) -> None:
        self._session = session
        self._again = again
        self._complain = complain
        self._calls: dict[str, _Call] = {}
        self._origins: dict[_Value, str | None] = {}
        self._warned: set[str] = set()
        self._hashing: dict[_Value, list[LookUp]] = {}
        self._lock = threading.Lock()
        self._askers: ThreadPoolExecutor | None = None

    def watch(self, task_run_ids: Sequence[str], options: CallOptions, flow: FlowInfo) -> None:
        """Note how task runs are cached: where their values are kept, if they do not say where."""
        caching, storage = options.caching, self._session.settings.result_storage
        if caching is None:
            return
        if flow.keeping is not None:
            storage = options.results.over(flow.keeping).storage
        for task_run_id, key in zip(task_run_ids, caching.keys, strict=True):
            if key is not None:
                self._calls[task_run_id] = _Call(key, caching, caching.storage or storage)

    def knows(self, task_run_id: str) -> bool:
        """Tell whether a task run is cached."""
        return task_run_id in self._calls

    def refreshed(self, task_run_id: str) -> bool:
        """Tell whether the value is computed again whatever there is."""
        return self._calls[task_run_id].caching.refresh

    def close(self) -> None:
        """Ask the user's code nothing more."""
        if self._askers is not None:
            self._askers.shutdown(wait=False, cancel_futures=True)

    def key_of(self, order: LookUp) -> CacheAs | Asked | None:
        """Return the key of a task run; None if there is none, which is said if something went wrong."""
        call = self._calls[order.run_id]
        if isinstance(call.key, LateKey):
            self._beside(self._ask, order, call, call.key)
            return Asked()
        try:
            if call.key is not None and self._waits_for_hash(order, call.key):
                return Asked()
            digest = None if call.key is None else self._completed(call.key)
        except Exception as error:
            self._complain("where a value comes from cannot be read", error)
            return None
        if digest is None:
            return None
        caching = call.caching
        return CacheAs(
            key=digest,
            storage=call.storage,
            seconds=caching.seconds,
            maker=caching.maker,
            given=call.key.given if call.key is not None and self._is_shared(order.run_id) else (),
        )

    def _is_shared(self, task_run_id: str) -> bool:
        """Tell whether a body has the very arguments of its caller, who may change them while it waits."""
        asked = self._session.dispatcher.asked[task_run_id]
        runner = asked.runner
        return (
            runner is not None
            and runner.shares_memory
            and not (runner.runs_here or asked.options.here)
        )

    def _completed(self, key: PartialKey) -> str | None:
        """Return a key with where the values come from that it depends on; None if nothing stands for one."""
        parts = [FORM, key.text]
        for task_run_id in key.refs:
            origin = self._origin(task_run_id)
            if origin is None:
                return None
            parts.append(origin)
        return digest_of(*parts)

    def _origin(self, task_run_id: str) -> str | None:
        """Return what tells the value of a task run from all others, without loading it."""
        run = self._session.tracker.shown.get(task_run_id)
        if not isinstance(run, TaskRun) or run.stage is not Stage.COMPLETED:
            return None
        if run.stored is not None:
            return f"stored {run.stored.serializer} {run.stored.digest}"
        value = _value(run)
        if run.held is Held.JOURNAL and value not in self._origins:
            self._origins[value] = digest_of("value", self._session.kept_bytes(run.id))
        return self._origins.get(value)

    # Values that are kept nowhere ---------------------------------------------------------------------

    def _waits_for_hash(self, order: LookUp, key: PartialKey) -> bool:
        """Let a value be hashed that a key needs, if there is one; then the question is put again."""
        for task_run_id in key.refs:
            run = self._session.tracker.shown.get(task_run_id)
            if not isinstance(run, TaskRun) or run.stage is not Stage.COMPLETED or run.held.kept:
                continue
            value = _value(run)
            with self._lock:
                if value in self._origins:
                    continue
                if value not in self._hashing:
                    self._beside(self._hash, run, value)
                self._hashing.setdefault(value, []).append(order)
            return True
        return False

    def _hash(self, run: TaskRun, value: _Value) -> None:
        """Hash a value where it is; of one that cannot be hashed no key is made."""
        asked = self._session.dispatcher.asked.get(run.id)
        text: str | None = None
        try:
            if asked is not None and asked.runner is not None:
                text = asked.runner.apply(content_text, (run.id, run.dispatch))
        except Exception as error:
            self._complain(f"the value of '{run.name}' cannot be hashed where it is", error)
        if text is None:
            self._warn_of(run)
        with self._lock:
            self._origins[value] = text
            orders = self._hashing.pop(value)
        for order in orders:
            self._again(order)

    def _warn_of(self, run: TaskRun) -> None:
        """Warn, once for each task, of a value by which nothing can be found."""
        with self._lock:
            if run.task_name in self._warned:
                return
            self._warned.add(run.task_name)
        with suppress(DflowError):  # the session has ended
            self._session.warn(
                f"The value of '{run.name}' cannot be hashed and is kept nowhere: cached tasks that take it "
                f"go without the cache. Give task '{run.task_name}' persist_result=True or a cache_policy=."
            )

    def _beside(self, function: Callable[..., None], *args: Any) -> None:
        """Do what takes time in a thread where it holds up nobody."""
        if self._askers is None:
            self._askers = ThreadPoolExecutor(ASKING, thread_name_prefix="dflow-cache-key")
        self._askers.submit(function, *args)

    # The user's code ------------------------------------------------------------------------------------

    def _ask(self, order: LookUp, call: _Call, key: LateKey) -> None:
        """Let the user's code make a key, in a thread where it holds up nobody."""
        run = self._session.task_run(order.run_id)
        made: PartialKey | None = None
        try:
            question: Any = key.question
            if isinstance(question, bytes):
                question = loads(question)
            values = {up.task_run_id: self._value(up.task_run_id) for up in takes(run.upstreams)}
            with beside(callbacks.told_of_task(self._session, run)):
                text = question.answer(values)
            made = None if text is None else PartialKey(text)
        except BaseException as error:  # the user's code may raise anything
            self._complain(f"the key of '{run.name}' could not be made", error)
        self._calls[order.run_id] = replace(call, key=made)
        self._again(order)

    def _value(self, task_run_id: str) -> Any:
        run = self._session.task_run(task_run_id)
        if run.stage is Stage.COMPLETED:
            return self._session.value_of(run)
        return self._session.stand_in(task_run_id)
