"""Flows: functions that call tasks, whose runs are recorded and can be resumed.

A flow is a definition. Calling it makes a flow run: a root, with a session of its own, or inside another
flow a subflow, a child run in the same session. Its body runs here, in the thread that calls it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from dflow.attempts.context import FlowInfo, RunContext, current
from dflow.attempts.scripts import being_imported_by_a_worker
from dflow.engine import callbacks, calls, definitions, details, flow_runs, process, run_logs
from dflow.engine.callbacks import AddsHook
from dflow.engine.context import current_scope
from dflow.engine.driver_scope import DriverScope
from dflow.engine.flow_runs import Ended
from dflow.engine.futures import state_of
from dflow.engine.options import FlowOptions, Hooks, changed
from dflow.engine.scope import Status
from dflow.engine.session import Session
from dflow.engine.signals import terminating_as_interrupt
from dflow.errors import DefinitionError, MissingMainGuard, NotResumable
from dflow.ports import RunEntry
from dflow.states import StateType

P = ParamSpec("P")
R = TypeVar("R")


class Flow(Generic[P, R]):
    """A function whose runs are recorded, with all task runs that it asks for. Made by `flow`."""

    def __init__(self, fn: Callable[P, R], options: FlowOptions) -> None:
        definitions.check_function(fn, "flow")
        definitions.check_texts(
            "flow",
            description=options.description,
            version=options.version,
            flow_run_name=options.flow_run_name,
        )
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = definitions.name_of(fn, options.name, "flow", dashes=True)
        self.description = options.description or inspect.getdoc(fn) or ""
        self.version = options.version
        self._options = callbacks.checked(options, f"flow '{self.name}'")
        self.callbacks = callbacks.callbacks_of(self, self._options)
        self._signature = inspect.signature(fn)
        self._policy = definitions.policy(
            f"flow '{self.name}'", options.retries, options.retry_delay_seconds
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the flow here and return its value, or raise what it raises.

        Futures and states in what the body returns decide the final state, and are replaced by their values.
        ``return_state=True`` returns the `State` instead, and does not raise; ``wait_for=[…]`` names futures
        that must have completed before. Raises `ParameterError` for arguments that do not fit.
        """
        given: dict[str, Any] = dict(kwargs)
        return_state, wait_for = given.pop("return_state", False), given.pop("wait_for", None)
        if current() is None:
            self._check_guard()
        positional, named = calls.bind(self.fn, self._signature, args, given)
        calls.await_all(wait_for)
        positional, named = calls.values_of((positional, named))
        run = self._run_root if current() is None else self._run_in_scope
        ended = run(positional, named)
        outcome: Any = _outcome(self.name, ended, return_state)
        return cast(R, outcome)

    on_running = AddsHook()
    on_completion = AddsHook()
    on_failure = AddsHook()
    on_cancellation = AddsHook()
    on_crashed = AddsHook()

    def with_options(self, **changes: Any) -> Flow[P, R]:
        """Return a flow with the same function and other options; what is not named stays as it is.

        None clears an option. Raises `DefinitionError` for an option that does not exist.
        """
        return Flow(self.fn, changed(self._options, changes, f"flow '{self.name}'"))

    def resume(self, run: str) -> R:
        """Resume one of this flow's runs, named by its id, a unique start of it, its name or ``latest``.

        The function runs again from its top, with the parameters that were recorded; task runs that have
        completed and whose results are kept return at once. Raises `NotResumable` for a run that has
        completed or is another flow's, `RunHeld` while its driver lives, and what the flow raises.
        """
        entry = process.process().journal.catalog.find(run)
        if entry.flow_name != self.name:
            raise NotResumable(
                f"Run '{entry.name}' is of flow '{entry.flow_name}', not of '{self.name}'."
            )
        positional, named = calls.bind(
            self.fn, self._signature, *details.arguments_of(entry.details)
        )
        outcome: Any = _outcome(self.name, self._run_root(positional, named, entry), False)
        return cast(R, outcome)

    # Roots ----------------------------------------------------------------------------------------------

    def _run_root(self, args: Any, kwargs: Any, entry: RunEntry | None = None) -> Ended:
        """Run as a root: a new one, or the one that `entry` lists, taken up again."""
        here = process.process()
        run_id = here.ids.run_id() if entry is None else entry.id
        info = FlowInfo(
            flow_run_id=run_id,
            flow_run_name=self._run_name(here.ids.run_name()) if entry is None else entry.name,
            flow_name=self.name,
            root_id=run_id,
            generation=1,
            log_prints=bool(self._options.log_prints),
            log_level=process.LEVELS[here.settings.log_level],
        )
        root = process.RootRun(
            flow=info,
            runner=lambda: process.use(self._options.task_runner),
            policy=self._policy,
            details=details.describe(self.fn, self._signature, (args, kwargs)),
            taken_up=entry is not None,
        )
        with terminating_as_interrupt(), process.session(root) as session:
            session.hooks.add_flow(run_id, self.callbacks)
            if entry is not None:
                _check_unfinished(session, entry)
            ended = flow_runs.execute(session, info, lambda: self.fn(*args, **kwargs))
        run_logs.show_end(info.flow_run_name, self.name, ended.state_name, ended.message)
        return ended

    def _run_name(self, made_up: str) -> str:
        name = self._options.flow_run_name
        return name if isinstance(name, str) else made_up

    def _check_guard(self) -> None:
        if being_imported_by_a_worker():
            raise MissingMainGuard(
                f"Flow '{self.name}' is called while a worker process loads this script. "
                "Put the call into the main guard, so that only the script itself makes it:\n\n"
                '    if __name__ == "__main__":\n'
                f"        {calls.called(self.fn)}()\n"
            )

    # Subflows -------------------------------------------------------------------------------------------

    def _run_in_scope(self, args: Any, kwargs: Any) -> Ended:
        scope = current_scope()
        if not isinstance(scope, DriverScope):
            raise DefinitionError(
                f"Flow '{self.name}' is called in a task that runs in another process. "
                "Call it in the flow, or make it a task."
            )
        session = scope.session
        run_id, number = scope.identify(self.name, ("flow", args, kwargs))
        info = FlowInfo(
            flow_run_id=run_id,
            flow_run_name=self._run_name(number),
            flow_name=self.name,
            root_id=session.root.flow_run_id,
            generation=1,
            log_prints=self._prints_in(current()),
            log_level=session.root.log_level,
        )
        chosen = self._options.task_runner
        parents = session.runner_of(scope.flow_run_id)
        session.add_flow(info, parents if chosen is None else lambda: process.use(chosen))
        session.hooks.add_flow(run_id, self.callbacks)
        kept = flow_runs.begin_subflow(session, info, scope.parent_id, self._policy)
        if kept is not None:
            return kept
        return flow_runs.execute(session, info, lambda: self.fn(*args, **kwargs))

    def _prints_in(self, context: RunContext | None) -> bool:
        """Tell whether prints become log lines; left open, as in the parent."""
        if self._options.log_prints is not None:
            return self._options.log_prints
        return context is not None and context.info.log_prints

    def __repr__(self) -> str:
        return f"<Flow '{self.name}'>"


