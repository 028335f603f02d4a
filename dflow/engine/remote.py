"""The engine as seen by a body that runs on a worker: it asks, and is told, through the Link.

Only the driver records and dispatches. A body on a worker names its children itself (identity needs nobody
else), sends them up, and hears what became of them. A child that is called directly runs right here, each
attempt of it when the driver says go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from msgspec import structs

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
from dflow.engine.desk import desk_of
from dflow.engine.identity import Children, Known
from dflow.engine.key_questions import keys_sent_up
from dflow.engine.needs import takes
from dflow.engine.outcomes import received
from dflow.engine.scope import PENDING, Called, Scope, Status
from dflow.engine.waiting import inlet
from dflow.errors import InternalError, MissingResult
from dflow.messages import (
    AttemptInfo,
    CallOptions,
    CancelAsked,
    ChildrenCreated,
    Go,
)
from dflow.results.pickling import loads
from dflow.states import StateType


def _attempt_around(context: RunContext) -> AttemptInfo:
    """Return the attempt that runs here, as it looks to what is called in this context."""
    flow = context.info
    if isinstance(flow, AttemptInfo):
        return flow
    attempt: AttemptInfo = context.notes["attempt"]
    shared = structs.replace(
        attempt.shared,
        flow_run_id=flow.flow_run_id,
        flow_run_name=flow.flow_run_name,
        flow_name=flow.flow_name,
        flow_keeping=flow.keeping,
    )
    return structs.replace(attempt, shared=shared)


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

    def identify_all(
        self, task_name: str, inputs: Iterable[Known], known_as: bytes = b"", *, apart: bool = False
    ) -> list[tuple[str, str]]:
        """Return the ids and the names of the next calls of a task, one for each of the inputs."""
        return self._children.identify_all(task_name, inputs, known_as, apart=apart)

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

    def keep_pace(self) -> bool:
        """Go on at once: what is asked for goes up, and is taken in its turn."""
        return False

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
        shared = structs.replace(
            self._info.shared,
            task_name=event.task_name,
            tags=event.tags,
            around=options.around,
            timeout=event.policy.timeout,
            log_prints=options.log_prints,
            keeping=keeping,
        )
        info = structs.replace(
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
        context = structs.replace(self._context, info=info, notes={}, at_end=[])
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

    def when_all_final(self, task_run_ids: Iterable[str], then: Callable[[], None]) -> None:
        """Call `then` once all these children are final."""
        self._desk.when_all_final(task_run_ids, then)

    def unfinished(self, task_run_ids: Iterable[str]) -> list[str]:
        """Return those of these children that are not final, as far as is known here."""
        return [each for each in task_run_ids if self._desk.settled(each) is None]

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

    def values(self, task_run_ids: Sequence[str]) -> list[Any]:
        """Return the values of children that are final, which the body is given. Raises the first failure."""
        found: list[Any] = []
        try:
            for task_run_id in task_run_ids:
                found.append(self.value(task_run_id))  # noqa: PERF401  (some may be found)
        finally:
            self.saw(*task_run_ids[: len(found) + 1])
        return found

    def saw(self, *task_run_ids: str) -> None:
        """Note that the body is given the values of children."""
        self._children.saw(*task_run_ids)

    def cancel(self, task_run_id: str) -> None:
        """Ask for a child to end."""
        self._link.send(CancelAsked((task_run_id,)))

    def drop(self, *task_run_ids: str) -> None:
        """Note that one future of each of these children is gone."""
        self._desk.drop(*task_run_ids)
