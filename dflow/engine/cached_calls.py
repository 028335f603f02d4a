"""From a cached call to its key: what was missing of it where the call was made is filled in by the driver.

A value that a task run has produced is not hashed again: what its record knows of it stands for it. So
nothing is loaded for a key, unless a policy or a function of the user's asks for the values themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dflow.attempts.context import FlowInfo, beside
from dflow.core.records import Held, Stage, TaskRun
from dflow.core.values import CacheAs
from dflow.engine import callbacks
from dflow.engine.claims import LookUp
from dflow.engine.needs import takes
from dflow.messages import Caching, CallOptions, LateKey, PartialKey
from dflow.results.keys import digest_of
from dflow.results.pickling import loads

if TYPE_CHECKING:
    from dflow.engine.session import Session

FORM = "1"
"""How keys are made: another number where the same call would have another key."""
ASKING = 8
"""How many policies and functions of the user's are asked at once."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A key is being made by the user's code; the question is put again when it is there."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What is known of a cached call."""

    key: PartialKey | LateKey | None
    caching: Caching
    storage: str


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
        self._origins: dict[tuple[str, int], str] = {}
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
            if self._askers is None:
                self._askers = ThreadPoolExecutor(ASKING, thread_name_prefix="dflow-cache-key")
            self._askers.submit(self._ask, order, call, call.key)
            return Asked()
        try:
            digest = None if call.key is None else self._completed(call.key)
        except Exception as error:
            self._complain("where a value comes from cannot be read", error)
            return None
        if digest is None:
            return None
        caching = call.caching
        return CacheAs(
            key=digest, storage=call.storage, seconds=caching.seconds, maker=caching.maker
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
        if run.held is not Held.JOURNAL:
            root = self._session.root.root_id
            return f"run {root} {run.id} {run.generation} {run.dispatch}"
        known = (run.id, run.generation)
        if known not in self._origins:
            self._origins[known] = digest_of("value", self._session.kept_bytes(run.id))
        return self._origins[known]

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
