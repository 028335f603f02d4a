"""One flow run from its start to its end: the body runs here, in step with whoever called the flow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from dflow.attempts.calls import swap
from dflow.attempts.capture import capture
from dflow.attempts.clock import luck, monotonic
from dflow.attempts.context import FlowInfo, entered
from dflow.attempts.deadlines import DeadlinePassed
from dflow.attempts.hearing import heard
from dflow.attempts.kinds import kind_of
from dflow.attempts.performing import HandedOut, Manner, perform
from dflow.attempts.persisting import Place, check
from dflow.attempts.stepping import finished, uncarried
from dflow.core import events as ev
from dflow.core.records import FlowStage, Held
from dflow.engine import run_logs
from dflow.engine.flow_ends import Ended, outcome_of, worked_out
from dflow.engine.flow_values import flow_room, put_flow
from dflow.engine.futures import TaskFuture
from dflow.engine.keeping import Keeper
from dflow.errors import (
    CancelledError,
    CrashedError,
    DefinitionError,
    DflowError,
    JournalUnavailable,
    TimedOutError,
)
from dflow.states import State

T = TypeVar("T")
OVERDUE = 0.4
"""Seconds after its deadline in which a coroutine is expected to have ended."""
LAST_GRACE = 0.3
"""Seconds that running bodies get to stop when their flow has timed out."""

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The function of a flow with its arguments, and how it is to be called.

    `prepare` makes the final arguments of those given; what it raises is the flow run's failure. With `whole`
    a generator is collected. `interrupted` tells whether a cancelled coroutine was cancelled by Ctrl-C.
    """

    function: Callable[..., Any]
    arguments: Arguments
    prepare: Callable[[Arguments], Awaitable[Arguments]]
    whole: bool = False
    timeout: float | None = None
    interrupted: Callable[[], bool] = lambda: False

    @property
    def native(self) -> bool:
        """Whether the body runs on its caller's event loop."""
        return kind_of(self.function).native


async def execute(keeper: Keeper, flow: FlowInfo, body: Body) -> Ended:
    """Run the body of a flow, again as often as its retries allow, and record what becomes of it.

    KeyboardInterrupt is recorded as an interruption and goes on to the caller, as do the cancellation of a
    coroutine and a journal that cannot be written.
    """
    return await _Execution(keeper, flow, body).run()


