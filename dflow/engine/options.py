"""What can be said of a task or a flow besides its function; the meanings are those of `task` and `flow`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from dflow.errors import DefinitionError
from dflow.results.policies import CachePolicy

Delays = float | Sequence[float] | Callable[[int], Sequence[float]] | None
Hooks = Callable[..., Any] | Iterable[Callable[..., Any]] | None
Name = str | Callable[..., str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options of a task."""

    name: str | None = None
    description: str | None = None
    tags: Iterable[str] | None = None
    version: str | None = None
    task_run_name: Name = None
    retries: int = 0
    retry_delay_seconds: Delays = 0
    retry_jitter_factor: float | None = None
    retry_condition_fn: Callable[..., Any] | None = None
    timeout_seconds: float | None = None
    cache_policy: CachePolicy | None = None
    cache_key_fn: Callable[..., Any] | None = None
    cache_expiration: timedelta | float | None = None
    refresh_cache: bool = False
    persist_result: bool | None = None
    result_storage: str | Path | None = None
    result_storage_key: str | None = None
    result_serializer: str | None = None
    log_prints: bool | None = None
    on_running: Hooks = None
    on_completion: Hooks = None
    on_failure: Hooks = None
    resources: Mapping[str, float] | None = None
    priority: int = 0
    workers: str | Iterable[str] | None = None
    batch: bool | None = None
    max_worker_losses: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """The options of a flow."""

    name: str | None = None
    description: str | None = None
    version: str | None = None
    flow_run_name: Name = None
    retries: int = 0
    retry_delay_seconds: Delays = 0
    task_runner: Any = None
    timeout_seconds: float | None = None
    validate_parameters: bool = True
    persist_result: bool | None = None
    result_storage: str | Path | None = None
    result_serializer: str | None = None
    log_prints: bool | None = None
    on_running: Hooks = None
    on_completion: Hooks = None
    on_failure: Hooks = None
    on_cancellation: Hooks = None
    on_crashed: Hooks = None


O = TypeVar("O", TaskOptions, FlowOptions)  # noqa: E741  (a kind of options)


def changed(options: O, changes: Mapping[str, Any], what: str) -> O:
    """Return options with some changed; None clears one. Raises `DefinitionError` for unknown names."""
    defaults = type(options)()
    known = type(options).__slots__
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise DefinitionError(
            f"{what} has no option '{unknown[0]}'. Its options are: {', '.join(known)}."
        )
    cleared = {
        name: getattr(defaults, name) if value is None else value for name, value in changes.items()
    }
    return replace(options, **cleared)
