"""One attempt from its start to its end: run the user's function, and say what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from msgspec.structs import replace

from dflow.attempts import caching, clock, names, result_names
from dflow.attempts.calls import Call, resolved
from dflow.attempts.capture import capture
from dflow.attempts.context import NOTHING, RunContext, at_work, entered
from dflow.attempts.deadlines import DeadlinePassed
from dflow.attempts.forks import copies_end
from dflow.attempts.hearing import heard
from dflow.attempts.kinds import kind_of
from dflow.attempts.parameters import by_name
from dflow.attempts.performing import HandedOut, Manner, perform
from dflow.attempts.persisting import Place, Returned, check, put
from dflow.attempts.stepping import finished, uncarried
from dflow.attempts.tagging import tags
from dflow.attempts.usage import Usage
from dflow.core.events import (
    AttemptRaised,
    AttemptStarted,
    AttemptStopped,
    AttemptSucceeded,
    AttemptTimedOut,
    Outcome,
    StateReturned,
    TaskRunNamed,
)
from dflow.core.records import Held
from dflow.errors import DefinitionError, MissingResult, SerializationError, TaskFailedError
from dflow.messages import AttemptInfo
from dflow.ports import Link
from dflow.states import State

Load = Callable[[], tuple[Call, Mapping[str, Any]]]
"""Gives the call and the values of its upstreams by task run id; what it raises is the attempt's failure."""
Context = Callable[[], AbstractContextManager[Any]]


def run(
    info: AttemptInfo,
    load: Load,
    link: Link,
    *,
    worker: str = "",
    must_travel: bool = False,
    interrupts: bool = False,
    slot: Context = nullcontext,
    adopted: Context = nullcontext,
) -> tuple[Outcome, Any]:
    """Run one attempt to its end, in this thread; see `attempt`."""
    context = RunContext(info=info, link=link, worker=worker, slot=slot, adopted=adopted)
    manner = Manner(timeout=info.timeout, keep=info.room, adopted=adopted)
    with at_work(context):
        return finished(
            attempt(context, load, manner, must_travel=must_travel, interrupts=interrupts)
        )


async def attempt(
    context: RunContext,
    load: Load,
    manner: Manner,
    *,
    must_travel: bool = False,
    interrupts: bool = False,
) -> tuple[Outcome, Any]:
    """Run one attempt; return its outcome, not yet sent, and its value (None if there is none).

    The start is sent before, and confirmed if the attempt asks for it. With `must_travel` a value that is
    small and cannot be pickled is a failure. What cannot travel is not tried again. No exception leaves this
    function, except what the link raises, KeyboardInterrupt where `interrupts` says that it is the user's,
    and the cancellation of a coroutine that its caller awaits.
    """
    info: Any = context.info
    times = _Times(info, context.worker, manner.usage)
    context.link.send(times.started())
    try:
        if info.confirm_start:
            context.link.confirm_start()
        call, values = load()
        value = await _execute(context, call, values, manner)
        return await _returned(value, times, context, must_travel)
    except asyncio.CancelledError as error:
        if not manner.in_place:
            return _raised(error, times, context.link), None
        context.link.send(AttemptStopped(**times.ended()))
        raise
    except BaseException as error:
        if interrupts and isinstance(error, KeyboardInterrupt):
            raise
        return _raised(uncarried(error), times, context.link), None


class _Times:
    """Says when and where an attempt started and ended, and what it took."""

    __slots__ = ("_at", "_info", "_start", "_usage", "_worker")

    def __init__(self, info: AttemptInfo, worker: str, usage: Usage) -> None:
        self._info = info
        self._worker = worker
        self._usage = usage
        self._at, self._start = clock.now(), clock.monotonic()

    def started(self) -> AttemptStarted:
        """Return the report of the start."""
        run_id, dispatch = self._info.key
        return AttemptStarted(
            at=self._at, task_run_id=run_id, dispatch=dispatch, worker=self._worker
        )

    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return clock.monotonic() - self._start

    def ended(self) -> dict[str, Any]:
        """Return what every outcome says."""
        seconds = self.seconds()
        return {
            "at": self._at + seconds,
            "task_run_id": self._info.task_run_id,
            "dispatch": self._info.dispatch,
            "started_at": self._at,
            "seconds": seconds,
            "worker": self._worker,
            "cpu": self._usage.cpu(),
            "memory": self._usage.memory(),
        }


