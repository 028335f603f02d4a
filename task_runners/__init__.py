"""Where attempts run: in the calling thread, in threads of this process, or on Dask.

Importing this package loads no cluster framework: each runner is loaded when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from task_runners.dask.runner import DaskTaskRunner
    from task_runners.inline import InlineTaskRunner
    from task_runners.threads import ThreadPoolTaskRunner

__all__ = ["DaskTaskRunner", "InlineTaskRunner", "ThreadPoolTaskRunner"]

_HOMES = {
    "DaskTaskRunner": "task_runners.dask.runner",
    "InlineTaskRunner": "task_runners.inline",
    "ThreadPoolTaskRunner": "task_runners.threads",
}


if not TYPE_CHECKING:  # or type checkers would believe that this package has every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'task_runners' has no attribute '{name}'")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
