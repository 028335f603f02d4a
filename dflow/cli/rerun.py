"""``dflow rerun``: runs a recorded run again, all of it or from a task on, or with other parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_type_hints

from cyclopts import CycloptsError, Parameter

from dflow import runs
from dflow.cli import exits, streams
from dflow.cli.options import Flag
from dflow.cli.run import Raw, parsed
from dflow.flows import Flow

From = Annotated[str | None, Parameter("--from")]


def rerun(
    run: str, /, *parameters: Raw, from_task: From = None, failed: Flag = False, new: Flag = False
) -> int:
    """Run a recorded run again.

    Without options all its task runs run again, in the same run, whether it has completed or not. With --from
    or --failed what comes before is reused. With parameters of its flow it is a run of its own, with these
    and otherwise the recorded ones, linked to the old run. One whose driver lives is refused.

    Args:
        run: an id, the start of one, a name, or latest
        parameters: parameters of the flow that are to be others, as: --name value
        from_task: a task, or one task run, by its name: that runs again, and what follows from it
        failed: only what has not completed runs again
        new: make a run of its own, in which all is done by the code of today
    """
    listed = runs.find(run)
    given: dict[str, Any] = {}
    if parameters:
        flow = runs.flow_of(listed)
        try:
            given = _changed(flow, f"dflow rerun {run}", parameters)
        except CycloptsError as error:
            streams.complain(str(error), f"Its parameters are: {inspect.signature(flow.fn)}")
            return exits.WRONG_USAGE
    from dflow.cli import driving  # lazy: commands that only look need no progress

    return driving.drive(
        lambda: runs.rerun(listed.entry.id, from_task=from_task, failed=failed, new=new, **given)
    )


def _changed(flow: Flow[Any, Any], name: str, tokens: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that are given, by name. Raises a CycloptsError for what does not fit."""
    bound = parsed(flow, _optional, name, tokens)
    return {} if bound is None else dict(bound.arguments)


def _optional(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what has the parameters of a function, none of which must be given. It is never called."""

    @functools.wraps(function)
    def optional(*args: Any, **kwargs: Any) -> None:
        """Stand for the function on the command line."""

    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    made = [_may_be_left(each, hints) for each in signature.parameters.values()]
    optional.__annotations__ = {each.name: each.annotation for each in made}
    optional.__signature__ = signature.replace(parameters=made)  # type: ignore[attr-defined]  # `inspect` reads it
    return optional


def _may_be_left(parameter: inspect.Parameter, hints: dict[str, Any]) -> inspect.Parameter:
    """Return a parameter that may be left out; a default must fit its annotation, too."""
    default: Any = None if parameter.default is parameter.empty else parameter.default
    inferred: Any = Any if default is None else type(default)  # as for `dflow run`
    hint = hints.get(parameter.name, inferred)
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return parameter.replace(annotation=hint)
    return parameter.replace(annotation=hint | None, default=None)
