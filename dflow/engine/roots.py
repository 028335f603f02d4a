"""What is known of a root flow run before it begins: from the settings, and from whoever starts it."""

from __future__ import annotations

from dflow.attempts.context import FlowInfo
from dflow.core.values import UNSAID, ResultOptions
from dflow.engine.persisting import keeping_of
from dflow.settings import Settings

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def root_info(
    settings: Settings,
    run_id: str,
    name: str,
    flow_name: str,
    *,
    tags: tuple[str, ...] = (),
    log_prints: bool = False,
    results: ResultOptions = UNSAID,
) -> FlowInfo:
    """Return what the body of a root flow run knows of it."""
    return FlowInfo(
        flow_run_id=run_id,
        flow_run_name=name,
        flow_name=flow_name,
        root_id=run_id,
        generation=1,
        tags=tags,
        log_prints=log_prints,
        log_level=LEVELS[settings.log_level],
        extra_loggers=settings.extra_loggers,
        checkpoints=str(settings.home / "checkpoints" / run_id),
        keeping=results.over(keeping_of(settings, run_id)),
    )
