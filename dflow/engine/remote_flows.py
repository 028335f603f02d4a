"""Flows called in tasks on workers: the body runs there, the driver keeps the record, the Link joins them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msgspec.structs import replace

from dflow.attempts import clock
from dflow.attempts.context import FlowInfo, RunContext
from dflow.attempts.parameters import by_name
from dflow.attempts.stepping import finished
from dflow.core import events as ev
from dflow.core.records import FlowRun, Policy, Upstream
from dflow.engine.about import About
from dflow.engine.callbacks import sent_up
from dflow.engine.desk import desk_of
from dflow.engine.keeping import LocalKeeper, Opened
from dflow.engine.session import Session
from dflow.errors import DefinitionError, DflowError, InternalError
from dflow.messages import AttemptInfo, Callbacks, FlowAnswered, FlowAsked
from dflow.ports import TaskRunner
from dflow.results import pickling


class RemoteKeeper:
    """Keeps the record of flow runs by asking the driver, for a body on a worker."""

    def __init__(self, around: RunContext) -> None:
        self._around = around
        self._attempt: AttemptInfo = around.notes.get("attempt", around.info)
        self._desk = desk_of(around.link)
        self._stops: dict[str, Callable[[], object]] = {}

    @property
    def small(self) -> int:
        """Up to how many bytes a value is kept in the journal."""
        return self._attempt.small

    @property
    def quota(self) -> int:
        """How many bytes of values that nobody has asked to be kept may be kept."""
        return 0 if self._attempt.keeping is None else self._attempt.keeping.quota

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""
        return clock.now()

    def check(self) -> None:
        """Raise that the driver has let go of the attempt."""
        self._desk.check()

    def family(self, flow_run_id: str) -> FlowInfo:
        """Return what is known of the flow run in which a subflow is called."""
        attempt = self._attempt
        return FlowInfo(
            flow_run_id=flow_run_id,
            flow_run_name=attempt.flow_run_name,
            flow_name=attempt.flow_name,
            root_id=attempt.root_id,
            generation=attempt.generation,
            log_level=attempt.log_level,
            extra_loggers=attempt.extra_loggers,
            checkpoints=attempt.checkpoints,
            keeping=attempt.flow_keeping,
        )

    def context(self, flow: FlowInfo) -> RunContext:
        """Return the context in which the body of a flow runs."""
        notes = {"attempt": self._attempt}
        return replace(self._around, info=flow, notes=notes, at_end=[])

    def open(
        self,
        flow: FlowInfo,
        parent_id: str,
        policy: Policy,
        runner: Callable[[], TaskRunner] | None,
        callbacks: Callbacks | None,
        upstreams: tuple[Upstream, ...],
    ) -> Opened:
        """Record that a subflow is called."""
        if runner is not None:
            raise DefinitionError(
                f"Flow '{flow.flow_name}' names a task runner of its own, and is called in a task that runs "
                "in another process: there its tasks go where those of the flow around it go. Leave out "
                "task_runner=, or call it in the flow."
            )
        sent = sent_up(callbacks)
        opened: Opened = self._ask("open", flow, parent_id, policy, None, sent, upstreams)
        return opened

    def start(self, flow_run_id: str) -> int:
        """Record that the body begins, and return the generation."""
        generation: int = self._ask("start", flow_run_id)
        return generation

    def begun(self, flow_run_id: str, call: tuple[Callable[..., Any], Any, Any]) -> None:
        """Note the function of a flow and its final arguments, for its tasks to see."""
        with suppress(Exception):  # what cannot travel, its tasks cannot see
            self._ask("begun", flow_run_id, pickling.dumps(by_name(*call)))

    def about(self, flow_run_id: str) -> About:
        """Return what is known of a flow run."""
        about: About = self._ask("about", flow_run_id)
        return about

    def commit(
        self,
        event: ev.FlowEvent,
        outcome: Callable[[], Any] | None = None,  # noqa: ARG002  (the driver has it from the event)
    ) -> FlowRun:
        """Record what became of a flow run, let its hooks hear of it, and return its record."""
        run: FlowRun = self._ask("commit", event)
        return run

    async def wait_for_all(self, flow_run_id: str, *, native: bool) -> None:
        """Wait for whatever was submitted, by the flow or by its tasks; close what nobody asked for."""
        await self._await("wait_for_all", flow_run_id, native=native)

    async def cancel_all(
        self, flow_run_id: str, *, native: bool, grace: float | None = None
    ) -> None:
        """Cancel what has not started, ask what runs to stop, and after a grace leave it to itself."""
        await self._await("cancel_all", flow_run_id, grace, native=native)

    async def await_retry(self, flow_run_id: str, *, native: bool) -> FlowRun:
        """Wait for the time of the next attempt, or the end of the flow run; return its record."""
        run: FlowRun = await self._await("await_retry", flow_run_id, native=native)
        return run

    @contextmanager
    def stoppable(self, flow_run_id: str, stop: Callable[[], object]) -> Iterator[None]:
        """Let `stop` be called from another thread, while inside, when the flow run is cancelled here."""
        self._stops[flow_run_id] = stop
        try:
            yield
        finally:
            self._stops.pop(flow_run_id, None)

    def cancel(self, flow_run_id: str) -> None:
        """Ask a flow run to end: nothing new begins in it, and what waits is cancelled."""
        self._ask("cancel", flow_run_id)
        stop = self._stops.get(flow_run_id)
        if stop is not None:
            stop()

    def _ask(self, what: str, *arguments: Any) -> Any:
        return finished(self._desk.ask(what, arguments, native=False))

    async def _await(self, what: str, *arguments: Any, native: bool) -> Any:
        with self._around.slot():
            return await self._desk.ask(what, arguments, native=native)


# In the driver ---------------------------------------------------------------------------------------


def answer(session: Session, asked: FlowAsked) -> None:
    """Do what a body on a worker asks for, in a thread of its own, as it may take long."""
    threading.Thread(
        target=_answer, args=(session, asked), name="dflow-errand", daemon=True
    ).start()


def _answer(session: Session, asked: FlowAsked) -> None:
    value, error = None, None
    try:
        value = _done(LocalKeeper(session), asked)
    except Exception as problem:
        kept = problem if isinstance(problem, DflowError) else InternalError(repr(problem))
        error = pickling.dumps(kept)
    with suppress(DflowError):  # after the end of the run nobody waits for it
        session.tell(asked.parent, FlowAnswered(asked.number, value, error))


def _done(keeper: LocalKeeper, asked: FlowAsked) -> Any:
    plain: dict[str, Callable[..., Any]] = {
        "open": keeper.open,
        "start": keeper.start,
        "begun": keeper.begun,
        "about": lambda flow_run_id: keeper.about(flow_run_id).packed(),
        "commit": keeper.commit,
        "cancel": keeper.cancel,
    }
    long: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
        "wait_for_all": keeper.wait_for_all,
        "cancel_all": lambda flow_run_id, grace, native: keeper.cancel_all(
            flow_run_id, native=native, grace=grace
        ),
        "await_retry": keeper.await_retry,
    }
    if asked.what in plain:
        return plain[asked.what](*asked.arguments)
    return finished(long[asked.what](*asked.arguments, native=False))
