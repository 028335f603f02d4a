"""Hooks: functions of the user that are told what has become of task runs and flow runs.

They hear of it after it is recorded. Those of task runs are called one after the other by one thread of the
session, which begins with the first: a slow hook holds up other hooks, not the run. Before a flow run ends
it waits for them. Those of flow runs are called by the thread that runs the flow's body.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from dflow.attempts.context import FlowInfo
from dflow.core.records import FlowRun, Stage, TaskRun
from dflow.engine import callbacks as calling
from dflow.engine import outcomes, waiting
from dflow.engine.about import About
from dflow.engine.futures import state_of
from dflow.engine.notes import Noted
from dflow.engine.scope import Status, status_of
from dflow.messages import Callbacks
from dflow.states import State, StateType

if TYPE_CHECKING:
    from dflow.engine.session import Session

FLOW_HOOKS = {
    StateType.RUNNING: "on_running",
    StateType.COMPLETED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.CRASHED: "on_crashed",
    StateType.CANCELLED: "on_cancellation",
}
"""What the hooks of a flow hear of; an interrupted flow run has not ended, and they do not hear of it."""

_MISSING = object()


class HeardOf:
    """A flow run as its hooks hear of it: its record, and its `parameters` once its body has begun."""

    __slots__ = ("_parameters", "_run")

    def __init__(self, run: FlowRun, parameters: Callable[[], dict[str, Any]]) -> None:
        self._run = run
        self._parameters = parameters

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments of the body by name; none before they are there."""
        return self._parameters()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def __repr__(self) -> str:
        return repr(self._run)


class Hooks:
    """Calls the hooks of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._flows: dict[str, Callbacks] = {}
        self._values: dict[str, Any] = {}
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = False

    # Flow runs --------------------------------------------------------------------------------------

    def add_flow(self, flow_run_id: str, callbacks: Callbacks | None) -> None:
        """Note whose hooks are told of a flow run."""
        if callbacks is not None:
            self._flows[flow_run_id] = callbacks

    def tell_flow(self, info: FlowInfo, outcome: Callable[[], Any] | None = None) -> None:
        """Call the hooks of a flow run for the state that is recorded of it, in this thread.

        `outcome` returns the value of a final run, or raises what made it fail.
        """
        callbacks = self._flows.get(info.flow_run_id)
        run = self._session.tracker.shown.get(info.flow_run_id)
        if callbacks is None or not isinstance(run, FlowRun):
            return
        kind = FLOW_HOOKS.get(run.state_type)
        if kind not in callbacks.kinds:
            return
        flow = self._session.owners.owner(callbacks)
        if flow is None:
            return
        state = run.state if outcome is None else state_of(status_of(run), outcome)
        context = calling.told_of_flow(self._session, info)
        for hook in getattr(flow._options, kind):
            calling.call(context, kind, hook, flow, self._heard_of(run), state)

    def _heard_of(self, run: FlowRun) -> HeardOf:
        call = self._session.flow_calls.get(run.id)
        return HeardOf(run, About(self._session.flow_info(run.id), call).parameters)

    # Task runs: in the tracker's thread -----------------------------------------------------------------

    def tell(self, noted: Sequence[Noted]) -> None:
        """Let the hooks of task runs hear what was noted."""
        for note in noted:
            jobs = list(self._jobs(note))
            let_go = partial(self._session.drop, note.run.id)
            if note.ended:
                self._values.pop(note.run.id, None)
            if jobs:
                self._put([*jobs, let_go] if note.ended else jobs)
            elif note.ended:
                let_go()

    def _jobs(self, note: Noted) -> Iterator[Callable[[], object]]:
        run, asked = note.run, self._session.dispatcher.asked.get(note.run.id)
        callbacks = None if asked is None else asked.options.callbacks
        for kind in _kinds(note):
            if callbacks is not None and kind in callbacks.kinds:
                state = _began(run) if kind == "on_running" else self._ended(run)
                yield partial(self._call, kind, callbacks, run, state)

    def _ended(self, run: TaskRun) -> State:
        if run.stage is not Stage.COMPLETED:
            live = self._session.errors.get(run.id)
            return state_of(status_of(run), partial(_raise, run, live))
        value = self._values.get(run.id, _MISSING)
        if value is not _MISSING:
            return state_of(status_of(run), lambda: value)
        return state_of(status_of(run), partial(self._session.value_of, run))

    def _put(self, jobs: Sequence[Callable[[], object]]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="dflow-hooks", daemon=True)
            self._thread.start()
        for job in jobs:
            self._queue.put(job)

    # Elsewhere ------------------------------------------------------------------------------------------

    def keep(self, task_run_id: str, value: Any) -> None:
        """Keep the value of a direct call until its end is recorded, for hooks that are told of it."""
        self._values[task_run_id] = value

    def drain(self) -> None:
        """Wait until the hooks have been called for all that is recorded so far.

        After Ctrl-C meanwhile nobody waits for them any more: one of them may hang.
        """
        thread = self._thread
        if thread is None or thread is threading.current_thread() or self._given_up:
            return
        done = threading.Event()
        self._queue.put(done.set)
        try:
            waiting.wait(done)
        except KeyboardInterrupt:
            self._given_up = True
            raise

    def close(self) -> None:
        """Call the hooks that are still to be called, and end their thread."""
        self.drain()
        if self._thread is not None:
            self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job()

    def _call(self, kind: str, callbacks: Callbacks, run: TaskRun, state: State) -> None:
        owner = self._session.owners.owner(callbacks)
        if owner is None:
            return
        context = calling.told_of_task(self._session, run)
        for hook in getattr(owner._options, kind):
            calling.call(context, kind, hook, owner, run, state)


def _kinds(note: Noted) -> Iterator[str]:
    """Yield the hooks that hear of it. Of an upstream's failure those of the upstream have heard."""
    if note.began:
        yield "on_running"
    if note.ended and note.run.stage is Stage.COMPLETED:
        yield "on_completion"
    failed = note.run.stage in (Stage.FAILED, Stage.CRASHED)
    if note.ended and failed and note.run.state_name != "UpstreamFailed":
        yield "on_failure"


def _began(run: TaskRun) -> State:
    return state_of(Status("Running", at=run.attempts[-1].started_at), lambda: None)


def _raise(run: TaskRun, live: BaseException | None) -> None:
    raise outcomes.failure_of(run.name, run.state_name, run.message, run.error, live)