async def _execute(
    context: RunContext, call: Call, values: Mapping[str, Any], manner: Manner
) -> Any:
    args, kwargs = resolved(call, values)
    context.notes["call"] = (call.function, args, kwargs)
    context.notes["native"] = manner.in_place and kind_of(call.function).native
    if call.named is not None:
        context = _renamed(context, names.made(*call.named, by_name(call.function, args, kwargs)))
    info: Any = context.info
    check(info.keeping)
    if info.keeping is not None and info.keeping.name is not None:
        parameters = by_name(call.function, args, kwargs)
        context.notes["result name"] = result_names.made(info.keeping.name, info, parameters)
    around = getattr(context.info, "around", ())
    tagged = tags(*around) if around else NOTHING
    with entered(context), heard(context), tagged:
        try:
            with copies_end():
                value = await perform(call.function, args, kwargs, manner)
        except BaseException:
            await context.end(failed=True)
            raise
        if context.at_end:
            await context.end(failed=False)
        resolve = context.notes.get("resolve")  # if the body has asked for task runs of its own
        if resolve is None or isinstance(value, State | HandedOut):
            return value
        return await resolve(value, native=context.notes["native"])


def _renamed(context: RunContext, name: str) -> RunContext:
    """Tell the name of the run, which was made from values that it had to wait for."""
    info: Any = context.info
    context.link.send(TaskRunNamed(at=clock.now(), task_run_id=context.run_id, name=name))
    return replace(context, info=replace(info, task_run_name=name))


async def _returned(
    value: Any, times: _Times, context: RunContext, must_travel: bool
) -> tuple[Outcome, Any]:
    """Return the outcome of a body that returned this, and its value, which is put where it belongs."""
    info: Any = context.info
    message = ""
    if isinstance(value, HandedOut):
        message = f"Closed by its caller after {value.count} items." if value.closed else ""
        if value.items is None:
            return AttemptSucceeded(**times.ended(), held=Held.RUNNER, message=message), None
        value = value.items
    if isinstance(value, State):
        if not value.is_completed():
            return _by_hand(value, times), None
        message, value = value.message, _data(value)
    returned = Returned(
        value=value,
        what=f"task '{info.task_name}'",
        stem=caching.stem_of(info),
        seconds=times.seconds(),
        name=context.notes.get("result name"),
        must_travel=must_travel,
    )
    native = context.notes["native"]
    place = await put(returned, info.small, caching.keeping_of(info), context, native=native)
    place = await caching.cached(place, context, native=native)
    outcome = AttemptSucceeded(
        **times.ended(),
        held=place.held,
        value=place.value,
        message=message,
        stored=place.stored,
        size=_size_of(place, value),
    )
    return outcome, value


def _size_of(place: Place, value: Any) -> int | None:
    """Return how many bytes a value takes, if that is known without more ado."""
    if place.value is not None:
        return len(place.value)
    if place.stored is not None:
        return place.stored.size
    try:
        found = len(value) if isinstance(value, str | bytes) else getattr(value, "nbytes", None)
    except Exception:  # it is somebody else's code that says it, and not worth a failure
        return None
    return found if isinstance(found, int) else None


def _data(state: State) -> Any:
    try:
        return state.result(raise_on_failure=False)
    except MissingResult:
        return None  # a state that was made without data


def _by_hand(state: State, times: _Times) -> Outcome:
    """Return the outcome of a body that returned a state that is not a completed one."""
    if not state.is_final():
        raise DefinitionError(
            f"It returned a state that is not final: '{state.name}'. Return a value, or a final state."
        )
    data = _data(state)
    error = data if isinstance(data, BaseException) else TaskFailedError(state.message)
    return StateReturned(
        **times.ended(),
        state_name=state.type.capitalize(),
        message=state.message,
        error=capture(error) if state.is_failed() else None,
    )


def _raised(error: BaseException, times: _Times, link: Link) -> Outcome:
    """Return the outcome of a body that raised, or ran past its deadline."""
    if isinstance(error, DeadlinePassed):
        link.witness(error.error)
        return AttemptTimedOut(**times.ended(), error=capture(error.error), luck=clock.luck())
    link.witness(error)
    return AttemptRaised(
        **times.ended(),
        error=capture(error),
        retriable=not isinstance(error, SerializationError | DefinitionError),
        luck=clock.luck(),
    )
