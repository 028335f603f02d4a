"""The engine as seen by a body that runs in the driver's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from queue import Empty, SimpleQueue
from typing import Any

from dflow.attempts import body
from dflow.attempts.calls import Call
from dflow.core.events import MapCreated, TaskCreated
from dflow.engine.futures import slot_given_back
from dflow.engine.identity import Children
from dflow.engine.outcomes import received
from dflow.engine.scope import Scope, Status, status_of
from dflow.engine.session import Session
from dflow.engine.tracker import ids_of
from dflow.errors import DflowError
from dflow.messages import CallOptions, Go
from dflow.ports import OpenRunner
from dflow.states import StateType


class DriverScope:
    """Asks the session for task runs, on behalf of one execution of a body."""

    def __init__(
        self,
        session: Session,
        flow_run_id: str,
        parent_id: str,
        runner: Callable[[], OpenRunner],
    ) -> None:
        self.session = session
        self._flow_run_id = flow_run_id
        self._parent_id = parent_id
        self._runner = runner
        self._children = Children(parent_id)

    @property
    def flow_run_id(self) -> str:
        """The flow run that task runs asked for here belong to."""
        return self._flow_run_id

    @property
    def parent_id(self) -> str:
        """The run whose body asks."""
        return self._parent_id

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""
        return self.session.clock.now()

    def identify(self, task_name: str, inputs: Any, *, apart: bool = False) -> tuple[str, str]:
        """Return the id and the name of the next call of a task with these inputs."""
        return self._children.identify(task_name, inputs, apart=apart)

    def owns(self, other: Scope) -> bool:
        """Tell whether a future of `other` may be an upstream here: one of the same session."""
        return isinstance(other, DriverScope) and other.session is self.session

    def submit(
        self, event: TaskCreated | MapCreated, calls: Sequence[Call], options: CallOptions
    ) -> None:
        """Ask for task runs, one call each. Waits for them only where the runner runs them here."""
        runner = self._runner()
        packed = [runner.pack(call) for call in calls]
        if not runner.runs_here:
            self.session.ask(event, packed, options, runner)
            return
        ids = ids_of(event)
        orders: SimpleQueue[Go | None] = SimpleQueue()
        self.session.ask(event, packed, options, runner, orders=orders)
        left = len(ids)
        with self._given_up(ids):
            while left:
                order = self._next(orders)
                if order is None:
                    left -= 1
                else:
                    self.session.dispatcher.carry(runner, order)

    def call(self, event: TaskCreated, call: Call, options: CallOptions) -> Any:
        """Ask for one task run, run its body in this thread, and return its value."""
        orders: SimpleQueue[Go | None] = SimpleQueue()
        self.session.ask(event, [call], options, None, orders=orders)
        value: Any = None
        ran = False
        with self._given_up([event.task_run_id]):
            with slot_given_back() if event.upstreams else nullcontext():
                order = self._next(orders)
            while order is not None:
                value, ran = self._run_body(order, call), True
                order = self._next(orders)
        if ran and self.status(event.task_run_id).type is StateType.COMPLETED:
            return value
        try:
            return self.session.value(event.task_run_id)
        finally:
            self.session.errors.pop(event.task_run_id, None)

    @contextmanager
    def _given_up(self, task_run_ids: Sequence[str]) -> Iterator[None]:
        """Cancel task runs that this thread was to run, when it is interrupted: nobody else would."""
        try:
            yield
        except KeyboardInterrupt:
            now = self.now()
            with suppress(DflowError):
                self.session.in_tracker(lambda ledger: ledger.give_up(task_run_ids, now))
            raise

    def _next(self, orders: SimpleQueue[Go | None]) -> Go | None:
        """Return what is to be done next; None when the task run is final."""
        while True:
            with suppress(Empty):
                return orders.get(timeout=1.0)
            self.session.tracker.check()

    def _run_body(self, go: Go, call: Call) -> Any:
        info, sources = (
            self.session.dispatcher.info(go),
            self.session.dispatcher.sources(go.task_run_id),
        )
        outcome, value = body.run(
            info,
            lambda: (call, {up.task_run_id: received(self, up) for up in sources}),
            self.session.link(info),
            interrupts=True,
        )
        self.session.news([outcome])
        return value

    def status(self, task_run_id: str) -> Status:
        """Return the state that is shown of a task run."""
        if self.session.tracker.failure is not None:
            raise self.session.tracker.failure
        status = status_of(self.session.tracker.shown.get(task_run_id))
        if not status.final:
            self.session.tracker.check()
        return status

    def when_final(self, task_run_id: str, then: Callable[[], None]) -> None:
        """Call `then` once the task run is final."""
        self.session.tracker.when_final(task_run_id, then)

    def value(self, task_run_id: str) -> Any:
        """Return the value of a completed task run. Raises what made it fail, or `MissingResult`."""
        return self.session.value(task_run_id)

    def drop(self, task_run_id: str) -> None:
        """Note that a future is gone."""
        self.session.drop(task_run_id)
