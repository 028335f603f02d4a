"""One attempt from its start to its end: run the user's function, and say what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dflow.attempts import clock
from dflow.attempts.calls import Call, resolved
from dflow.attempts.capture import capture
from dflow.attempts.context import RunContext, at_its_end, entered
from dflow.attempts.logs import prints_of
from dflow.attempts.pickling import dumps_small
from dflow.core.events import AttemptRaised, AttemptStarted, AttemptSucceeded, Outcome
from dflow.core.records import Held
from dflow.errors import SerializationError
from dflow.messages import AttemptInfo
from dflow.ports import Link


def run(
    info: AttemptInfo,
    load: Callable[[], tuple[Call, Mapping[str, Any]]],
    link: Link,
    *,
    worker: str = "",
    must_travel: bool = False,
    interrupts: bool = False,
    slot: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Outcome, Any]:
    """Run one attempt; return its outcome, not yet sent, and its value (None if there is none).

    `load` returns the call and the values of its upstreams by task run id; what it raises is the attempt's
    failure. The start is sent before, and confirmed if `info` asks for it. With `must_travel` a value that
    is small and cannot be pickled is a failure. What cannot travel is not tried again. No exception leaves
    this function, except what `link` raises, and KeyboardInterrupt where `interrupts` says that it is the
    user's.
    """
    context = RunContext(info=info, link=link, worker=worker, slot=slot)
    started_at, start = clock.now(), clock.monotonic()
    link.send(_started(info, started_at, worker))
    try:
        if info.confirm_start:
            link.confirm_start()
        call, values = load()
        value = _execute(context, call, values)
        pickled = _small(value, info, must_travel)
    except BaseException as error:
        if interrupts and isinstance(error, KeyboardInterrupt):
            raise
        link.witness(error)
        outcome: Outcome = AttemptRaised(
            **_times(info, started_at, start, worker),
            error=capture(error),
            retriable=not isinstance(error, SerializationError),
            luck=clock.luck(),
        )
        return outcome, None
    outcome = AttemptSucceeded(
        **_times(info, started_at, start, worker),
        held=Held.RUNNER if pickled is None else Held.JOURNAL,
        value=pickled,
    )
    return outcome, value


def _started(info: AttemptInfo, at: float, worker: str) -> AttemptStarted:
    return AttemptStarted(
        at=at, task_run_id=info.task_run_id, dispatch=info.dispatch, worker=worker
    )


def _times(info: AttemptInfo, started_at: float, start: float, worker: str) -> dict[str, Any]:
    seconds = clock.monotonic() - start
    return {
        "at": started_at + seconds,
        "task_run_id": info.task_run_id,
        "dispatch": info.dispatch,
        "started_at": started_at,
        "seconds": seconds,
        "worker": worker,
    }


def _execute(context: RunContext, call: Call, values: Mapping[str, Any]) -> Any:
    args, kwargs = resolved(call, values)
    with entered(context), prints_of(context), at_its_end(context):
        return call.function(*args, **kwargs)


def _small(value: Any, info: AttemptInfo, must_travel: bool) -> bytes | None:
    try:
        return dumps_small(value, info.small)
    except Exception as error:
        if not must_travel:
            return None
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise SerializationError(
            f"The result of task '{info.task_name}' cannot travel from its worker: "
            f"it is a '{kind}' ({error}). Return what it is made from."
        ) from error
