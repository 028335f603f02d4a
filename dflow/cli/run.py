"""``dflow run``: runs a flow that a file or a module defines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import BoundArguments
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from dflow import entrypoints
from dflow.cli import exits, streams, whole_numbers
from dflow.engine.defined import to_the_end
from dflow.errors import DefinitionError
from dflow.flows import Flow

Raw = Annotated[str, Parameter(allow_leading_hyphen=True)]


def run(target: Raw, /, *parameters: Raw) -> int:
    """Run a flow, show how it goes, and print what it returns.

    `dflow run FILE.py:FLOW --help` lists the parameters of the flow.

    Args:
        target: FILE.py:FLOW or package.module:FLOW; without :FLOW the only one that is there
        parameters: the parameters of the flow, as: --name value
    """
    if target in ("--help", "-h"):
        App(name="dflow run", default_command=run, help_format="plaintext").help_print([])
        return exits.COMPLETED
    flow = entrypoints.load(target)
    try:
        bound = parse(flow, target, parameters)
    except CycloptsError as error:
        streams.complain(str(error), f"Its parameters: dflow run {target} --help")
        return exits.WRONG_USAGE
    if bound is None:
        return exits.COMPLETED
    from dflow.cli import driving  # lazy: commands that only look need no progress

    return driving.drive(lambda: to_the_end(flow.kind, flow(*bound.args, **bound.kwargs)))


def parse(flow: Flow[Any, Any], target: str, tokens: Sequence[str]) -> BoundArguments | None:
    """Return the arguments for a flow, or None after its help was asked for and printed.

    Raises a CycloptsError for what does not fit the signature.
    """
    return parsed(flow, lambda function: function, f"dflow run {target}", tokens)


def parsed(
    flow: Flow[Any, Any],
    stand_in: Callable[[Callable[..., Any]], Callable[..., Any]],
    name: str,
    tokens: Sequence[str],
) -> BoundArguments | None:
    """Return the arguments for what stands for the flow's function on the command line, as `parse` does."""
    try:
        function = stand_in(flow.fn)
        app = App(
            name=name,
            default_command=function,
            help_format="plaintext",
            version_flags=(),
            config=whole_numbers.keep,
        )
        command, bound, _ = app.parse_args(list(tokens), exit_on_error=False, print_error=False)
    except (CycloptsError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise DefinitionError(
            f"The parameters of flow '{flow.name}' cannot be given on the command line: {error}. "
            "Call it from Python, or annotate them with types such as int, float, str, bool or list[str]."
        ) from error
    if command is function:
        return bound
    command(*bound.args, **bound.kwargs)
    return None
