"""Futures of task runs and flow runs, and how to wait for them: the public names of what the engine has."""

from __future__ import annotations

from dflow.engine.future_lists import TaskFutureList
from dflow.engine.futures import TaskFuture, as_completed, wait
from dflow.engine.handles import FlowRunHandle

__all__ = ["FlowRunHandle", "TaskFuture", "TaskFutureList", "as_completed", "wait"]
