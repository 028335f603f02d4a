"""``dflow rerun``: runs a recorded run again, all of it or from a task on, or with other parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

from cyclopts import App, CycloptsError, Parameter, Token

from dflow import runs
from dflow.cli import exits, streams
from dflow.cli.options import Flag
from dflow.cli.run import Raw, parsed
from dflow.engine import taking_up
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
            recorded = taking_up.look_up(flow, listed.entry.id).arguments[1]
            given = _changed(flow, recorded, f"dflow rerun {run}", parameters)
        except CycloptsError as error:
            streams.complain(str(error), f"Its parameters are: {inspect.signature(flow.fn)}")
            return exits.WRONG_USAGE
    from dflow.cli import driving  # lazy: commands that only look need no progress

    return driving.drive(
        lambda: runs.rerun(listed.entry.id, from_task=from_task, failed=failed, new=new, **given)
    )


def _changed(
    flow: Flow[Any, Any], recorded: Mapping[str, Any], name: str, tokens: Sequence[str]
) -> dict[str, Any]:
    """Return the parameters that are given, by name. Raises a CycloptsError for what does not fit."""
    bound = parsed(flow, partial(_optional, recorded=recorded), name, tokens)
    return {} if bound is None else dict(bound.arguments)


def _optional(function: Callable[..., Any], recorded: Mapping[str, Any]) -> Callable[..., Any]:
    """Return what has the parameters of a function, none of which must be given. It is never called."""
    made = [
        _may_be_left(each, _hint(function, each, recorded))
        for each in inspect.signature(function).parameters.values()
    ]
    return _standing_for(function, made)


def _standing_for(
    function: Callable[..., Any], parameters: Sequence[inspect.Parameter]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def stand_in(*args: Any, **kwargs: Any) -> None:
        """Stand for the function on the command line."""

    stand_in.__annotations__ = {each.name: each.annotation for each in parameters}
    stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # `inspect` reads it
    return stand_in


def _may_be_left(parameter: inspect.Parameter, hint: Any) -> inspect.Parameter:
    """Return a parameter that may be left out; a default must fit its annotation, too.

    One of a kind that the command line does not know stays as it was recorded.
    """
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return parameter.replace(annotation=hint)
    made = parameter.replace(annotation=hint | None, default=None)
    try:
        App(default_command=_standing_for(_nothing, [made]), version_flags=()).parse_args(
            [], exit_on_error=False, print_error=False
        )
    except Exception:
        return made.replace(annotation=Annotated[Any, Parameter(converter=_refuse)])
    return made


def _nothing() -> None:
    """Have a name."""


def _refuse(_kind: Any, _tokens: Sequence[Token]) -> Any:
    raise ValueError(
        "its type cannot be given on the command line; call rerun() of the flow from Python"
    )


def _hint(
    function: Callable[..., Any], parameter: inspect.Parameter, recorded: Mapping[str, Any]
) -> Any:
    """Return the type of a parameter; without one that can be read, that of its recorded value."""
    if parameter.annotation is not inspect.Parameter.empty:
        told = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        names = getattr(inspect.unwrap(function), "__globals__", {})
        try:
            return get_type_hints(told, names, include_extras=True)[parameter.name]
        except (NameError, AttributeError):  # of names that only type checkers import
            pass
    return _LIKE.get(type(recorded.get(parameter.name)), Any)


_LIKE: dict[type, Any] = {bool: bool, int: int | float, float: float, str: str}
"""What a value on the command line is read as in place of a recorded one, where nothing else says it."""
