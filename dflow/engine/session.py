"""A session: one root flow run, driven by this process.

It joins the tracker to the journal on one side and to the open runners on the other: commands become work,
what comes up from attempts becomes posts. It must not decide anything: the ledger does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

from dflow.attempts.context import FlowInfo
from dflow.attempts.failures import Failure
from dflow.attempts.inputs import read
from dflow.core import events as ev
from dflow.core.records import Held, Stage, TaskRun
from dflow.core.replay import Table
from dflow.engine import interpreter, outcomes
from dflow.engine.cached_calls import cached_of
from dflow.engine.caching import Caches
from dflow.engine.callbacks import Owners
from dflow.engine.claims import Claim
from dflow.engine.conditions import Conditions
from dflow.engine.dispatcher import Asking, Dispatcher
from dflow.engine.hearing import Hearing
from dflow.engine.hooks import Hooks
from dflow.engine.ledger import Ledger
from dflow.engine.links import LocalLink
from dflow.engine.persisting import Persisting
from dflow.engine.recent import Recent
from dflow.engine.renewal import Again
from dflow.engine.telling import Telling
from dflow.engine.tracker import Asked, Do, Tracker, ids_of
from dflow.engine.waiting import Inlet
from dflow.errors import DflowError, InternalError, JournalError, MissingResult, SerializationError
from dflow.messages import (
    AttemptInfo,
    CallOptions,
    Down,
    FlowAsked,
    HandleDropped,
    Key,
    LogEntry,
    Up,
)
from dflow.ports import Clock, Holder, Ids, Leases, OpenRunner, RunJournal, RunReader, TaskRunner
from dflow.results.pickling import loads
from dflow.settings import Settings

T = TypeVar("T")
MAX_ERRORS = 1000
"""How many exceptions are kept as they are; of others the record is enough."""


class Session:
    """Drives one root flow run: what its flow and its tasks ask for goes through here."""

    def __init__(
        self,
        root: FlowInfo,
        journal: RunJournal,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        table: Table | None = None,
        *,
        again: Again | None = None,
        answer: Callable[[Session, FlowAsked], None],
        reader: Callable[[], RunReader],
        leases: Leases,
        holder: Holder | None = None,
    ) -> None:
        self.root = root
        self.root_id = root.flow_run_id
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.journal = journal
        self.ledger = Ledger(table)
        self.checkpoints = str(settings.home / "checkpoints" / root.root_id)
        self.persisting = Persisting(root.root_id, settings, self.ledger.table, self.warn)
        self.errors: dict[str, BaseException] = {}
        self.stops: dict[str, Callable[[], object]] = {}
        self.again = again
        self._hearing = Hearing(self, answer)
        self.recent = Recent()
        self._reader = reader
        self.flow_calls: dict[str, Any] = {}
        self._flows: dict[str, FlowInfo] = {}
        self._runners: dict[str, Callable[[], TaskRunner]] = {}
        self._closed = self._begun = False
        self._open: dict[TaskRunner, OpenRunner] = {}
        self._opening = threading.Lock()
        self.dispatcher = Dispatcher(self)
        self.adopter: OpenRunner | None = None
        self.owners = Owners()
        self.hooks = Hooks(self)
        self.conditions = Conditions(self)
        self.caches = Caches(self, leases, holder)
        telling = Telling(self)
        self.tracker = Tracker(
            self.ledger,
            journal,
            clock,
            act=self.dispatcher.act,
            echo=telling.echo,
            changed=telling.changed,
            stop_grace=settings.stop_grace,
            holds=self.conditions.holds,
            tell=self.hooks.tell,
            luck=ids.luck,
            forget=self.dispatcher.forget,
        )
        interpreter.a_session_begins()
        self.tracker.start()

    # Flow runs and their runners --------------------------------------------------------------------

    def add_flow(self, flow: FlowInfo, runner: Callable[[], TaskRunner]) -> None:
        """Let a flow run ask for task runs; `runner` gives its runner, when the first is submitted."""
        self._flows[flow.flow_run_id] = flow
        self._runners[flow.flow_run_id] = runner

    def flow_info(self, flow_run_id: str) -> FlowInfo:
        """Return what is known of a flow run."""
        return self._flows[flow_run_id]

    def runner_of(self, flow_run_id: str) -> Callable[[], TaskRunner]:
        """Return what gives the runner of a flow run."""
        return self._runners[flow_run_id]

    def open_runner(self, flow_run_id: str) -> OpenRunner:
        """Return the runner of a flow run at work, opened at its first use. Raises `ClusterError`."""
        with self._opening:
            self.tracker.check()
            runner = self._runners[flow_run_id]()
            if runner not in self._open:
                self._open[runner] = runner.open(self)
            return self._open[runner]

    def taken_up(self, flow_run_id: str) -> Again | None:
        """Return how the root flow run is taken up, once: when its body begins here for the first time."""
        if flow_run_id != self.root.flow_run_id or self._begun:
            return None
        self._begun = True
        return self.again

    def witness(self, task_run_id: str, error: BaseException) -> None:
        """Keep an exception itself, for those in this process who ask for it; the oldest are let go."""
        self.errors[task_run_id] = error
        if len(self.errors) > MAX_ERRORS:
            self.errors.pop(next(iter(self.errors)), None)

    def name_of(self, run_id: str) -> str:
        """Return the name of a run, for people."""
        table = self.ledger.table
        run = table.task_runs.get(run_id) or table.flow_runs.get(run_id)
        return run.name if run is not None else run_id[:8]

    # Asking -------------------------------------------------------------------------------------------

    def ask(
        self,
        event: ev.TaskCreated | ev.MapCreated,
        calls: Sequence[Any],
        options: CallOptions,
        runner: OpenRunner | None,
        parent: Key | None = None,
        orders: Inlet | None = None,
        at_once: bool = False,
    ) -> Asking:
        """Ask for task runs: `calls` are packed as `runner` takes them, one for each.

        Without a runner, or with one that runs bodies in the calling thread, the caller acts on `orders`: a
        `Go` for each attempt, None for each task run that is final, or will never be heard of again. A caller
        that begins `at_once` says soon what has come of it.
        """
        flow = self._flows[event.flow_run_id]
        ids = ids_of(event)
        asking = Asking(options, flow, runner, parent, orders, at_once)
        claim = Claim(
            id(runner),
            here=options.here,
            follows=runner is not None and runner.follows,
            shares_memory=runner is None or runner.shares_memory,
            max_in_flight=options.max_in_flight,
            cached=cached_of(ids, options.caching),
        )

        self.persisting.look(runner, flow, options.results, may_raise=parent is None)

        def accept() -> None:
            self.dispatcher.accept(ids, calls, asking)
            self._hearing.asked_for(ids)
            if options.caching is not None:
                self.caches.watch(ids, options, flow)
            if options.callbacks is not None:
                self.ledger.notes.watch(ids)

        self.tracker.check()
        self.tracker.hide(ids)
        post = self.tracker.post_soon if at_once else self.tracker.post
        post(Asked(event, claim, parent is None or not options.here, accept))
        if orders is not None:
            for task_run_id in ids:
                self.tracker.when_final(task_run_id, partial(orders.put, None))
        return asking

    def note_asked(self, event: ev.TaskCreated) -> None:
        """Note that a task run was asked for whose recorded value its caller takes at once."""
        self.tracker.post(Asked(event, Claim(0, here=True), handles=False, accept=lambda: None))

    # The host of open runners -------------------------------------------------------------------------

    def news(self, messages: Sequence[Up]) -> None:
        """Take what came up from attempts, in order. After the end of the flow run nobody hears it."""
        if self.tracker.ended and self.tracker.failure is None:
            return
        self._hearing.news(messages)

    def link(self, info: AttemptInfo, *, in_place: bool = False) -> LocalLink:
        """Return a link for an attempt that runs in this process, perhaps where it is called."""
        return LocalLink(self, info.task_run_id, info.dispatch, in_place=in_place)

    # Values -------------------------------------------------------------------------------------------------

    def value(self, task_run_id: str) -> Any:
        """Return the value of a final task run, or raise what made it fail. Blocks while it is fetched."""
        run = self.tracker.shown[task_run_id]
        if not isinstance(run, TaskRun):
            raise InternalError(f"'{run.name}' is not a task run.")
        if run.stage is not Stage.COMPLETED:
            root = self.task_run(self.ledger.root_failure(task_run_id))
            raise outcomes.failure(run, root, self.errors.get(root.id))
        return self.value_of(run)

    def fetched(self, task_run_ids: Sequence[str]) -> dict[str, Any]:
        """Return values that runners, or the journal, give in one go, up to who has not completed."""
        if self._closed:
            return {}
        groups: dict[OpenRunner, dict[str, Key]] = {}
        written: list[str] = []
        for task_run_id in task_run_ids:
            run, asked = self.tracker.shown[task_run_id], self.dispatcher.asked.get(task_run_id)
            if run.stage is not Stage.COMPLETED:
                break
            runner = None if asked is None else asked.runner
            if runner is not None and run.id in self.ledger.with_runner:
                if not runner.shares_memory and isinstance(run, TaskRun):
                    groups.setdefault(runner, {})[run.id] = (run.id, run.dispatch)
            elif run.held is Held.JOURNAL and self.recent.get(run.id) is None:
                written.append(run.id)
        found = self._written(written) if len(written) > 1 else {}
        for runner, keys in groups.items():
            if len(keys) > 1:
                values = runner.fetch_each(list(keys.values()))
                found.update((name, values[key]) for name, key in keys.items() if key in values)
        return found

    def _written(self, run_ids: Sequence[str]) -> dict[str, Any]:
        """Return values that the journal has, but none that cannot be read: who asks for one hears why."""
        with suppress(JournalError, SerializationError):
            kept = self.journal.values(run_ids)
            return {run_id: self._loaded(run_id, data) for run_id, data in kept.items()}
        return {}

    def value_of(self, run: TaskRun) -> Any:
        """Return the value of a task run that has completed. Blocks while it is fetched."""
        asked = self.dispatcher.asked.get(run.id)
        at_runner = asked is not None and run.id in self.ledger.with_runner
        if at_runner and not self._closed and asked and asked.runner is not None:
            try:
                return asked.runner.fetch((run.id, run.dispatch))
            except MissingResult:
                if run.held is not Held.STORED:
                    raise
        if run.held is Held.JOURNAL:
            return self.kept(run.id)
        if run.held is Held.STORED and run.stored is not None:
            return read(run.stored, run.name, (run.id, run.dispatch), LocalLink(self, run.id))
        raise MissingResult(
            f"'{run.name}' has completed, but its value is gone: it was larger than "
            f"{self.settings.small_result} bytes, was not kept, and is not on the cluster any more. Give the "
            "task persist_result=True, or keep its future as long as you need the value, and run it again."
        )

    def stand_in(self, task_run_id: str) -> Failure:
        """Return what stands for the exception of a task run that ended without a value."""
        root = self.task_run(self.ledger.root_failure(task_run_id))
        live = self.errors.get(root.id)
        return outcomes.stand_in(self.task_run(task_run_id), root, live)

    def kept(self, run_id: str) -> Any:
        """Return the value of a run that the journal keeps. Raises `SerializationError`, `MissingResult`."""
        return self._loaded(run_id, self.kept_bytes(run_id))

    def _loaded(self, run_id: str, data: bytes) -> Any:
        try:
            return loads(data)
        except Exception as error:
            raise SerializationError(
                f"The value of '{self.name_of(run_id)}' cannot be loaded here: {error!r}. Return something "
                "that can be unpickled, and install what it is made of where it is asked for."
            ) from error

    def task_run(self, task_run_id: str) -> TaskRun:
        """Return a task run as the ledger has it: for the tracker's thread."""
        return self.ledger.table.task_runs[task_run_id]

    def kept_bytes(self, run_id: str) -> bytes:
        """Return the pickled value of a run that the journal keeps. Raises `MissingResult`."""
        data = self.recent.get(run_id)
        if data is None:
            data = self._reopened(run_id) if self._closed else self.journal.value(run_id)
        if data is None:
            raise MissingResult(f"The journal has no value of '{self.name_of(run_id)}'.")
        return data

    def _reopened(self, run_id: str) -> bytes | None:
        """Return a value from the record of a flow run that has ended here."""
        try:
            reader = self._reader()
        except DflowError as error:
            raise MissingResult(
                f"The flow run of '{self.name_of(run_id)}' has ended, and its record cannot be read any "
                f"more: {error} Ask for values while it runs, or return them from the flow."
            ) from error
        try:
            return reader.value(run_id)
        finally:
            reader.close()

    def tell(self, key: Key, message: Down) -> None:
        """Send a message down to an attempt."""
        asked = self.dispatcher.asked.get(key[0])
        if asked is not None and asked.runner is not None:
            asked.runner.tell(key, message)

    def cancel_flow(self, flow_run_id: str) -> None:
        """Ask a flow run to end: nothing new begins in it, and what waits is cancelled."""
        now = self.clock.now()

        def action(ledger: Ledger) -> None:
            ledger.apply(ev.FlowCancelRequested(at=now, flow_run_id=flow_run_id))
            ledger.closing.cancel_all(flow_run_id, now)

        self.in_tracker(action)
        stop = self.stops.get(flow_run_id)
        if stop is not None:
            stop()

    def cancel(self, task_run_ids: Sequence[str]) -> None:
        """Ask for task runs to end: what has not started at once, what runs is asked to stop."""
        now = self.clock.now()
        self.tracker.post(*(ev.CancelRequested(at=now, task_run_id=each) for each in task_run_ids))

    # The end ------------------------------------------------------------------------------------------------

    def drop(self, *task_run_ids: str) -> None:
        """Note that one future of each of these task runs is gone."""
        with suppress(DflowError):
            self.tracker.post(HandleDropped(task_run_ids))

    def log(self, entry: LogEntry) -> None:
        """Record and show a line of a run."""
        self.tracker.post(entry)

    def warn(self, message: str) -> None:
        """Record and show a warning of the root flow run."""
        now, run_id = self.clock.now(), self.root.flow_run_id
        self.log(LogEntry(now, run_id, None, 0, logging.WARNING, __name__, message))

    def in_tracker(self, action: Callable[[Ledger], T], *, patient: bool = True) -> T:
        """Do something with the ledger in the tracker's thread; return its result once it is durable.

        Who is not `patient` gets a `JournalUnavailable` while the journal cannot be written.
        """
        results: list[T] = []
        self.tracker.commit(Do(lambda ledger: results.append(action(ledger))), patient=patient)
        return results[0]

    def close(self) -> None:
        """Let go of runners, tracker and journal. The runs stay as they were recorded."""
        with ExitStack() as stack:
            if not self._closed:
                stack.callback(interpreter.a_session_ends)
            stack.callback(self.journal.close)
            stack.callback(setattr, self, "_closed", True)
            stack.callback(self.hooks.close)
            stack.callback(self.tracker.close)
            stack.callback(self.dispatcher.close)
            stack.callback(self.caches.close)
            stack.callback(self.persisting.close)
            for opened in self._open.values():
                stack.callback(opened.close)
            stack.callback(self.hooks.drain)
