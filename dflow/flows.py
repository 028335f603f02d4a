"""Flows: functions that call tasks, whose runs are recorded and can be resumed.

A flow is a definition. Calling it makes a flow run: a root, with a session of its own, or inside another
flow or a task a subflow, a child run in the same record. Its body runs here, in step with its caller;
`Flow.start` runs it in a thread beside.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, overload

from dflow.attempts.context import current
from dflow.engine import taking_up
from dflow.engine.callbacks import AddsHook
from dflow.engine.defined import Items, Method, P, R_co
from dflow.engine.flow_calls import FlowBase
from dflow.engine.handles import FlowRunHandle
from dflow.engine.naming import is_late
from dflow.engine.options import Delays, FlowOptions, Hooks, Name, changed
from dflow.engine.renewal import Again

Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")


class Flow(FlowBase[P, R_co]):
    """A function whose runs are recorded, with all task runs that it asks for. Made by `flow`.

    Futures and states in what the body returns decide the final state, and a call gives their values in their
    places. Type checkers see what the body returns: for its callers' sake, let it return ``future.result()``.

    >>> @flow
    ... def greet(name: str) -> str:
    ...     return f"Hello, {name}!"
    >>> greet("Ada")
    'Hello, Ada!'
    >>> greet("Ada", return_state=True).name
    'Completed'
    """

    @overload
    def __get__(
        self: Method[type[S], Q, T], instance: object | None, owner: type[S]
    ) -> Flow[Q, T]: ...
    @overload
    def __get__(self: Method[S, Q, T], instance: S, owner: type) -> Flow[Q, T]: ...
    @overload
    def __get__(self, instance: object | None, owner: type | None = None) -> Self: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        """Return this with `self` (or the class) filled in, when it is looked up on an instance."""
        return super().__get__(instance, owner)

    on_running = AddsHook()
    on_completion = AddsHook()
    on_failure = AddsHook()
    on_cancellation = AddsHook()
    on_crashed = AddsHook()

    @overload
    def start(
        self: Flow[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> FlowRunHandle[T]: ...
    @overload
    def start(
        self: Flow[P, Items[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> FlowRunHandle[list[T]]: ...
    @overload
    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> FlowRunHandle[R_co]: ...
    def start(self, /, *args: Any, **kwargs: Any) -> FlowRunHandle[Any]:
        """Begin to run the flow in a thread of its own, and return at once with the handle of the run.

        Several runs, also of the same flow, may go on at once; those on equal runners share one cluster.
        Raises `ParameterError` for arguments that do not fit.
        """
        called = self._called(args, kwargs)
        info, context = called.flow, current()
        handle: FlowRunHandle[Any] = FlowRunHandle(info.flow_run_id, info.flow_run_name, self.name)
        called = replace(called, handle=handle, return_state=False)
        if called.keeper is not None and not is_late(self._naming, called.arguments):
            self._open(called.keeper, called)
        if context is not None:
            context.at_end.append(handle.joined)
        handle.run(partial(self._run_beside, called))
        return handle

    def resume(self, run: str, *, rerun_changed: bool = False) -> R_co:
        """Resume one of this flow's runs, named by its id, a unique start of it, its name or ``latest``.

        The function runs again from its top, with the parameters that were recorded; task runs that have
        completed and whose results are kept return at once. So do those whose code has changed since, with a
        warning; with `rerun_changed` they run again, and what follows from them. Tasks go to the runner that
        this flow names, or else to one as the run began with. An async flow is awaited. Raises
        `NotResumable` for a run that has completed or is another flow's, `RunHeld` while its driver lives,
        and what the flow raises.

        >>> from pathlib import Path
        >>> @flow
        ... def count(file: Path) -> int:
        ...     return len(file.read_text().splitlines())
        >>> count(Path("rows.txt"), return_state=True).message
        "FileNotFoundError: [Errno 2] No such file or directory: 'rows.txt'"
        >>> Path("rows.txt").write_text("one")
        3
        >>> count.resume("latest")
        1
        """
        return self._take_up(taking_up.look_up(self, run), Again(changed=rerun_changed))

    def rerun(
        self,
        run: str,
        /,
        *,
        from_task: str | None = None,
        failed: bool = False,
        new: bool = False,
        **parameters: Any,
    ) -> R_co:
        """Run one of this flow's runs again, whether it has completed or not.

        All its task runs run again, in the same run, as its next generation. With `from_task` (the name of a
        task, or the name or id of one task run) only those, what depends on them, and what they call; with
        `failed` only what has not completed: the rest gives its results. With other `parameters`, or with
        `new`, it is a run of its own with the code of today, in which everything is done, linked to the old
        one. A rerun that was interrupted goes on with `resume`. Raises as `resume` does, but that a run
        which has completed is no problem, and `RunNotFound` for a task that the run does not have.

        >>> from dflow import task
        >>> @task
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> @flow
        ... def doubles(count: int) -> list[int]:
        ...     return double.map(range(count)).result()
        >>> doubles(3)
        [0, 2, 4]
        >>> doubles.rerun("latest", from_task="double-1")
        [0, 2, 4]
        >>> doubles.rerun("latest", count=4)
        [0, 2, 4, 6]
        """
        again = taking_up.again_of(from_task, failed, new, parameters)
        found = taking_up.look_up(self, run)
        if not new and not parameters:
            return self._take_up(found, again)
        return self._run_anew(found, parameters)


@overload
def flow(fn: Callable[P, R_co], /, **options: Any) -> Flow[P, R_co]: ...
@overload
def flow(
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    flow_run_name: Name = None,
    retries: int = 0,
    retry_delay_seconds: Delays = 0,
    task_runner: Any = None,
    timeout_seconds: float | None = None,
    validate_parameters: bool = True,
    persist_result: bool | None = None,
    result_storage: str | Path | None = None,
    result_serializer: str | None = None,
    log_prints: bool | None = None,
    on_running: Hooks = None,
    on_completion: Hooks = None,
    on_failure: Hooks = None,
    on_cancellation: Hooks = None,
    on_crashed: Hooks = None,
) -> Callable[[Callable[P, R_co]], Flow[P, R_co]]: ...
def flow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a flow: as a decorator, bare or with options, or by a call with the function.

    name
        The name of the flow, by default that of the function with ``-`` for ``_``.
    description, version
        Recorded with its runs.
    flow_run_name
        The name of its runs, instead of one that is made up: a template over its parameters such as
        ``"train-{day:%A}"``, or a function of nothing or of ``parameters``.
    retries, retry_delay_seconds
        How often the function runs again after it raised, and how many seconds before (as for `task`).
        Task runs that have completed are returned then, not repeated.
    task_runner
        Where its task runs go: an instance, a class, or a name such as ``"threads"``. By default the one
        that the setting ``DFLOW_TASK_RUNNER`` names, and in a subflow that of its parent.
    timeout_seconds
        How long the function may run. What takes longer is FAILED with the state ``TimedOut``, within a
        second; a function that cannot be stopped goes on in its thread, and harms nothing.
    validate_parameters
        Whether arguments are checked and converted by their annotations, by pydantic: ``"5"`` becomes 5 for
        ``x: int``. A failure is a FAILED run that names the parameter.
    persist_result, result_storage, result_serializer
        Where its value is kept, and those of its tasks and subflows that do not say it themselves: see
        `task`. Of itself the value of a flow is kept where a resume would need it: in a subflow.
    log_prints
        Whether prints become log lines, of the flow and of the tasks that leave it open.
    on_running, on_completion, on_failure, on_cancellation, on_crashed
        Hooks: one or several ``hook(flow, flow_run, state)``, sync or async, called after the commit by the
        thread that runs the body, for an async flow by one beside its loop: `on_running` before the body,
        each time that it runs (retries, resume); the others once the run is final and the hooks of its tasks
        have run. `on_failure` also for timeouts. An interrupted run (Ctrl-C, a dead driver) has not ended
        and calls none; a subflow that is returned from the record calls none either. ``state.result()``
        gives the value, or raises. An error in a hook is logged and harms nothing. ``@my_flow.on_failure``
        adds one to this very flow; `with_options` replaces, None clears.

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
    return Flow(fn, made)
