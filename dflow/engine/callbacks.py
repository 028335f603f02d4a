"""Whom the driver calls: the hooks and retry conditions of tasks and flows, and how they are called.

They are the user's code, so they never run in the tracker's thread, nor in one of a runner's; what they
raise is logged with the run that they were told of, and goes no further.
"""

from __future__ import annotations

import inspect
import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dflow.attempts import logs
from dflow.attempts.context import FlowInfo, RunContext, beside
from dflow.attempts.stepping import run_to_end
from dflow.core.records import TaskRun
from dflow.engine import definitions, run_logs
from dflow.engine.links import LocalLink
from dflow.engine.options import FlowOptions, TaskOptions
from dflow.errors import SerializationError
from dflow.messages import Callbacks, Go
from dflow.results.pickling import dumps, loads

if TYPE_CHECKING:
    from dflow.engine.session import Session

CONDITION = "retry_condition_fn"
LOGGER = "dflow.hooks"
"""The logger of what is said about hooks and conditions that fail."""

H = TypeVar("H", bound=Callable[..., Any])
O = TypeVar("O", TaskOptions, FlowOptions)  # noqa: E741  (a kind of options)

_adding = threading.Lock()


# In definitions -----------------------------------------------------------------------------------------


def checked(options: O, what: str) -> O:
    """Return options with their hooks as tuples. Raises `DefinitionError` for what cannot be called."""
    takes = _takes(options)
    condition = getattr(options, CONDITION, None)
    if condition is not None:
        definitions.check_callback(what, CONDITION, condition, takes)
    made: dict[str, Any] = {
        name: definitions.hooks(what, name, getattr(options, name), takes)
        for name in _hook_names(options)
    }
    return replace(options, **made)


def callbacks_of(owner: Any, options: TaskOptions | FlowOptions) -> Callbacks | None:
    """Return whom to call for the runs of a task or flow; None, which costs nothing, if there is nobody."""
    kinds = {name for name in _hook_names(options) if getattr(options, name)}
    if getattr(options, CONDITION, None) is not None:
        kinds.add(CONDITION)
    return Callbacks(owner, frozenset(kinds)) if kinds else None


def _hook_names(options: TaskOptions | FlowOptions) -> list[str]:
    return [field.name for field in fields(options) if field.name.startswith("on_")]


def _takes(options: TaskOptions | FlowOptions) -> str:
    kind = "task" if isinstance(options, TaskOptions) else "flow"
    return f"{kind}, {kind}_run, state"


class AddsHook:
    """``@my_task.on_completion``: adds a function to the hooks of a task or flow, and returns it.

    It is told of the runs that are asked for from then on.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> AddsHook: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[[H], H]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self

        def add(hook: H) -> H:
            with _adding:
                options = instance._options
                what = f"{owner.__name__.lower()} '{instance.name}'"
                definitions.check_callback(what, self._name, hook, _takes(options))
                hooks = (*getattr(options, self._name), hook)
                instance._options = replace(options, **{self._name: hooks})
                instance.callbacks = callbacks_of(instance, instance._options)
            return hook

        return add


# Between processes --------------------------------------------------------------------------------------


def sent_up(callbacks: Callbacks | None) -> Callbacks | None:
    """Return callbacks as they travel from an attempt to its driver, with the task or flow pickled.

    Raises `SerializationError` for one whose hooks cannot travel.
    """
    if callbacks is None:
        return None
    try:
        data = dumps(callbacks.task)
    except Exception as error:
        owner = callbacks.task
        raise SerializationError(
            f"The hooks or the retry condition of {owner.what} '{owner.name}' cannot travel from the "
            f"worker to the driver, which calls them: {error}. Define them in a module."
        ) from error
    return replace(callbacks, task=data)


class Owners:
    """Finds the task that has the hooks, also where only its pickle has come."""

    def __init__(self) -> None:
        self._loaded: dict[bytes, Any] = {}
        self._lock = threading.Lock()

    def owner(self, callbacks: Callbacks) -> Any:
        """Return the task, or None if it cannot be loaded here, which is logged once."""
        data = callbacks.task
        if not isinstance(data, bytes):
            return data
        with self._lock:
            if data not in self._loaded:
                self._loaded[data] = _loaded(data)
            return self._loaded[data]


def _loaded(data: bytes) -> Any:
    try:
        return loads(data)
    except BaseException as error:  # loading it may import, and so run, anything
        run_logs.show(
            logging.ERROR,
            f"ERROR   A task that was called on a worker cannot be loaded here: {error!r}. Its hooks "
            "are not called, and what its retry condition would decide about is not tried again. "
            "Define the task in a module that the driver can import.",
        )
        return None


# Calling ------------------------------------------------------------------------------------------------


def told_of_task(session: Session, run: TaskRun) -> RunContext:
    """Return the context for whose log lines a hook of a task run speaks."""
    go = Go(run.id, run.dispatch, max(1, len(run.attempts_now)), generation=run.generation)
    return RunContext(info=session.dispatcher.info(go), link=LocalLink(session, run.id))


def told_of_flow(session: Session, flow: FlowInfo) -> RunContext:
    """Return the context for whose log lines a hook of a flow run speaks."""
    return RunContext(info=flow, link=LocalLink(session, flow.flow_run_id))


def call(context: RunContext, kind: str, function: Callable[..., Any], *args: Any) -> bool:
    """Call a hook or condition, to its end if it is async; return whether it says yes.

    What it raises is logged with its run, and means no. KeyboardInterrupt in the main thread is the user's,
    and goes on.
    """
    try:
        with beside(context):
            returned = _to_its_end(function(*args))
            return kind == CONDITION and bool(returned)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _in_main_thread():
            raise
        name = getattr(function, "__qualname__", f"{function!r:.100}")
        complain(context, f"'{name}' ({kind}) raised {''.join(traceback.format_exception(error))}")
        return False


def complain(context: RunContext, message: str) -> None:
    """Log an error with a run, or only show it if nothing more is recorded."""
    link = context.link
    if isinstance(link, LocalLink) and link.session.tracker.ended:
        run_logs.show(logging.ERROR, f"ERROR   {run_logs.escaped(message, run_logs.KEPT)}")
    else:
        logs.say(context, logging.ERROR, message, LOGGER)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _to_its_end(returned: Any) -> Any:
    """Return what a call returned, awaited on a loop of its own if need be."""
    if not inspect.isawaitable(returned):
        return returned

    async def awaited() -> Any:
        return await returned

    return run_to_end(awaited)
