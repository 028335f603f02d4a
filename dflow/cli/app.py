"""The command line as a whole: its commands, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from cyclopts import App, CycloptsError

from dflow.cli import exits, streams
from dflow.cli.clean import clean
from dflow.cli.demo import demo
from dflow.cli.doctor import doctor, version
from dflow.cli.export import export
from dflow.cli.logs import logs
from dflow.cli.ls import ls
from dflow.cli.rerun import rerun
from dflow.cli.resume import resume
from dflow.cli.run import run
from dflow.cli.show import show
from dflow.errors import DflowError, InternalError

app = App(
    name="dflow",
    help="Durable workflows on Dask: run flows, look at what is recorded of them, resume them.",
    help_format="plaintext",
    version=lambda: f"dflow {version('dflow-dask')}",
)
app.command(run, help_flags=())
for command in (ls, show, logs, export, resume, rerun, clean, doctor, demo):
    app.command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, those of this process by default, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(tokens)
        sys.stdout.flush()
    except KeyboardInterrupt:
        streams.say("Interrupted.")
        return exits.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    return code


def _run(tokens: list[str]) -> int:
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        known = tokens[0] if tokens and tokens[0] in app else ""
        streams.complain(str(error), f"See: {' '.join(['dflow', known]).rstrip()} --help")
        return exits.WRONG_USAGE
    try:
        return command(*bound.args, **bound.kwargs) or exits.COMPLETED
    except DflowError as error:
        streams.complain(str(error))
        return exits.FAILED if isinstance(error, InternalError) else exits.WRONG_USAGE
