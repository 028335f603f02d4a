"""The handle of a flow run that goes on beside its caller: what ``flow.start()`` returns."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Literal, TypeVar, overload

from dflow.attempts.context import current
from dflow.core import events as ev
from dflow.engine import beside, waiting
from dflow.engine.flow_ends import Ended, outcome_of
from dflow.engine.futures import slot_given_back, state_of
from dflow.engine.keeping import Keeper, LocalKeeper
from dflow.engine.outcomes import failure_of
from dflow.engine.scope import PENDING, Status, status_of
from dflow.engine.session import Session
from dflow.engine.waiting import bell
from dflow.errors import CancelledError, DflowError, WaitTimeout
from dflow.states import State

R_co = TypeVar("R_co", covariant=True)
JOIN_FAILED = 10.0
"""Seconds that a body which has failed waits for flow runs that it had started."""


class FlowRunHandle(Generic[R_co]):
    """A flow run that was started with ``flow.start()``, and in time its value.

    >>> from dflow import flow
    >>> @flow
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> handle = double.start(4)
    >>> handle.result(timeout=60)
    8
    >>> handle.state.name
    'Completed'
    """

    def __init__(self, run_id: str, name: str, flow_name: str) -> None:
        self.id = run_id
        self.name = name
        self.flow_name = flow_name
        self._ended: Future[Ended] = Future()
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        self.cancelled = False

    # For those who hold it -----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state of the flow run, as it is recorded."""
        if not self.done():
            session = self._session
            shown = None if session is None else session.tracker.shown.get(self.id)
            begun = PENDING if self._keeper is None else Status("Running")
            status = begun if shown is None else status_of(shown)
            return state_of(Status("Running") if status.final else status, _nothing)
        error = self._ended.exception()
        if error is not None:
            return state_of(Status("Crashed", str(error)), self._outcome)
        ended = self._ended.result()
        return state_of(ended.status, self._outcome)

    def done(self) -> bool:
        """Tell whether the flow run has ended."""
        return self._ended.done()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the flow run has ended, or `timeout` seconds are over. Never raises."""
        ended = threading.Event()
        self._ended.add_done_callback(lambda _: ended.set())
        with slot_given_back():
            waiting.wait(ended, timeout)

    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> R_co: ...
    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> R_co | Exception: ...
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Wait for the flow run and return its value, or raise what it raised.

        With ``raise_on_failure=False`` its exception is returned instead. Raises
        `dflow.errors.WaitTimeout` (a TimeoutError) when it has not ended after `timeout` seconds.
        """
        self.wait(timeout)
        if not self.done():
            raise WaitTimeout(f"Flow run '{self.name}' has not ended within {timeout} seconds.")
        return self.state.result(raise_on_failure=raise_on_failure)

    @overload
    def aresult(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> Coroutine[Any, Any, R_co]: ...
    @overload
    def aresult(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> Coroutine[Any, Any, R_co | Exception]: ...
    async def aresult(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:  # noqa: ASYNC109  (as of `result`)
        """Do what `result` does, without holding up the event loop."""
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait([asyncio.wrap_future(self._ended)])
        except TimeoutError:
            pass  # said below
        return self.result(0.0, raise_on_failure)

    def __await__(self) -> Generator[Any, None, R_co]:
        """Await the value of the flow run."""
        return self.aresult().__await__()

    def cancel(self) -> None:
        """Ask the flow run to end: nothing new begins, and what waits is cancelled.

        A coroutine is cancelled at what it awaits. A plain function goes on to its next call of dflow, which
        raises `dflow.errors.CancelledError` in it.
        """
        with self._lock:
            self.cancelled = True
            keeper = self._keeper
        if keeper is not None and not self.done():
            with suppress(CancelledError):  # it has ended in this moment
                keeper.cancel(self.id)

    def __repr__(self) -> str:
        return f"<FlowRunHandle '{self.name}' {self.state.name}>"

    # For those who run it ------------------------------------------------------------------------------

    def run(self, work: Callable[[], Ended]) -> None:
        """Do the work in a thread of its own, with what is set in this context."""

        def body() -> None:
            try:
                ended = work()
            except BaseException as error:
                with self._lock:
                    if not self._ended.done():
                        self._ended.set_exception(error)
            else:
                self._end(ended)

        context = contextvars.copy_context()
        beside.go(partial(context.run, body), self._interrupt, f"dflow-flow-{self.name}")

    def _interrupt(self) -> None:
        """Record that the program ends before the flow run does; a subflow ends with what is around it."""
        session = self._session
        if session is None or session.root.flow_run_id != self.id:
            return
        with suppress(DflowError):
            session.tracker.commit(
                ev.FlowRunInterrupted(
                    at=session.clock.now(), flow_run_id=self.id, message="Stopped from outside."
                ),
                patient=False,
            )
            session.tracker.close()

    def _end(self, ended: Ended) -> None:
        with self._lock:
            if not self._ended.done():
                self._ended.set_result(ended)

    def begins(self, keeper: Keeper) -> bool:
        """Note who keeps the record of the flow run; tell whether it was cancelled before it began."""
        with self._lock:
            self._keeper = keeper
        if self._session is not None:
            self._session.tracker.when_final(self.id, self._end_if_timed_out)
        return self.cancelled

    @property
    def _session(self) -> Session | None:
        """The session that records the flow run, if it is one of this process."""
        return self._keeper.session if isinstance(self._keeper, LocalKeeper) else None

    def _end_if_timed_out(self) -> None:
        """End, if the flow run has timed out: its body may go on, and is not waited for."""
        run = None if self._session is None else self._session.tracker.shown.get(self.id)
        if run is not None and run.state_name == "TimedOut":
            error = failure_of(run.name, run.state_name, run.message, run.error)
            self._end(Ended(run.state_name, run.message, error=error, at=run.changed_at))

    async def joined(self, failed: bool) -> None:
        """Wait until the flow run has ended, for the body around it; if that has failed, cancel it first."""
        context = current()
        if failed:
            self.cancel()
        ended = bell(native=context is not None and context.notes.get("native", False))
        self._ended.add_done_callback(lambda _: ended.ring())
        with slot_given_back():
            await ended.rung(JOIN_FAILED if failed else None)

    def _outcome(self) -> Any:
        return outcome_of(self.flow_name, self._ended.result())


def _nothing() -> Any:
    return None