def _check_unfinished(session: Session, entry: RunEntry) -> None:
    run = session.tracker.shown[entry.id]
    if run.state_type is StateType.COMPLETED:
        raise NotResumable(f"Run '{entry.name}' has completed: there is nothing to resume.")


def _outcome(name: str, ended: Ended, return_state: bool) -> Any:
    if not return_state:
        return flow_runs.outcome_of(name, ended)
    status = Status(ended.state_name, ended.message)
    return state_of(status, lambda: flow_runs.outcome_of(name, ended))


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    flow_run_name: str | None = None,
    retries: int = 0,
    retry_delay_seconds: float | list[float] | Callable[[int], list[float]] | None = 0,
    task_runner: Any = None,
    log_prints: bool | None = None,
    on_running: Hooks = None,
    on_completion: Hooks = None,
    on_failure: Hooks = None,
    on_cancellation: Hooks = None,
    on_crashed: Hooks = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a flow, bare or with options.

    name
        The name of the flow, by default that of the function with ``-`` for ``_``.
    description, version
        Recorded with its runs.
    flow_run_name
        The name of its runs, instead of one that is made up.
    retries, retry_delay_seconds
        How often the function runs again after it raised, and how many seconds before (as for `task`).
        Task runs that have completed are returned then, not repeated.
    task_runner
        Where its task runs go: an instance, a class, or a name such as ``"threads"``. By default the one
        that the setting ``DFLOW_TASK_RUNNER`` names, and in a subflow that of its parent.
    log_prints
        Whether prints become log lines, of the flow and of the tasks that leave it open.

    >>> @flow(name="adding")
    ... def add(x: int, y: int = 1) -> int:
    ...     return x + y
    >>> add.fn(2)
    3

    Raises `DefinitionError` for an option that does not exist or cannot have its value.
    """
    made = changed(FlowOptions(), options, "flow") if options else FlowOptions()
    if fn is None:
        return lambda function: Flow(function, made)
    if options:
        raise DefinitionError("Write @flow or @flow(...), not flow(function, ...).")
    return Flow(fn, made)
