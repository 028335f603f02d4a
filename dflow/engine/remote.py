"""The engine as seen by a body that runs on a worker: it asks, and is told, through the Link.

Only the driver records and dispatches. A body on a worker names its children itself (identity needs nobody
else), sends them up, and hears what became of them. A child that is called directly runs right here, each
attempt of it when the driver says go.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from dflow.attempts import body, clock
from dflow.attempts.calls import Call
from dflow.attempts.context import RunContext
from dflow.attempts.inputs import read
from dflow.attempts.kinds import Kind
from dflow.attempts.performing import Manner
from dflow.attempts.stepping import STOPS, Carried
from dflow.core.events import MapCreated, TaskCreated
from dflow.engine import outcomes
from dflow.engine.callbacks import sent_up
from dflow.engine.identity import Children
from dflow.engine.key_questions import keys_sent_up
from dflow.engine.needs import takes
from dflow.engine.outcomes import received
from dflow.engine.scope import PENDING, Called, Scope, Status
from dflow.engine.waiting import Inlet, inlet
from dflow.errors import CancelledError, InternalError, MissingResult
from dflow.messages import (
    AttemptInfo,
    CallOptions,
    CancelAsked,
    ChildrenCreated,
    Down,
    FlowAnswered,
    FlowAsked,
    Go,
    HandleDropped,
    Settled,
)
from dflow.ports import Link
from dflow.results.pickling import loads
from dflow.states import StateType

PAUSE = 0.5
"""Seconds after which what was dropped is told to the driver, at the latest."""


class Desk:
    """Takes what comes down the link of one attempt, and gives it to those who wait for it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._settled: dict[str, Settled] = {}
        self._orders: dict[str, Inlet] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._over = False
        self._numbers = itertools.count()
        self._answers: dict[int, Inlet] = {}
        self._dropped: SimpleQueue[str] = SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="dflow-desk", daemon=True)
        self._thread.start()

    def orders(self, task_run_id: str, inlet: Inlet) -> Inlet:
        """Let the orders for a child that runs here arrive in an inlet, and return it."""
        with self._lock:
            self._orders[task_run_id] = inlet
            if self._over:
                inlet.put(None)
            return inlet

    async def ask(self, what: str, arguments: tuple[Any, ...], *, native: bool) -> Any:
        """Ask the driver for something, and return its answer. Raises what it raised there."""
        answer, number = inlet(native=native), next(self._numbers)
        with self._lock:
            self._answers[number] = answer
            if self._over:
                answer.put(None)
        self._link.send(FlowAsked(self._link.address, number, what, arguments))
        answered = await answer.get()
        self._answers.pop(number, None)
        if answered is None:
            self.check()
        elif answered.error is not None:
            raise loads(answered.error)
        return answered.value

    def check(self) -> None:
        """Raise `CancelledError` if the driver has let go of the attempt."""
        if self._over:
            raise CancelledError(
                "The driver has let go of this attempt: nothing more comes from it."
            )

    def drop(self, task_run_id: str) -> None:
        """Note that a future is gone. Takes no lock and starts no thread: destructors call it, anywhere."""
        self._dropped.put(task_run_id)

    def forget(self, task_run_id: str) -> None:
        """Forget what is known of a child that is asked for (again)."""
        with self._lock:
            self._settled.pop(task_run_id, None)

    def settled(self, task_run_id: str) -> Settled | None:
        """Return what became of a child, if it is final. Raises `CancelledError` if nobody will say it."""
        settled = self._settled.get(task_run_id)
        if settled is None:
            self.check()
        return settled

    def when_final(self, task_run_id: str, then: Callable[[], None]) -> None:
        """Call `then` once a child is final."""
        with self._lock:
            if task_run_id not in self._settled and not self._over:
                self._waiting.setdefault(task_run_id, []).append(then)
                return
        then()

    def _read(self) -> None:
        while not self._link.ended:
            message = self._link.receive(PAUSE)
            if message is not None:
                self._take(message)
            self._send_dropped()
        with self._lock:
            self._over = True
            calls = [call for waiting in self._waiting.values() for call in waiting]
            self._waiting.clear()
            for orders in (*self._orders.values(), *self._answers.values()):
                orders.put(None)
        for call in calls:
            call()
        with _desks_lock:
            _desks.pop(self._link, None)

    def _send_dropped(self) -> None:
        ids = []
        with suppress(Empty):
            while True:
                ids.append(self._dropped.get_nowait())
        if ids:
            self._link.send(HandleDropped(tuple(ids)))

    def _take(self, message: Down) -> None:
        if isinstance(message, Go):
            self._orders[message.task_run_id].put(message)
        elif isinstance(message, FlowAnswered):
            self._answers[message.number].put(message)
        elif isinstance(message, Settled):
            with self._lock:
                self._settled[message.task_run_id] = message
                calls = self._waiting.pop(message.task_run_id, [])
                orders = self._orders.pop(message.task_run_id, None)
            if orders is not None:
                orders.put(None)
            for call in calls:
                call()


