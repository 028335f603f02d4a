"""Futures of task runs, and how to wait for them: the public names, from where the engine has them."""

from __future__ import annotations

from dflow.engine.future_lists import TaskFutureList
from dflow.engine.futures import TaskFuture, as_completed, wait

__all__ = ["TaskFuture", "TaskFutureList", "as_completed", "wait"]
