"""Flows: functions that call tasks, whose runs are recorded and can be resumed.

A flow is a definition. Calling it makes a flow run: a root, with a session of its own, or inside another
flow or a task a subflow, a child run in the same record. Its body runs here, in step with its caller;
`Flow.start` runs it in a thread beside.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from dflow.attempts.context import FlowInfo, current, prints_here
from dflow.attempts.scripts import check_guard
from dflow.attempts.stepping import STOPS, Carried, finished, hand_out, run_to_end
from dflow.attempts.tagging import around
from dflow.engine import callbacks, calls, definitions, details, flow_runs, process, run_logs
from dflow.engine.callbacks import AddsHook
from dflow.engine.context import current_keeper, current_scope
from dflow.engine.defined import Defined, Items, Method, P, R_co, as_called
from dflow.engine.flow_runs import Arguments, Body, Ended
from dflow.engine.futures import state_of
from dflow.engine.handles import FlowRunHandle
from dflow.engine.keeping import Keeper, LocalKeeper, Opened
from dflow.engine.naming import Naming, is_late, late_name, name_of
from dflow.engine.options import Delays, FlowOptions, Hooks, Name, changed
from dflow.engine.parameters import Validator
from dflow.engine.roots import root_info
from dflow.engine.signals import noting_interrupts
from dflow.errors import CancelledError, MissingResult, NotResumable
from dflow.ports import RunEntry

Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Called:
    """A call of a flow: its run, its arguments, the futures to wait for, and whether its state is wanted.

    A subflow has a `keeper` and a `parent_id`, a run that is taken up again an `entry`, one that goes on
    beside its caller a `handle`.
    """

    flow: FlowInfo
    arguments: Arguments
    wait_for: Any = None
    return_state: bool = False
    entry: RunEntry | None = None
    handle: FlowRunHandle[Any] | None = None
    keeper: Keeper | None = None
    parent_id: str = ""


class Flow(Defined[P, R_co, FlowOptions]):
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

    what = "flow"
    dashes = True

    def __init__(self, fn: Callable[P, R_co], options: FlowOptions) -> None:
        super().__init__(fn, options)
        what = f"flow '{self.name}'"
        self._options = callbacks.checked(options, what)
        self.callbacks = callbacks.callbacks_of(self, self._options)
        self._policy = definitions.policy(
            what,
            options.retries,
            options.retry_delay_seconds,
            timeout_seconds=options.timeout_seconds,
        )
        self._results = definitions.results(
            what, options.persist_result, options.result_storage, options.result_serializer
        )
        self._naming = Naming.of(what, "flow_run_name", options.flow_run_name, self.function)
        self._validator = Validator(what, self.function, self._signature)

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

    def _call(self, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        called = self._called(args, given)
        steps = self._run(called)
        return as_called(self.kind, steps, whole=called.return_state)

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

    def resume(self, run: str) -> R_co:
        """Resume one of this flow's runs, named by its id, a unique start of it, its name or ``latest``.

        The function runs again from its top, with the parameters that were recorded; task runs that have
        completed and whose results are kept return at once. An async flow is awaited. Raises
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
        entry = process.process().journal.catalog.find(run)
        if entry.flow_name != self.name:
            raise NotResumable(
                f"Run '{entry.name}' is of flow '{entry.flow_name}', not of '{self.name}'."
            )
        args, kwargs = details.arguments_of(entry.details)
        called = _Called(
            flow=self._root_info(entry.id, entry.name),
            arguments=calls.bind(self.function, self._signature, args, kwargs),
            entry=entry,
        )
        return cast(R_co, as_called(self.kind, self._run(called)))

    # What was called ------------------------------------------------------------------------------------

    def _called(self, args: Any, given: dict[str, Any]) -> _Called:
        return_state, wait_for = given.pop("return_state", False), given.pop("wait_for", None)
        inside = current() is not None
        if not inside:
            check_guard(self.name, calls.called(self.function))
        arguments = self._arguments(args, given)
        called = partial(_Called, arguments=arguments, wait_for=wait_for, return_state=return_state)
        if not inside:
            ids = process.process().ids
            run_id = ids.run_id()
            name = name_of(self._naming, arguments, ids.run_name())
            return called(flow=self._root_info(run_id, name))
        scope = current_scope()
        keeper = current_keeper()
        sent = calls.referred(scope, arguments).sent
        run_id, number = scope.identify(self.name, ("flow", *sent))
        family = keeper.family(scope.flow_run_id)
        info = replace(
            family,
            flow_run_id=run_id,
            flow_run_name=name_of(self._naming, arguments, number),
            flow_name=self.name,
            parent_flow_run_id=scope.flow_run_id,
            generation=1,
            tags=around(),
            log_prints=prints_here(self._options.log_prints),
            keeping=family.keeping and self._results.over(family.keeping),
        )
        return called(flow=info, keeper=keeper, parent_id=scope.parent_id)

    async def _renamed(self, called: _Called) -> _Called:
        """Return a call whose run has a name that is made of values for which it had to wait."""
        other, native = called.flow.flow_run_name, self.kind.native
        name = await late_name(self._naming, called.arguments, other, native=native)
        if called.handle is not None:
            called.handle.name = name
        return replace(called, flow=replace(called.flow, flow_run_name=name))

    def _root_info(self, run_id: str, name: str) -> FlowInfo:
        return root_info(
            process.process().settings,
            run_id,
            name,
            self.name,
            tags=around(),
            log_prints=bool(self._options.log_prints),
            results=self._results,
        )

    # Running it -----------------------------------------------------------------------------------------

    async def _run(self, called: _Called) -> Any:
        """Run a call to its end; return its value or its state, or raise."""
        ended, ran = await self._ended(called)
        if called.return_state:
            return state_of(ended.status, lambda: flow_runs.outcome_of(self.name, ended))
        try:
            value = flow_runs.outcome_of(self.name, ended)
        except STOPS as error:
            raise Carried(error) from None
        if self.kind.hands_out and not ran:
            for item in value:  # of an earlier run
                await hand_out(item)
        return value

    def _run_beside(self, called: _Called) -> Ended:
        """Run a call in the thread of its handle, to its end."""
        whole = replace(called, return_state=True)
        make = partial(self._ended, whole)
        return (run_to_end(make) if self.kind.native else finished(make()))[0]

    async def _ended(self, called: _Called) -> tuple[Ended, bool]:
        """Return how a call ended, and whether its body ran now rather than in an earlier run."""
        if is_late(self._naming, called.arguments):
            called = await self._renamed(called)
        if called.keeper is None:
            return await self._run_root(called), True
        return await self._run_inside(called.keeper, called)

    async def _run_root(self, called: _Called) -> Ended:
        info, entry, native = called.flow, called.entry, self.kind.native
        arguments = await self._resolved(called.arguments, called.wait_for)
        root = process.RootRun(
            flow=info,
            runner=lambda: process.use(self._options.task_runner),
            policy=self._policy,
            details=details.describe(self.function, self._signature, arguments),
            taken_up=entry is not None,
        )
        with noting_interrupts(native=native) as stop, process.session(root) as session:
            session.hooks.add_flow(info.flow_run_id, self.callbacks)
            if entry is not None:
                session.check_unfinished()
            body = replace(
                self._body(called), arguments=arguments, interrupted=lambda: stop.happened
            )
            ended = await self._execute(LocalKeeper(session), called, body)
        run_logs.show_end(info.flow_run_name, self.name, ended.state_name, ended.message)
        return ended

    async def _run_inside(self, keeper: Keeper, called: _Called) -> tuple[Ended, bool]:
        opened = self._open(keeper, called)
        if opened.kept:
            run = opened.run
            with suppress(MissingResult):  # what is gone or damaged is computed again
                value = opened.load()
                return Ended(run.state_name, run.message, value, at=run.changed_at), False
        return await self._execute(keeper, called, self._body(called)), True

    def _open(self, keeper: Keeper, called: _Called) -> Opened:
        chosen = self._options.task_runner
        runner = None if chosen is None else lambda: process.use(chosen)
        return keeper.open(called.flow, called.parent_id, self._policy, runner, self.callbacks)

    def _body(self, called: _Called) -> Body:
        async def prepare(arguments: Arguments) -> Arguments:
            if called.handle is not None and called.handle.cancelled:
                raise CancelledError("It was cancelled before it began.")
            ready = await self._resolved(arguments, called.wait_for)
            return self._validator.validated(*ready) if self._options.validate_parameters else ready

        return Body(
            function=self.function,
            arguments=called.arguments,
            prepare=prepare,
            whole=called.return_state,
            timeout=self._policy.timeout,
        )

    async def _resolved(self, arguments: Arguments, wait_for: Any) -> Arguments:
        """Return arguments with values in the places of futures, once these are there."""
        await calls.until_final((arguments, wait_for), native=self.kind.native)
        calls.await_all(wait_for)
        return calls.values_of(arguments)

    async def _execute(self, keeper: Keeper, called: _Called, body: Body) -> Ended:
        handle = called.handle
        if handle and handle.begins(keeper) and isinstance(keeper, LocalKeeper):
            keeper.session.cancel_flow(called.flow.flow_run_id)
            keeper.session.hooks.tell_flow(called.flow)
            return Ended("Cancelled", "It was cancelled before it began.")
        return await flow_runs.execute(keeper, called.flow, body)


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
