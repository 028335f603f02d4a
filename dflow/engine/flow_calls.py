"""From a call of a flow to its run: a root with a session of its own, or a subflow in the run around it.

This is what a flow does; its public face, with all that is said to users, is `dflow.flows.Flow`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from dflow.attempts.context import FlowInfo, current, prints_here
from dflow.attempts.scripts import check_guard
from dflow.attempts.stepping import STOPS, Carried, finished, hand_out, run_to_end
from dflow.attempts.tagging import around
from dflow.core.records import Upstream
from dflow.engine import (
    callbacks,
    calls,
    definitions,
    details,
    flow_runs,
    process,
    run_logs,
    taking_up,
)
from dflow.engine.context import current_keeper, current_scope
from dflow.engine.defined import Defined, P, R_co, as_called
from dflow.engine.flow_ends import Ended, outcome_of
from dflow.engine.flow_runs import Arguments, Body
from dflow.engine.futures import state_of
from dflow.engine.handles import FlowRunHandle
from dflow.engine.keeping import Keeper, LocalKeeper, Opened
from dflow.engine.naming import Naming, is_late, late_name, name_of
from dflow.engine.options import FlowOptions
from dflow.engine.parameters import Validator
from dflow.engine.recorded import ChosenRunner
from dflow.engine.renewal import Again
from dflow.engine.roots import root_info
from dflow.engine.signals import noting_interrupts
from dflow.errors import CancelledError, MissingResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A call of a flow: its run, its arguments, the futures to wait for, and whether its state is wanted.

    A subflow has a `keeper`, a `parent_id`, and as `upstreams` those whose values are among its arguments. A
    run that is taken up `again` says how, and knows the `runner` with which it began. One that goes on beside
    its caller has a `handle`.
    """

    flow: FlowInfo
    arguments: Arguments
    wait_for: Any = None
    return_state: bool = False
    again: Again | None = None
    runner: ChosenRunner | None = None
    rerun_of: str | None = None
    handle: FlowRunHandle[Any] | None = None
    keeper: Keeper | None = None
    parent_id: str = ""
    upstreams: tuple[Upstream, ...] = ()


