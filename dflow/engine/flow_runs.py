"""One flow run from its start to its end: the body runs here, in the thread that called the flow."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dflow.attempts import pickling
from dflow.attempts.calls import swap
from dflow.attempts.capture import capture
from dflow.attempts.context import FlowInfo, RunContext, at_its_end, entered
from dflow.attempts.logs import prints_of
from dflow.core import events as ev
from dflow.core.records import ErrorInfo, FlowRun, FlowStage, Held, Policy
from dflow.engine import outcomes, run_logs
from dflow.engine.driver_scope import DriverScope
from dflow.engine.futures import TaskFuture, slot_given_back
from dflow.engine.ledger import Ledger
from dflow.engine.links import LocalLink
from dflow.engine.session import Session
from dflow.errors import InternalError, MissingResult
from dflow.states import TYPE_OF_NAME, State, StateType


@dataclass(frozen=True, slots=True)
class Ended:
    """How a flow run ended: its final state, its value, or the exception to raise."""

    state_name: str
    message: str
    value: Any = None
    error: BaseException | None = None


def begin_subflow(session: Session, flow: FlowInfo, parent_id: str, policy: Policy) -> Ended | None:
    """Record a subflow that is called; return how it ended if it has completed and its value is kept."""
    run = session.tracker.shown.get(flow.flow_run_id)
    if run is None:
        session.tracker.commit(
            ev.FlowRunCreated(
                at=session.clock.now(),
                flow_run_id=flow.flow_run_id,
                root_id=flow.root_id,
                parent_id=parent_id,
                flow_name=flow.flow_name,
                name=flow.flow_run_name,
                policy=policy,
            )
        )
    elif run.stage is FlowStage.COMPLETED and run.held is Held.JOURNAL:
        return Ended(run.state_name, run.message, session.kept(run.id))
    return None


def execute(session: Session, flow: FlowInfo, body: Callable[[], Any]) -> Ended:
    """Run the body of a flow, again as often as its retries allow, and record what becomes of it.

    KeyboardInterrupt is recorded as an interruption and goes on to the caller, as does a journal that
    cannot be written.
    """
    while True:
        generation = _shown(session, flow).generation + 1
        now = session.clock.now()
        session.tracker.commit(
            ev.FlowRunStarted(at=now, flow_run_id=flow.flow_run_id, generation=generation)
        )
        session.in_tracker(lambda ledger: ledger.closed_flows.discard(flow.flow_run_id))
        try:
            ended = _once(session, replace(flow, generation=generation), body)
        except KeyboardInterrupt:
            _interrupted(session, flow, "Stopped from outside.")
            raise
        if ended is not None:
            return ended
        try:
            _await_retry(session, flow)
        except KeyboardInterrupt:
            _interrupted(session, flow, "Stopped from outside, while it awaited a retry.")
            raise


def _once(session: Session, flow: FlowInfo, body: Callable[[], Any]) -> Ended | None:
    """Run the body once; return how the flow run ended, or None if it will be tried again."""
    try:
        returned = _run_body(session, flow, body)
        _wait_for_all(session, flow.flow_run_id)
        ended = _worked_out(returned)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if session.tracker.failure is not None:
            raise
        return _raised(session, flow, error)
    return _record(session, flow, ended)


def _run_body(session: Session, flow: FlowInfo, body: Callable[[], Any]) -> Any:
    context = RunContext(info=flow, link=LocalLink(session, flow.flow_run_id))
    context.notes["scope"] = DriverScope(
        session,
        flow.flow_run_id,
        flow.flow_run_id,
        lambda: session.open_runner(flow.flow_run_id),
    )
    with entered(context), prints_of(context), at_its_end(context):
        return body()


def _shown(session: Session, flow: FlowInfo) -> FlowRun:
    run = session.tracker.shown[flow.flow_run_id]
    if not isinstance(run, FlowRun):
        raise InternalError(f"'{flow.flow_run_name}' is not a flow run.")
    return run


# The work of a flow run at its end -------------------------------------------------------------------


def _claimed(ledger: Ledger, flow_run_id: str) -> list[str]:
    return [run.id for run in ledger.unfinished_under(flow_run_id) if run.id in ledger.claims]


def _wait_for_all(session: Session, flow_run_id: str) -> None:
    """Wait for whatever was submitted, by the flow or by its tasks; then close what nobody asked for."""
    while ids := session.in_tracker(lambda ledger: _claimed(ledger, flow_run_id)):
        _wait(session, ids, None)
    now = session.clock.now()
    left = session.in_tracker(lambda ledger: ledger.cancel_unclaimed(flow_run_id, now))
    if left:
        shown = ", ".join(left[:10]) + (", …" if len(left) > 10 else "")
        run_logs.show(
            logging.WARNING,
            f"WARNING {len(left)} unfinished task runs of the earlier run were not asked for again: "
            f"{shown}",
        )


def _cancel_all(session: Session, flow_run_id: str) -> None:
    """Cancel what has not started, ask what runs to stop, and after a grace leave it to itself."""
    now = session.clock.now()
    session.in_tracker(lambda ledger: ledger.cancel_all(flow_run_id, now))
    ids = session.in_tracker(lambda ledger: _claimed(ledger, flow_run_id))
    _wait(session, ids, session.settings.stop_grace)
    now = session.clock.now()
    session.in_tracker(lambda ledger: ledger.abandon_all(flow_run_id, now))


def _wait(session: Session, task_run_ids: list[str], timeout: float | None) -> None:
    left = threading.Semaphore(0)
    for task_run_id in task_run_ids:
        session.tracker.when_final(task_run_id, left.release)
    deadline = None if timeout is None else session.clock.monotonic() + timeout
    with slot_given_back():
        for _ in task_run_ids:
            if deadline is None:
                left.acquire()
            elif not left.acquire(timeout=max(0.0, deadline - session.clock.monotonic())):
                return
    if session.tracker.failure is not None:
        raise session.tracker.failure


# How it ended --------------------------------------------------------------------------------------------


def _worked_out(returned: Any) -> Ended:
    """Return how a flow run has ended whose body returned this."""
    states: list[State] = []

    def note(item: TaskFuture[Any] | State) -> State:
        state = item.state if isinstance(item, TaskFuture) else item
        states.append(state)
        return state

    shape = swap(returned, note, (TaskFuture, State))
    bad = [state for state in states if not state.is_completed()]
    if isinstance(shape, State):
        ended = _as_returned(shape)
    elif not bad:
        ended = Ended("Completed", f"{len(states)} of {len(states)} completed." if states else "")
    else:
        cancelled = any(state.is_cancelled() for state in bad)
        ended = Ended(
            "Cancelled" if cancelled else "Failed",
            f"{len(bad)}/{len(states)} task runs {'were cancelled' if cancelled else 'failed'}.",
        )
    if bad:
        return replace(ended, error=_failure_of(bad[0]))
    value = swap(shape, lambda state: state.result(), State) if states else returned
    return replace(ended, value=value)


def _failure_of(state: State) -> BaseException | None:
    """Return the exception behind a state; one that was made by hand, or is not final, has none."""
    with suppress(MissingResult):
        error = state.result(raise_on_failure=False)
        return error if isinstance(error, BaseException) else None
    return None


def _as_returned(state: State) -> Ended:
    """Return the end that a flow gave itself by returning one state."""
    if not state.is_final():
        return Ended("Failed", f"It returned a state that is not final: '{state.name}'.")
    known = TYPE_OF_NAME.get(state.name) is state.type
    return Ended(state.name if known else state.type.capitalize(), state.message)


def _record(session: Session, flow: FlowInfo, ended: Ended) -> Ended:
    blob: bytes | None = None
    if ended.error is None:
        try:
            blob = pickling.dumps_small(ended.value, session.settings.small_result)
        except Exception as problem:
            run_logs.show(
                logging.DEBUG, f"DEBUG   {flow.flow_run_name} | its value is not kept: {problem}"
            )
    session.tracker.commit(
        ev.FlowRunReturned(
            at=session.clock.now(),
            flow_run_id=flow.flow_run_id,
            state_name=ended.state_name,
            message=ended.message,
            held=Held.NOWHERE if blob is None else Held.JOURNAL,
            value=blob,
            error=None if ended.error is None else capture(ended.error),
        )
    )
    run = _shown(session, flow)
    if run.state_name == ended.state_name:
        return ended
    return replace(ended, state_name=run.state_name, message=run.message)


def _raised(session: Session, flow: FlowInfo, error: BaseException) -> Ended | None:
    """Cancel what is left, and record the failure; return None if the flow will be tried again."""
    _cancel_all(session, flow.flow_run_id)
    info: ErrorInfo = capture(error)
    session.tracker.commit(
        ev.FlowRunRaised(
            at=session.clock.now(),
            flow_run_id=flow.flow_run_id,
            error=info,
            luck=session.ids.luck(),
        )
    )
    run = _shown(session, flow)
    if run.stage is FlowStage.AWAITING_RETRY:
        return None
    return Ended(run.state_name, run.message, error=error)


def _await_retry(session: Session, flow: FlowInfo) -> None:
    run = _shown(session, flow)
    wait = max(0.0, (run.due or 0.0) - session.clock.now())
    run_logs.show(
        logging.WARNING, f"RETRY   {run.name} | {run.message}; the flow runs again in {wait:.1f} s"
    )
    session.tracker.sleep_until(run.due or 0.0)


def _interrupted(session: Session, flow: FlowInfo, message: str) -> None:
    if session.tracker.failure is None:
        session.tracker.commit(
            ev.FlowRunInterrupted(
                at=session.clock.now(), flow_run_id=flow.flow_run_id, message=message
            )
        )


def outcome_of(flow_name: str, ended: Ended) -> Any:
    """Return the value of a flow run that completed, or raise why it did not."""
    if ended.error is not None:
        raise ended.error
    if TYPE_OF_NAME[ended.state_name] is StateType.COMPLETED:
        return ended.value
    raise outcomes.failure_of(flow_name, ended.state_name, ended.message, None)
