"""Runners by name: dflow imports none of them.

Its own are known by the names in `BUILT_IN`, those of others by the entry-point group `GROUP`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from dflow.errors import DefinitionError
from dflow.ports import TaskRunner

GROUP = "dflow.task_runners"
"""The entry-point group under which other packages offer runners."""

BUILT_IN = {
    "dask-in-process": ("task_runners.dask", "in_process"),
    "dask": ("task_runners", "DaskTaskRunner"),
    "threads": ("task_runners", "ThreadPoolTaskRunner"),
    "inline": ("task_runners", "InlineTaskRunner"),
}


def resolve(runner: Any) -> TaskRunner:
    """Return the runner that an instance, a class or a name speaks of.

    Raises `DefinitionError` for anything else, and for a name that nobody offers.
    """
    made = runner
    if isinstance(runner, str):
        made = _by_name(runner)()
    elif isinstance(runner, type):
        made = runner()
    if not callable(getattr(made, "open", None)) or not callable(getattr(made, "shutdown", None)):
        raise DefinitionError(
            f"task_runner={runner!r} is not a task runner. "
            f"Use an instance, a class, or one of: {', '.join(_names())}."
        )
    chosen: TaskRunner = made
    return chosen


def _by_name(name: str) -> Any:
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        return getattr(importlib.import_module(module), attribute)
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    raise DefinitionError(f"There is no task runner '{name}'. There are: {', '.join(_names())}.")


def _names() -> list[str]:
    return [*BUILT_IN, *sorted(entry.name for entry in entry_points(group=GROUP))]
