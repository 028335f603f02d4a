"""What the code that runs a flow's body has of the driver: it records, waits for work, and cancels it.

The body of a flow runs in the driver's process, or in a task on a worker; there the same is asked through
the Link (``remote_flows.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from msgspec import structs

from dflow.attempts.context import FlowInfo, RunContext, current
from dflow.core import events as ev
from dflow.core.records import FlowRun, FlowStage, Held, Policy, Stored, Upstream
from dflow.engine import outcomes, run_logs
from dflow.engine.about import About
from dflow.engine.driver_scope import DriverScope
from dflow.engine.futures import slot_given_back
from dflow.engine.ledger import Ledger
from dflow.engine.links import LocalLink
from dflow.engine.recovery import left_unclaimed, mixed_with_lost
from dflow.engine.retirement import recall
from dflow.engine.session import Session
from dflow.engine.waiting import bell
from dflow.errors import InternalError, JournalDamaged, MissingResult
from dflow.messages import Callbacks
from dflow.ports import TaskRunner
from dflow.results import files
from dflow.results.pickling import loads


@dataclass(frozen=True, slots=True)
class Opened:
    """A subflow that was asked for: its record, and its value if it has completed before and that is kept.

    The value is pickled, or `stored`.
    """

    run: FlowRun
    value: bytes | None = None
    stored: Stored | None = None

    @property
    def kept(self) -> bool:
        """Whether there is a value."""
        return self.value is not None or self.stored is not None

    def load(self) -> Any:
        """Return the value. Raises `MissingResult` and `ResultDamaged`."""
        if self.stored is not None:
            return files.read(self.stored, self.run.name)
        return None if self.value is None else loads(self.value)


class Keeper(Protocol):
    """Keeps the record of flow runs, for the code that runs their bodies."""

    @property
    def small(self) -> int:
        """Up to how many bytes a value is kept in the journal."""

    @property
    def quota(self) -> int:
        """How many bytes of values that nobody has asked to be kept may be kept."""

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""

    def context(self, flow: FlowInfo) -> RunContext:
        """Return the context in which the body of a flow runs."""

    def family(self, flow_run_id: str) -> FlowInfo:
        """Return what is known of the flow run in which a subflow is called."""

    def open(
        self,
        flow: FlowInfo,
        parent_id: str,
        policy: Policy,
        runner: Callable[[], TaskRunner] | None,
        callbacks: Callbacks | None,
        upstreams: tuple[Upstream, ...],
    ) -> Opened:
        """Record that a subflow is called, with its own runner or that of the flow run around it.

        `upstreams` are those whose values are among its arguments.
        """

    def start(self, flow_run_id: str) -> int:
        """Record that the body begins, and return the generation."""

    def begun(self, flow_run_id: str, call: tuple[Callable[..., Any], Any, Any]) -> None:
        """Note the function of a flow and its final arguments, for its tasks to see."""

    def about(self, flow_run_id: str) -> About:
        """Return what is known of a flow run."""

    def commit(self, event: ev.FlowEvent, outcome: Callable[[], Any] | None = None) -> FlowRun:
        """Record what became of a flow run, let its hooks hear of it, and return its record.

        `outcome` returns the value of a final one, or raises what made it fail.
        """

    async def wait_for_all(self, flow_run_id: str, *, native: bool) -> None:
        """Wait for whatever was submitted, by the flow or by its tasks; close what nobody asked for."""

    async def cancel_all(
        self, flow_run_id: str, *, native: bool, grace: float | None = None
    ) -> None:
        """Cancel what has not started, ask what runs to stop, and after a grace leave it to itself.

        The grace is that of the settings, unless there is only so much time.
        """

    async def await_retry(self, flow_run_id: str, *, native: bool) -> FlowRun:
        """Wait for the time of the next attempt, or the end of the flow run; return its record."""

    def stoppable(
        self, flow_run_id: str, stop: Callable[[], object]
    ) -> AbstractContextManager[None]:
        """Let `stop` be called from another thread, while inside, when the flow run is cancelled."""

    def cancel(self, flow_run_id: str) -> None:
        """Ask a flow run to end: nothing new begins in it, and what waits is cancelled."""

    def check(self) -> None:
        """Raise what has made the journal or the driver fail."""


class LocalKeeper:
    """Keeps the record in the driver's own process."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def session(self) -> Session:
        """The session that it speaks for."""
        return self._session

    @property
    def small(self) -> int:
        """Up to how many bytes a value is kept in the journal."""
        return self._session.settings.small_result

    @property
    def quota(self) -> int:
        """How many bytes of values that nobody has asked to be kept may be kept."""
        return self._session.persisting.left

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""
        return self._session.clock.now()

    def check(self) -> None:
        """Raise what has made the journal or the driver fail."""
        if self._session.tracker.failure is not None:
            raise self._session.tracker.failure

    def context(self, flow: FlowInfo) -> RunContext:
        """Return the context in which the body of a flow runs."""
        session, run_id = self._session, flow.flow_run_id
        around, link = current(), LocalLink(session, run_id)
        if around is None:
            context = RunContext(info=flow, link=link)
        else:
            context = structs.replace(around, info=flow, link=link, notes={}, at_end=[])
        scope = DriverScope(
            session, run_id, run_id, lambda: session.open_runner(run_id), context.execution
        )
        context.notes["scope"] = scope
        context.at_end.append(lambda _: scope.drop_calls())
        return context

    @contextmanager
    def stoppable(self, flow_run_id: str, stop: Callable[[], object]) -> Iterator[None]:
        """Let `stop` be called from another thread, while inside, when the flow run is cancelled."""
        self._session.stops[flow_run_id] = stop
        try:
            yield
        finally:
            self._session.stops.pop(flow_run_id, None)

    def cancel(self, flow_run_id: str) -> None:
        """Ask a flow run to end: nothing new begins in it, and what waits is cancelled."""
        self._session.cancel_flow(flow_run_id)

    # One flow run -------------------------------------------------------------------------------------

    def family(self, flow_run_id: str) -> FlowInfo:
        """Return what is known of the flow run in which a subflow is called."""
        return self._session.flow_info(flow_run_id)

    def open(
        self,
        flow: FlowInfo,
        parent_id: str,
        policy: Policy,
        runner: Callable[[], TaskRunner] | None,
        callbacks: Callbacks | None,
        upstreams: tuple[Upstream, ...],
    ) -> Opened:
        """Record that a subflow is called. One that an attempt has left behind is taken up again."""
        around = flow.parent_flow_run_id or flow.root_id
        if parent_id != around and self._session.in_tracker(partial(_has_gone, parent_id)):
            recall(self._session)  # in which flow run it is called is recorded of its caller
        self._session.add_flow(flow, runner or self._session.runner_of(around))
        self._session.hooks.add_flow(flow.flow_run_id, callbacks)
        known = self._session.ledger.table.flow_runs.get(flow.flow_run_id)
        if known is None:
            return Opened(
                self.commit(
                    ev.FlowRunCreated(
                        at=self.now(),
                        flow_run_id=flow.flow_run_id,
                        root_id=flow.root_id,
                        parent_id=parent_id,
                        flow_name=flow.flow_name,
                        name=flow.flow_run_name,
                        policy=policy,
                        tags=flow.tags,
                        upstreams=upstreams,
                    )
                )
            )
        if known.stage is FlowStage.COMPLETED and known.held is Held.JOURNAL:
            try:
                return Opened(known, self._session.kept_bytes(known.id))
            except JournalDamaged as error:
                self._session.warn(
                    f"The value of '{known.name}' is lost, so it runs again: {error}"
                )
        if known.stage is FlowStage.COMPLETED and known.held is Held.STORED and known.stored:
            if files.fault(known.stored) is None:
                return Opened(known, stored=known.stored)
            self._session.warn(f"The value of '{known.name}' is gone: the flow runs again.")
        if known.stage in (FlowStage.RUNNING, FlowStage.CANCELLING, FlowStage.AWAITING_RETRY):
            self._session.tracker.commit(
                ev.FlowRunInterrupted(
                    at=self.now(), flow_run_id=known.id, message="What ran it ended before it did."
                )
            )
            known = self._shown(known.id)
        return Opened(known)

    def start(self, flow_run_id: str) -> int:
        """Record that the body begins, and return the generation."""
        now = self.now()
        known = self._session.ledger.table.flow_runs.get(flow_run_id)
        if known is not None and known.generation > 0:
            recall(self._session)  # the body will ask for what it has asked for before
        again = self._session.taken_up(flow_run_id)

        def begin(ledger: Ledger) -> None:
            ledger.closing.flows.discard(flow_run_id)
            generation = ledger.table.flow_runs[flow_run_id].generation + 1
            ledger.apply(ev.FlowRunStarted(at=now, flow_run_id=flow_run_id, generation=generation))
            if again is not None:
                ledger.renewal.begin(again, now)

        self._session.in_tracker(begin)
        self._session.hooks.tell_flow(self._session.flow_info(flow_run_id))
        return self._shown(flow_run_id).generation

    def begun(
        self, flow_run_id: str, call: tuple[Callable[..., Any], Any, Any] | bytes | None
    ) -> None:
        """Note the function of a flow and its final arguments, for its tasks to see."""
        self._session.flow_calls[flow_run_id] = call

    def about(self, flow_run_id: str) -> About:
        """Return what is known of a flow run."""
        flow = self._session.flow_info(flow_run_id)
        generation = self._shown(flow_run_id).generation
        call = self._session.flow_calls.get(flow_run_id)
        return About(replace(flow, generation=generation), call)

    def commit(self, event: ev.FlowEvent, outcome: Callable[[], Any] | None = None) -> FlowRun:
        """Record what became of a flow run, let its hooks hear of it, and return its record.

        One that was interrupted does not wait for a journal that cannot be written: `JournalUnavailable`.
        """
        if isinstance(event, ev.FlowRunReturned | ev.FlowRunRaised):
            self._session.hooks.drain()
        patient = not isinstance(event, ev.FlowRunInterrupted)
        self._session.tracker.commit(event, patient=patient)
        run = self._shown(event.flow_run_id)
        self._session.hooks.tell_flow(
            self._session.flow_info(run.id), outcome or partial(self._recorded, run)
        )
        return run

    def _recorded(self, run: FlowRun) -> Any:
        """Return the recorded value of a flow run, or raise what made it fail."""
        if run.held is Held.JOURNAL:
            return self._session.kept(run.id)
        if run.held is Held.STORED and run.stored is not None:
            return files.read(run.stored, run.name)
        if run.stage is FlowStage.COMPLETED:
            raise MissingResult(f"The value of '{run.name}' is not kept.")
        raise outcomes.failure_of(run.name, run.state_name, run.message, run.error)

    def _shown(self, flow_run_id: str) -> FlowRun:
        run = self._session.tracker.shown[flow_run_id]
        if not isinstance(run, FlowRun):
            raise InternalError(f"'{run.name}' is not a flow run.")
        return run

    # Its work -----------------------------------------------------------------------------------------

    async def wait_for_all(self, flow_run_id: str, *, native: bool) -> None:
        """Wait for whatever was submitted, by the flow or by its tasks; close what nobody asked for."""
        session = self._session
        while ids := session.in_tracker(lambda ledger: _unfinished(ledger, flow_run_id)):
            await self._until_final(ids, None, native=native)
        now = self.now()
        left = session.in_tracker(lambda ledger: ledger.closing.cancel_unclaimed(flow_run_id, now))
        run_logs.show_left("unfinished", left, logging.WARNING)
        if flow_run_id == session.root.flow_run_id and self._shown(flow_run_id).generation > 1:
            finished = session.in_tracker(lambda ledger: left_unclaimed(ledger.table))
            rerun = session.again is not None and session.again.rerun
            run_logs.show_left("finished", finished, logging.INFO if rerun else logging.WARNING)
            mixed = session.in_tracker(lambda ledger: mixed_with_lost(ledger.table))
            run_logs.show_mixed(session.root.flow_run_name, mixed)

    async def cancel_all(
        self, flow_run_id: str, *, native: bool, grace: float | None = None
    ) -> None:
        """Cancel what has not started, ask what runs to stop, and after a grace leave it to itself."""
        session, now = self._session, self.now()
        seconds = session.settings.stop_grace
        if grace is not None:
            seconds = min(seconds, grace)
        session.in_tracker(lambda ledger: ledger.closing.cancel_all(flow_run_id, now))
        ids = session.in_tracker(lambda ledger: _unfinished(ledger, flow_run_id))
        await self._until_final(ids, seconds, native=native)
        now = self.now()
        session.in_tracker(lambda ledger: ledger.closing.abandon_all(flow_run_id, now))

    async def _until_final(
        self, run_ids: Iterable[str], seconds: float | None, *, native: bool
    ) -> None:
        deadline = None if seconds is None else self._session.clock.monotonic() + seconds
        with slot_given_back():
            for run_id in run_ids:
                final = bell(native=native)
                self._session.tracker.when_final(run_id, final.ring)
                left = None
                if deadline is not None:
                    left = max(0.0, deadline - self._session.clock.monotonic())
                if not await final.rung(left):
                    return
        self.check()

    async def await_retry(self, flow_run_id: str, *, native: bool) -> FlowRun:
        """Wait for the time of the next attempt, or the end of the flow run; return its record."""
        run = self._shown(flow_run_id)
        due = run.due or 0.0
        wait = max(0.0, due - self.now())
        run_logs.show(
            logging.WARNING,
            f"RETRY   {run.name} | {run.message}; the flow runs again in {wait:.1f} s",
        )
        awake = bell(native=native)
        self._session.tracker.when_final(flow_run_id, awake.ring)
        self._session.tracker.wake_at(due, awake.ring)
        with slot_given_back():
            await awake.rung()
        self._session.tracker.check()
        if self._shown(flow_run_id).stage.final:
            self._session.hooks.tell_flow(self._session.flow_info(flow_run_id))
        return self._shown(flow_run_id)


def _has_gone(caller_id: str, ledger: Ledger) -> bool:
    """Let a run stay that calls another one; return whether it has left already."""
    ledger.retirement.note_caller(caller_id)
    return caller_id in ledger.retirement


def _unfinished(ledger: Ledger, flow_run_id: str) -> list[str]:
    """Return the task runs that somebody has asked for and works on."""
    return [
        run.id for run in ledger.closing.unfinished_under(flow_run_id) if run.id in ledger.claims
    ]
