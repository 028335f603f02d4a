"""The run that the present thread or coroutine works for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import msgspec

from dflow.core.values import Keeping
from dflow.messages import AttemptInfo
from dflow.ports import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowInfo:
    """What the body of a flow knows of its run.

    `keeping` says what becomes of its value, and of those of its tasks where they do not say it.
    """

    flow_run_id: str
    flow_run_name: str
    flow_name: str
    root_id: str
    generation: int
    parent_flow_run_id: str | None = None
    tags: tuple[str, ...] = ()
    log_prints: bool = False
    log_level: int = 20
    extra_loggers: tuple[str, ...] = ()
    checkpoints: str = ""
    keeping: Keeping | None = None


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """A flow run or an attempt of a task run, and its link to the driver.

    `worker` names where it runs; `slot` gives the worker's slot back while something of the body waits, in
    any of its threads; `adopted`, entered in another thread, makes that one a thread of the body for the
    cluster that runs it.
    `notes` is a place where the rooms above keep what belongs to this execution of the body, `at_end` what
    they want done once the body has ended.
    """

    info: AttemptInfo | FlowInfo
    link: Link
    worker: str = ""
    slot: Callable[[], AbstractContextManager[Any]] = nullcontext
    adopted: Callable[[], AbstractContextManager[Any]] = nullcontext
    notes: dict[str, Any] = msgspec.field(default_factory=dict)
    at_end: list[Callable[[bool], Awaitable[None] | None]] = msgspec.field(default_factory=list)

    async def end(self, *, failed: bool) -> None:
        """Do what is to be done once the body has ended, the last first; it is told whether it failed."""
        while True:
            try:
                then = self.at_end.pop()  # what is over is taken out by other threads
            except IndexError:
                return
            waited_for = then(failed)
            if waited_for is not None:
                await waited_for

    @property
    def task_run_id(self) -> str | None:
        """The id of the task run, or None in the body of a flow."""
        return self.info.task_run_id if isinstance(self.info, AttemptInfo) else None

    @property
    def run_id(self) -> str:
        """The id of the task run, or in the body of a flow that of the flow run."""
        return self.task_run_id or self.info.flow_run_id

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1; in the body of a flow its generation."""
        return self.info.attempt if isinstance(self.info, AttemptInfo) else self.info.generation

    @property
    def execution(self) -> str:
        """What tells this execution of the body from those before and after."""
        return f"{self.info.generation}.{self.attempt}"


_current: ContextVar[RunContext | None] = ContextVar("dflow_run", default=None)


def current() -> RunContext | None:
    """Return the run that this thread or coroutine works for, or None."""
    return _current.get()


def prints_here(said: bool | None) -> bool:
    """Tell whether prints of a run that is asked for here become log lines; left open, as in its parent."""
    if said is not None:
        return said
    context = current()
    return context is not None and context.info.log_prints


_spoken_for: ContextVar[RunContext | None] = ContextVar("dflow_spoken_for", default=None)


def spoken_for() -> RunContext | None:
    """Return the run to which log lines belong: the current one, or that of which a hook is told."""
    return _current.get() or _spoken_for.get()


@contextmanager
def beside(context: RunContext) -> Iterator[None]:
    """Belong to no run, and let log lines be those of `context`: for code that is told of a run."""
    current_token, spoken_token = _current.set(None), _spoken_for.set(context)
    try:
        yield
    finally:
        _spoken_for.reset(spoken_token)
        _current.reset(current_token)


class _Entered:
    """A run that is the current one inside. Every body is entered, and so this is no generator."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def __enter__(self) -> RunContext:
        self._token = _current.set(self._context)
        return self._context

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def entered(context: RunContext) -> AbstractContextManager[RunContext]:
    """Make `context` the current one."""
    return _Entered(context)


_far: dict[int, RunContext] = {}


NOTHING: AbstractContextManager[Any] = nullcontext()
"""Does nothing."""


class _AtWork:
    """A body of another driver, noted while it runs."""

    __slots__ = ("_context",)

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        _far[id(self._context)] = self._context

    def __exit__(self, *_: object) -> None:
        del _far[id(self._context)]


def at_work(context: RunContext) -> AbstractContextManager[None]:
    """Note a body that a runner runs in this process, if its driver is another one."""
    return _AtWork(context) if context.link.far else NOTHING


def works_for_another() -> bool:
    """Tell whether a body runs in this process whose driver is another one."""
    return bool(_far)
