"""The engine as seen by a body that runs in the driver's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from dflow.attempts import body
from dflow.attempts.calls import Call
from dflow.attempts.context import RunContext, current
from dflow.attempts.kinds import Kind
from dflow.attempts.performing import Manner
from dflow.attempts.stepping import STOPS, Carried, finished
from dflow.core.events import MapCreated, TaskCreated
from dflow.core.machine import create
from dflow.core.records import Held, Stage, TaskRun
from dflow.engine.futures import slot_given_back
from dflow.engine.identity import Children, Known
from dflow.engine.ledger import Ledger
from dflow.engine.outcomes import received
from dflow.engine.scope import Called, Scope, Status, status_of
from dflow.engine.session import Session
from dflow.engine.tracker import Do, ids_of
from dflow.engine.waiting import inlet
from dflow.errors import DflowError
from dflow.messages import AttemptInfo, CallOptions, Go
from dflow.ports import OpenRunner
from dflow.results.source import has_changed
from dflow.states import StateType

PACE = 0.5
"""Seconds that a map waits at most for the tracker to take in one of its parts."""
OVER = 256
"""Of how many direct calls that are over the tracker is told at once."""


class DriverScope:
    """Asks the session for task runs, on behalf of one execution of a body."""

    def __init__(
        self,
        session: Session,
        flow_run_id: str,
        parent_id: str,
        runner: Callable[[], OpenRunner],
        execution: str = "",
    ) -> None:
        self.session = session
        self._flow_run_id = flow_run_id
        self._parent_id = parent_id
        self._runner = runner
        self._opened: OpenRunner | None = None
        self._dropped: list[str] | None = None
        # Reentrant: a future may be collected in the middle of the dropping of another one.
        self._dropping = threading.RLock()
        self._over: list[str] = []
        self._mark: threading.Event | None = None
        self._children = Children(parent_id, execution)
        flow_run = session.ledger.table.flow_runs.get(flow_run_id)
        self._generation = 0 if flow_run is None else flow_run.generation

    @property
    def flow_run_id(self) -> str:
        """The flow run that task runs asked for here belong to."""
        return self._flow_run_id

    @property
    def parent_id(self) -> str:
        """The run whose body asks."""
        return self._parent_id

    @property
    def generation(self) -> int:
        """The generation of that flow run."""
        return self._generation

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""
        return self.session.clock.now()

    def identify(
        self, task_name: str, inputs: Any, known_as: bytes = b"", *, apart: bool = False
    ) -> tuple[str, str]:
        """Return the id and the name of the next call of a task with these inputs."""
        return self._children.identify(task_name, inputs, known_as, apart=apart)

    def identify_all(
        self, task_name: str, inputs: Iterable[Known], known_as: bytes = b"", *, apart: bool = False
    ) -> list[tuple[str, str]]:
        """Return the ids and the names of the next calls of a task, one for each of the inputs."""
        return self._children.identify_all(task_name, inputs, known_as, apart=apart)

    def owns(self, other: Scope) -> bool:
        """Tell whether a future of `other` may be an upstream here: one of the same session."""
        return isinstance(other, DriverScope) and other.session is self.session

    def submit(
        self, event: TaskCreated | MapCreated, calls: Sequence[Call], options: CallOptions
    ) -> None:
        """Ask for task runs, one call each. Waits for them only where the runner runs them here."""
        runner = self._opened
        if runner is None:
            runner = self._opened = self._runner()
        packed = [runner.pack(call) for call in calls]
        if not runner.runs_here:
            self.session.ask(event, packed, options, runner)
            self._dropped = None
            return
        finished(self._submit_here(runner, event, packed, options))

    def keep_pace(self) -> bool:
        """Wait until what was asked for before the last call of this has been taken in; not on an event loop.

        Nor for long: the tracker may be waiting for its journal, or for what this thread holds.
        """
        if asyncio._get_running_loop() is not None:
            return False
        mark = threading.Event()
        self.session.tracker.post(Do(lambda _: mark.set()))
        before, self._mark = self._mark, mark
        return before is None or before.wait(PACE)

    async def _submit_here(
        self,
        runner: OpenRunner,
        event: TaskCreated | MapCreated,
        packed: Sequence[Any],
        options: CallOptions,
    ) -> None:
        """Ask for task runs whose bodies the runner runs in this thread, and let it."""
        ids = ids_of(event)
        orders = inlet(native=False)
        self.session.ask(event, packed, options, runner, orders=orders)
        self._dropped = None
        left = len(ids)
        with self._given_up(ids):
            while left:
                order = await orders.get()
                if order is None:
                    left -= 1
                elif not self._withdrawn(order):
                    self.session.dispatcher.carry(runner, order)

    async def call(
        self, event: TaskCreated, call: Call, options: CallOptions, *, kind: Kind, whole: bool
    ) -> Called:
        """Ask for one task run, and run its body in this thread or on this loop."""
        if self._may_be_given_at_once(event):
            self.session.note_asked(event)
            return Called(self.session.kept(event.task_run_id), ran=False)
        orders = inlet(native=kind.native)
        at_once = options.caching is None and self._may_go_at_once(event)
        asked = self.session.ask(event, [call], options, None, orders=orders, at_once=at_once)
        run_body = partial(self._run_body, call, options, whole)
        ran = at_once
        value: Any = None
        with self._given_up([event.task_run_id]):
            if at_once:
                run, go = create(event)[0], Go(event.task_run_id, 1, 1)
                info = self.session.dispatcher.info_of(run, asked, go)
                value = await run_body(info, {})
            with slot_given_back() if event.upstreams or options.caching else nullcontext():
                order = await orders.get()
            while order is not None:
                if not self._withdrawn(order):
                    value, ran = await run_body(*self._given_to(order)), True
                order = await orders.get()
        if ran and self.status(event.task_run_id).type is StateType.COMPLETED:
            self._is_over(event.task_run_id)
            return Called(value, ran)
        try:
            return Called(self.session.value(event.task_run_id), ran)
        except STOPS as error:
            raise Carried(error) from None
        finally:
            self.session.errors.pop(event.task_run_id, None)

    def _is_over(self, task_run_id: str) -> None:
        """Note that a call has its value: until then it holds the task run, as a future does."""
        with self._dropping:
            self._over.append(task_run_id)
            full = len(self._over) >= OVER
        if full:
            self.drop_calls()

    def drop_calls(self) -> None:
        """Let go of the task runs of all direct calls that are over."""
        with self._dropping:
            over, self._over = self._over, []
        if over:
            self.drop(*over)

    def _withdrawn(self, order: Go) -> bool:
        """Give up a dispatch that was cancelled before its body began here; return whether it was."""
        run = self.session.ledger.table.task_runs[order.task_run_id]
        if run.stage is not Stage.CANCELLING:
            return False
        now = self.now()
        self.session.in_tracker(lambda ledger: ledger.closing.give_up([run.id], now))
        return True

    def _may_be_given_at_once(self, event: TaskCreated) -> bool:
        """Tell whether nothing can stand in the way of giving a recorded value, before that is recorded.

        What depends on nothing is outdated only by a rerun, which says so before the body begins, or by its
        code, on which the tracker decides.
        """
        run = self.session.tracker.shown.get(event.task_run_id)
        return (
            isinstance(run, TaskRun)
            and run.stage is Stage.COMPLETED
            and run.held is Held.JOURNAL
            and not (run.upstreams or event.upstreams)
            and not has_changed(run.source, event.source)
        )

    def _may_go_at_once(self, event: TaskCreated) -> bool:
        """Tell whether nothing can stand in the way of a first attempt: it need not wait for its record."""
        ledger = self.session.ledger
        return (
            not event.upstreams
            and event.task_run_id not in ledger.table.task_runs
            and event.flow_run_id not in ledger.closing.flows
        )

    @contextmanager
    def _given_up(self, task_run_ids: Sequence[str]) -> Iterator[None]:
        """Cancel task runs that were to run here, when this is interrupted: nobody else would run them."""
        try:
            yield
        except (KeyboardInterrupt, asyncio.CancelledError, GeneratorExit):
            now = self.now()
            with suppress(DflowError):
                self.session.in_tracker(
                    lambda ledger: ledger.closing.give_up(task_run_ids, now), patient=False
                )
            raise

    def _given_to(self, go: Go) -> tuple[AttemptInfo, dict[str, Any]]:
        """Return what an attempt knows of itself, and the values that it takes."""
        sources = self.session.dispatcher.sources(go.task_run_id)
        values = {up.task_run_id: received(self, up) for up in sources}
        return self.session.dispatcher.info(go), values

    async def _run_body(
        self,
        call: Call,
        options: CallOptions,
        whole: bool,
        info: AttemptInfo,
        values: Mapping[str, Any],
    ) -> Any:
        outer = current()  # what waits in here waits in the slot of the body around it
        slot, adopted = (nullcontext, nullcontext) if outer is None else (outer.slot, outer.adopted)
        link = self.session.link(info, in_place=True)
        context = RunContext(info=info, link=link, slot=slot, adopted=adopted)
        manner = Manner(
            in_place=True, whole=whole, timeout=info.timeout, keep=info.room, adopted=adopted
        )
        outcome, value = await body.attempt(
            context, lambda: (call, values), manner, interrupts=True
        )
        if options.callbacks is not None:
            self.session.hooks.keep(info.task_run_id, value)
        self.session.news([outcome])
        return value

    def status(self, task_run_id: str) -> Status:
        """Return the state that is shown of a task run."""
        tracker = self.session.tracker
        if tracker.failure is not None:
            raise tracker.failure
        status = status_of(tracker.shown.get(task_run_id))
        if not status.final:
            tracker.check()
        return status

    def unfinished(self, task_run_ids: Iterable[str]) -> list[str]:
        """Return those of these task runs that are not shown as final."""
        tracker = self.session.tracker
        if tracker.failure is not None:
            raise tracker.failure
        left, shown = [], tracker.shown
        for task_run_id in task_run_ids:
            run = shown.get(task_run_id)
            if run is None or not run.stage.final:
                left.append(task_run_id)
        if left:
            tracker.check()
        return left

    def when_final(self, task_run_id: str, then: Callable[[], None]) -> None:
        """Call `then` once the task run is final."""
        self.session.tracker.when_final(task_run_id, then)

    def when_all_final(self, task_run_ids: Iterable[str], then: Callable[[], None]) -> None:
        """Call `then` once all these task runs are final."""
        self.session.tracker.when_all_final(task_run_ids, then)

    def value(self, task_run_id: str) -> Any:
        """Return the value of a completed task run. Raises what made it fail, or `MissingResult`."""
        return self.session.value(task_run_id)

    def values(self, task_run_ids: Sequence[str]) -> list[Any]:
        """Return the values of final task runs, which the body is given. Raises the first failure."""
        found: list[Any] = []
        together = self.session.fetched(task_run_ids)
        try:
            for task_run_id in task_run_ids:
                if task_run_id in together:
                    found.append(together.pop(task_run_id))
                else:
                    found.append(self.session.value(task_run_id))
        finally:
            self.saw(*task_run_ids[: len(found) + 1])
        return found

    def saw(self, *task_run_ids: str) -> None:
        """Note that the body is given the values of task runs."""
        self._children.saw(*task_run_ids)

    def cancel(self, task_run_id: str) -> None:
        """Ask for a task run to end."""
        self.session.cancel([task_run_id])

    def drop(self, *task_run_ids: str) -> None:
        """Note that one future of each of these task runs is gone; destructors call it, anywhere.

        The tracker is told once of all that go before it has come to look, and before more is asked for: it
        must not hear of the end of a future before it has heard of its task run.
        """
        with self._dropping:
            dropped = self._dropped
            if dropped is not None:
                dropped.extend(task_run_ids)
                return
            dropped = self._dropped = list(task_run_ids)
            with suppress(DflowError):  # nobody needs to know any more
                self.session.tracker.post(Do(partial(self._let_go, dropped)))

    def _let_go(self, dropped: list[str], ledger: Ledger) -> None:
        with self._dropping:
            if self._dropped is dropped:
                self._dropped = None
        ledger.drop_handles(dropped)
