"""The scope of the code that runs now: of a flow, of a task, on a worker, or outside of everything."""

from __future__ import annotations

from dflow.attempts.context import RunContext, current
from dflow.engine import calls, process
from dflow.engine.driver_scope import DriverScope
from dflow.engine.keeping import Keeper, LocalKeeper
from dflow.engine.links import LocalLink
from dflow.engine.remote import RemoteScope
from dflow.engine.remote_flows import RemoteKeeper
from dflow.engine.scope import Scope
from dflow.errors import NoRunError


def current_scope() -> Scope:
    """Return the scope in which a task that is called now is asked for."""
    context = current()
    if context is None:
        return process.ambient_scope()
    scope: Scope | None = context.notes.get("scope")
    if scope is None:
        # Threads of one body may come here at once: all get the same scope, which counts their calls.
        scope = context.notes.setdefault("scope", _made_for(context))
        context.notes["resolve"] = calls.resolved
    return scope


def current_keeper() -> Keeper:
    """Return what keeps the record of a flow that is called now, in a run. Raises `NoRunError`."""
    context = current()
    if context is None:
        raise NoRunError("There is no current run.")
    return keeper_in(context)


def keeper_in(context: RunContext) -> Keeper:
    """Return what keeps the record of flow runs for a body."""
    if isinstance(context.link, LocalLink):
        return LocalKeeper(context.link.session)
    return RemoteKeeper(context)


def _made_for(context: RunContext) -> Scope:
    if not isinstance(context.link, LocalLink):
        return RemoteScope(context)
    session, flow_run_id = context.link.session, context.info.flow_run_id
    return DriverScope(
        session,
        flow_run_id,
        context.run_id,
        lambda: session.open_runner(flow_run_id),
        context.execution,
    )
