"""``dflow demo``: the example with the digits, on worker processes."""

from __future__ import annotations

import importlib
from typing import Annotated

from cyclopts import Parameter, validators

from dflow import entrypoints
from dflow.cli import streams
from dflow.engine import runners

EXAMPLE = "dflow.examples.digits"


def demo(*, workers: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 2) -> int:
    """Find out which model reads handwritten digits best, on worker processes of this machine.

    Args:
        workers: how many worker processes, of one thread each
    """
    flow = entrypoints.load(f"{EXAMPLE}:digits")
    module, name = runners.BUILT_IN["dask"]
    runner = getattr(importlib.import_module(module), name)(
        cluster_kwargs={"n_workers": workers, "threads_per_worker": 1}
    )
    streams.say(f"Which model reads handwritten digits best? {workers} worker processes find out.")
    from dflow.cli import driving  # lazy: commands that only look need no progress

    return driving.drive(flow.with_options(task_runner=runner), _closing)


def _closing(name: str) -> str:
    return f"Look at it with:\n\n  dflow ls\n  dflow show {name}\n  dflow logs {name}\n"