_desks: dict[Link, Desk] = {}
_desks_lock = threading.Lock()


def desk_of(link: Link) -> Desk:
    """Return the desk of an attempt's link."""
    with _desks_lock:
        if link not in _desks:
            _desks[link] = Desk(link)
        return _desks[link]


def _attempt_around(context: RunContext) -> AttemptInfo:
    """Return the attempt that runs here, as it looks to what is called in this context."""
    flow = context.info
    if isinstance(flow, AttemptInfo):
        return flow
    attempt: AttemptInfo = context.notes["attempt"]
    shared = replace(
        attempt.shared,
        flow_run_id=flow.flow_run_id,
        flow_run_name=flow.flow_run_name,
        flow_name=flow.flow_name,
        flow_keeping=flow.keeping,
    )
    return replace(attempt, shared=shared)


class RemoteScope:
    """Asks the driver for task runs, on behalf of one execution of a body on a worker."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._info = _attempt_around(context)
        self._link = context.link
        self._desk = desk_of(context.link)
        self._children = Children(context.run_id, context.execution)

    @property
    def flow_run_id(self) -> str:
        """The flow run that task runs asked for here belong to."""
        return self._info.flow_run_id

    @property
    def parent_id(self) -> str:
        """The run whose body asks."""
        return self._context.run_id

    @property
    def generation(self) -> int:
        """Not known here: the driver sets it."""
        return 0

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""
        return clock.now()

    def identify(
        self, task_name: str, inputs: Any, known_as: bytes = b"", *, apart: bool = False
    ) -> tuple[str, str]:
        """Return the id and the name of the next call of a task with these inputs."""
        return self._children.identify(task_name, inputs, known_as, apart=apart)

    def owns(self, other: Scope) -> bool:
        """Tell whether a future of `other` may be an upstream here: one of the same attempt."""
        return isinstance(other, RemoteScope) and other._desk is self._desk

    def submit(
        self, event: TaskCreated | MapCreated, calls: Sequence[Call], options: CallOptions
    ) -> None:
        """Send task runs up, one call each; the driver records and dispatches them."""
        items = event.items if isinstance(event, MapCreated) else (event,)
        for item in items:
            self._desk.forget(item.task_run_id)
        packed = tuple(self._link.pack(call) for call in calls)
        self._send(event, packed, options)

    def _send(
        self, event: TaskCreated | MapCreated, calls: tuple[Any, ...], options: CallOptions
    ) -> None:
        if options.callbacks is not None:
            options = replace(options, callbacks=sent_up(options.callbacks))
        if options.caching is not None:
            options = replace(options, caching=keys_sent_up(options.caching))
        self._link.send(ChildrenCreated(self._link.address, event, calls, options))

    async def call(
        self, event: TaskCreated, call: Call, options: CallOptions, *, kind: Kind, whole: bool
    ) -> Called:
        """Send a task run up, and run its body here whenever the driver says go."""
        self._desk.forget(event.task_run_id)
        orders = self._desk.orders(event.task_run_id, inlet(native=kind.native))
        self._send(event, (None,), options)
        value: Any = None
        ran = False
        waits_for_others = bool(event.upstreams or options.caching)
        with self._given_up(event.task_run_id):
            while True:
                with self._context.slot() if waits_for_others else nullcontext():
                    order = await orders.get()
                if order is None:
                    break
                value, ran = await self._run_body(order, event, call, options, whole), True
        if ran and self.status(event.task_run_id).type is StateType.COMPLETED:
            return Called(value, ran)
        try:
            return Called(self.value(event.task_run_id), ran)
        except STOPS as error:
            raise Carried(error) from None

    @contextmanager
    def _given_up(self, task_run_id: str) -> Iterator[None]:
        """Cancel a task run that was to run here, when its coroutine is cancelled."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancel(task_run_id)
            raise

    async def _run_body(
        self, go: Go, event: TaskCreated, call: Call, options: CallOptions, whole: bool
    ) -> Any:
        around = self._info.flow_keeping
        keeping = around and replace(options.results.over(around), quota=go.quota)
        shared = replace(
            self._info.shared,
            task_name=event.task_name,
            tags=event.tags,
            around=options.around,
            timeout=event.policy.timeout,
            log_prints=options.log_prints,
            keeping=keeping,
        )
        info = replace(
            self._info,
            task_run_id=event.task_run_id,
            dispatch=go.dispatch,
            attempt=go.attempt,
            generation=go.generation,
            task_run_name=event.name,
            shared=shared,
            confirm_start=False,
            cached=go.cached,
        )
        context = replace(self._context, info=info, notes={}, at_end=[])
        manner = Manner(
            in_place=True,
            whole=whole,
            timeout=info.timeout,
            keep=info.room,
            adopted=context.adopted,
        )
        outcome, value = await body.attempt(
            context,
            lambda: (call, {up.task_run_id: received(self, up) for up in takes(event.upstreams)}),
            manner,
        )
        self._link.send(outcome)
        return value

    def status(self, task_run_id: str) -> Status:
        """Return the state of a child, as far as it is known here."""
        settled = self._desk.settled(task_run_id)
        if settled is None:
            return PENDING
        at_hand = settled.value is not None or settled.key is None
        return Status(settled.state_name, settled.message, settled.at, at_hand)

    def when_final(self, task_run_id: str, then: Callable[[], None]) -> None:
        """Call `then` once a child is final."""
        self._desk.when_final(task_run_id, then)

    def value(self, task_run_id: str) -> Any:
        """Return the value of a child. Raises what made it fail, or `MissingResult`."""
        settled = self._desk.settled(task_run_id)
        if settled is None:
            raise InternalError(f"Task run {task_run_id} is not final.")
        if self.status(task_run_id).type is not StateType.COMPLETED:
            raise outcomes.failure_of(
                task_run_id[:8],
                settled.state_name,
                settled.message,
                settled.error,
                root_state_name=None if settled.error is None else "Failed",
            )
        if settled.value is not None:
            return loads(settled.value)
        if settled.key is not None:
            try:
                return self._link.fetch(settled.key)
            except MissingResult:
                if settled.stored is None:
                    raise
        if settled.stored is not None:
            return read(settled.stored, settled.name, (task_run_id, settled.dispatch), self._link)
        raise MissingResult(
            f"The child '{settled.name}' has completed, but its value is gone. Give its task "
            "persist_result=True."
        )

    def saw(self, task_run_id: str) -> None:
        """Note that the body is given the value of a child."""
        self._children.saw(task_run_id)

    def cancel(self, task_run_id: str) -> None:
        """Ask for a child to end."""
        self._link.send(CancelAsked((task_run_id,)))

    def drop(self, task_run_id: str) -> None:
        """Note that a future is gone."""
        self._desk.drop(task_run_id)
