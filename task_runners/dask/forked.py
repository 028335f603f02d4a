"""Loaded by the process of which worker processes are forks, before there are any: what they all need.

That process is multiprocessing's fork server. It does nothing but wait and fork, and has loaded nothing of
the user's: each fork loads the script by itself, as a process that is spawned does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os

ORDERS = "DFLOW_FORKED"
"""The variable with what to do here: the environment to put back, and what to load."""


def obey(orders: str) -> None:
    """Put the environment back as it was before this process was started, and load modules."""
    del os.environ[ORDERS]
    given = json.loads(orders)
    for name, value in given["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for name in given["modules"]:
        with contextlib.suppress(Exception):  # its forks load it then, and say what is wrong
            importlib.import_module(name)


if ORDERS in os.environ:
    obey(os.environ[ORDERS])
