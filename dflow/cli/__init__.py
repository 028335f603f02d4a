"""The ``dflow`` command: runs flows, shows what is recorded of them, and resumes them.

`main` is the command; each command is a small file of its own, `app` puts them together. This room prints
and parses: what it knows of runs comes from `dflow.runs`, what it drives goes through the flow itself.

Exit codes::

    0      it completed, or was shown
    1      a run failed, or ``dflow doctor`` found something
    2      wrong usage: an unknown command, parameter, flow or run, a file or a journal that cannot be read
    130    interrupted, by Ctrl-C or SIGTERM

Data goes to standard output, progress and messages go to standard error.
"""

from dflow.cli.app import main

__all__ = ["main"]