@dataclass(slots=True)
class _Execution:
    """One flow run that is being executed."""

    keeper: Keeper
    flow: FlowInfo
    body: Body
    stopped: bool = False
    overdue: Ended | None = None
    timer: threading.Timer | None = None
    ending: threading.Lock = field(default_factory=threading.Lock)
    handed_out: list[TaskFuture[Any] | State] = field(default_factory=list)

    async def run(self) -> Ended:
        run_id, native = self.flow.flow_run_id, self.body.native
        self.keeper.begun(run_id, (self.body.function, *self.body.arguments))
        while True:
            try:
                generation = await self._begun()
                with self._watched():
                    ended = await self._once(replace(self.flow, generation=generation))
            except KeyboardInterrupt:
                self._interrupted("Stopped from outside.")
                raise
            if ended is not None:
                return ended
            try:
                run = await self.keeper.await_retry(run_id, native=native)
            except (KeyboardInterrupt, asyncio.CancelledError):
                self._interrupted("Stopped from outside, while it awaited a retry.")
                raise
            if run.stage.final:
                return Ended(run.state_name, run.message, at=run.changed_at)

    async def _begun(self) -> int:
        """Record that the body begins; return the generation. Who is cancelled meanwhile is so on the record."""
        start = partial(self.keeper.start, self.flow.flow_run_id)
        if not self.body.native:
            return start()
        starting = asyncio.ensure_future(asyncio.to_thread(start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError as error:
            await starting
            if self.body.interrupted():
                self._interrupted("Stopped from outside.")
            else:
                await self._raised(error)
            raise

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let a coroutine be cancelled from another thread, when the flow run is: in here, not later."""
        if not self.body.native:
            yield
            return
        loop, task, inside = asyncio.get_running_loop(), asyncio.current_task(), True

        def cancel() -> None:
            if task is not None and inside:
                task.cancel()

        def stop() -> None:
            self.stopped = True
            loop.call_soon_threadsafe(cancel)

        try:
            with self.keeper.stoppable(self.flow.flow_run_id, stop):
                yield
        finally:
            inside = False

    async def _once(self, flow: FlowInfo) -> Ended | None:
        """Run the body once; return how the flow run ended, or None if it will be tried again."""
        self.handed_out.clear()
        begun = monotonic()
        try:
            with self._stoppable():
                returned = await self._run_body(flow)
                await self.keeper.wait_for_all(flow.flow_run_id, native=self.body.native)
            ended = self._worked_out(returned)
            place = await self._put(flow, ended, monotonic() - begun)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if not self.ending.acquire(blocking=False):
                return self._timed_out()
            self.keeper.check()
            if isinstance(error, asyncio.CancelledError) and self.body.interrupted():
                self._interrupted("Stopped from outside.")
                raise
            return await self._raised(uncarried(error))
        if not self.ending.acquire(blocking=False):
            return self._timed_out()
        return await self._record(ended, place)

    async def _beside(self, record: Callable[[], T]) -> T:
        """Record something; hooks may hear of it, which must not hold up the loop of a coroutine."""
        return await asyncio.to_thread(record) if self.body.native else record()

    # Deadlines of coroutines that hold up their loop ------------------------------------------------------

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Keep the deadline of a coroutine also when it holds up the loop that would end it."""
        self.ending = threading.Lock()
        if not self.body.native or self.body.timeout is None:
            yield
            return
        self.timer = threading.Timer(self.body.timeout + OVERDUE, self._end_overdue)
        self.timer.daemon = True
        self.timer.start()
        try:
            yield
        finally:
            self.timer.cancel()

    def _end_overdue(self) -> None:
        """Record that the flow run has timed out, while its body goes on; called in a thread of its own."""
        if not self.ending.acquire(blocking=False):
            return
        error = TimedOutError(
            f"It took longer than {self.body.timeout:g} seconds. Its body holds up the event loop and goes "
            "on; what becomes of it will not be recorded."
        )
        with suppress(DflowError):  # after the end of the session nobody needs to know
            finished(self.keeper.cancel_all(self.flow.flow_run_id, native=False, grace=LAST_GRACE))
            run = self.keeper.commit(
                ev.FlowRunRaised(
                    at=self.keeper.now(),
                    flow_run_id=self.flow.flow_run_id,
                    error=capture(error),
                    state_name="TimedOut",
                    retriable=False,
                ),
                partial(_raise, error),
            )
            self.overdue = Ended(run.state_name, run.message, error=error, at=run.changed_at)

    def _timed_out(self) -> Ended:
        """Return how the flow run has ended while its body went on."""
        if self.timer is not None:
            self.timer.join()
        if self.overdue is None:
            raise TimedOutError(f"'{self.flow.flow_run_name}' has timed out.")
        return self.overdue

    async def _run_body(self, flow: FlowInfo) -> Any:
        context = self.keeper.context(flow)
        context.notes["native"] = self.body.native
        manner = Manner(
            in_place=True,
            whole=self.body.whole,
            timeout=self.body.timeout,
            keep=flow_room(self.keeper, flow),
            seen=self._note_handed_out,
        )
        with entered(context), heard(context):
            try:
                check(flow.keeping)
                args, kwargs = await self.body.prepare(self.body.arguments)
                call = context.notes["call"] = (self.body.function, args, kwargs)
                self.keeper.begun(flow.flow_run_id, call)
                value = await perform(self.body.function, args, kwargs, manner)
            except BaseException:
                await context.end(failed=True)
                raise
            await context.end(failed=False)
            return value

    def _note_handed_out(self, item: Any) -> None:
        swap(item, self.handed_out.append, (TaskFuture, State))

    # How it ended -------------------------------------------------------------------------------------

    def _worked_out(self, returned: Any) -> Ended:
        """Return how the flow run has ended whose body returned this."""
        if not isinstance(returned, HandedOut):
            return worked_out(returned)
        ended = worked_out(self.handed_out)
        if ended.error is not None:
            return ended
        if returned.closed:
            ended = replace(ended, message=f"Closed by its caller after {returned.count} items.")
        return replace(ended, value=None if self.handed_out else returned.items)

    async def _put(self, flow: FlowInfo, ended: Ended, seconds: float) -> Place:
        """Put the value where it is kept; a failure, or no value at all, is in the record."""
        if ended.error is not None:
            return Place()
        native = self.body.native
        return await put_flow(self.keeper, flow, ended.value, seconds, native=native)

    async def _record(self, ended: Ended, place: Place) -> Ended:
        event = ev.FlowRunReturned(
            at=self.keeper.now(),
            flow_run_id=self.flow.flow_run_id,
            state_name=ended.state_name,
            message=ended.message,
            held=Held.NOWHERE if place.held is Held.RUNNER else place.held,
            value=place.value,
            stored=place.stored,
            error=None if ended.error is None else capture(ended.error),
        )
        outcome = partial(outcome_of, self.flow.flow_name, ended)
        run = await self._beside(partial(self.keeper.commit, event, outcome))
        if run.state_name != ended.state_name:
            ended = replace(ended, state_name=run.state_name, message=run.message)
        return replace(ended, at=run.changed_at)

    async def _raised(self, error: BaseException) -> Ended | None:
        """Cancel what is left, and record the failure; return None if the flow will be tried again."""
        cancelled = isinstance(error, asyncio.CancelledError)
        name = _state_of(error)
        if isinstance(error, DeadlinePassed):
            error = error.error
        await self.keeper.cancel_all(
            self.flow.flow_run_id,
            native=self.body.native,
            grace=LAST_GRACE if name == "TimedOut" else None,
        )
        event = ev.FlowRunRaised(
            at=self.keeper.now(),
            flow_run_id=self.flow.flow_run_id,
            error=capture(error),
            state_name=name,
            retriable=name != "Cancelled" and not isinstance(error, DefinitionError),
            luck=luck(),
        )
        run = await self._beside(partial(self.keeper.commit, event, partial(_raise, error)))
        if cancelled and not self.stopped:
            raise error
        if run.stage is FlowStage.AWAITING_RETRY:
            return None
        return Ended(run.state_name, run.message, error=error, at=run.changed_at)

    def _interrupted(self, message: str) -> None:
        self.keeper.check()
        event = ev.FlowRunInterrupted(
            at=self.keeper.now(), flow_run_id=self.flow.flow_run_id, message=message
        )
        try:
            self.keeper.commit(event)
        except JournalUnavailable as error:
            run_logs.show_unsaved(self.flow, error)


def _raise(error: BaseException) -> None:
    raise error


def _state_of(error: BaseException) -> str:
    """Return the state in which a flow run ends whose body raised this."""
    if isinstance(error, DeadlinePassed):
        return "TimedOut"
    if isinstance(error, CancelledError | asyncio.CancelledError):
        return "Cancelled"
    return "Crashed" if isinstance(error, CrashedError) else "Failed"