class FlowBase(Defined[P, R_co, FlowOptions]):
    """A flow without its public face."""

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

    def _call(self, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        called = self._called(args, given)
        steps = self._run(called)
        return as_called(self.kind, steps, whole=called.return_state)

    # Taking up a recorded run ---------------------------------------------------------------------------

    def _run_anew(self, found: taking_up.Recorded, parameters: dict[str, Any]) -> R_co:
        """Run a recorded call again, as a run of its own."""
        args, kwargs = taking_up.changed(found.arguments, parameters)
        called = replace(
            self._new_root(self._binder.bind(args, kwargs)),
            rerun_of=found.entry.id,
            runner=found.runner,
        )
        return cast(R_co, as_called(self.kind, self._run(called)))

    def _take_up(self, found: taking_up.Recorded, again: Again) -> R_co:
        called = Called(
            flow=self._root_info(found.entry.id, found.entry.name),
            arguments=calls.bind(self.function, self._signature, *found.arguments),
            again=again,
            runner=found.runner,
        )
        return cast(R_co, as_called(self.kind, self._run(called)))

    # What was called ------------------------------------------------------------------------------------

    def _called(self, args: Any, given: dict[str, Any]) -> Called:
        return_state, wait_for = given.pop("return_state", False), given.pop("wait_for", None)
        inside = current() is not None
        if not inside:
            check_guard(self.name, calls.called(self.function))
        arguments = self._arguments(args, given)
        if not inside:
            made = self._new_root(arguments)
            return replace(made, wait_for=wait_for, return_state=return_state)
        scope = current_scope()
        keeper = current_keeper()
        found = calls.referred(scope, arguments)
        run_id, number = scope.identify(self.name, ("flow", *found.sent), self._known_as)
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
        return Called(
            flow=info,
            arguments=arguments,
            wait_for=wait_for,
            return_state=return_state,
            keeper=keeper,
            parent_id=scope.parent_id,
            upstreams=found.upstreams,
        )

    def _new_root(self, arguments: Arguments) -> Called:
        ids = process.process().ids
        run_id = ids.run_id()
        name = name_of(self._naming, arguments, ids.run_name())
        return Called(flow=self._root_info(run_id, name), arguments=arguments)

    async def _renamed(self, called: Called) -> Called:
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

    async def _run(self, called: Called) -> Any:
        """Run a call to its end; return its value or its state, or raise."""
        ended, ran = await self._ended(called)
        if called.return_state:
            return state_of(ended.status, lambda: outcome_of(self.name, ended))
        try:
            value = outcome_of(self.name, ended)
        except STOPS as error:
            raise Carried(error) from None
        if self.kind.hands_out and not ran:
            for item in value:  # of an earlier run
                await hand_out(item)
        return value

    def _run_beside(self, called: Called) -> Ended:
        """Run a call in the thread of its handle, to its end."""
        whole = replace(called, return_state=True)
        make = partial(self._ended, whole)
        return (run_to_end(make) if self.kind.native else finished(make()))[0]

    async def _ended(self, called: Called) -> tuple[Ended, bool]:
        """Return how a call ended, and whether its body ran now rather than in an earlier run."""
        if is_late(self._naming, called.arguments):
            called = await self._renamed(called)
        if called.keeper is None:
            return await self._run_root(called), True
        return await self._run_inside(called.keeper, called)

    async def _run_root(self, called: Called) -> Ended:
        info, native = called.flow, self.kind.native
        arguments = await self._resolved(called.arguments, called.wait_for)
        own, recorded = self._options.task_runner, called.runner
        described = details.describe(
            self, arguments, process.process().settings, info.flow_run_id, called.rerun_of
        )
        root = process.RootRun(
            flow=info,
            runner=lambda: process.use(own if recorded is None else recorded.choose()),
            policy=self._policy,
            details=described,
            again=called.again,
            check=taking_up.check,
        )
        with noting_interrupts(native=native) as stop, process.session(root) as session:
            session.hooks.add_flow(info.flow_run_id, self.callbacks)
            taking_up.say_at_start(session, self, described)
            body = replace(
                self._body(called), arguments=arguments, interrupted=lambda: stop.happened
            )
            with taking_up.saying_how_to_resume(session, self, described):
                ended = await self._execute(LocalKeeper(session), called, body)
        run_logs.show_end(info.flow_run_name, self.name, ended.state_name, ended.message)
        return ended

    async def _run_inside(self, keeper: Keeper, called: Called) -> tuple[Ended, bool]:
        opened = self._open(keeper, called)
        if opened.kept:
            run = opened.run
            with suppress(MissingResult):  # what is gone or damaged is computed again
                value = opened.load()
                return Ended(run.state_name, run.message, value, at=run.changed_at), False
        return await self._execute(keeper, called, self._body(called)), True

    def _open(self, keeper: Keeper, called: Called) -> Opened:
        chosen = self._options.task_runner
        runner = None if chosen is None else lambda: process.use(chosen)
        return keeper.open(
            called.flow,
            called.parent_id,
            self._policy,
            runner,
            self.callbacks,
            called.upstreams,
        )

    def _body(self, called: Called) -> Body:
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

    async def _execute(self, keeper: Keeper, called: Called, body: Body) -> Ended:
        handle = called.handle
        if handle and handle.begins(keeper) and isinstance(keeper, LocalKeeper):
            keeper.session.cancel_flow(called.flow.flow_run_id)
            keeper.session.hooks.tell_flow(called.flow)
            return Ended("Cancelled", "It was cancelled before it began.")
        return await flow_runs.execute(keeper, called.flow, body)
