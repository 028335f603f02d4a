"""The run logger: what a flow or a task says goes to its driver, and there into the journal."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

from dflow.attempts import clock
from dflow.attempts.context import RunContext, current, spoken_for
from dflow.attempts.prints import captured, uncaptured
from dflow.errors import NoRunError
from dflow.messages import AttemptInfo, LogEntry

LOGGER = "dflow.run"
"""The name of the logger whose records become log lines of the run that writes them."""
MAX_MESSAGE = 20_000
"""How many characters of one log line are kept."""


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that belongs to one run, in whatever thread it is used."""

    def __init__(self, context: RunContext) -> None:
        super().__init__(logging.getLogger(LOGGER), {"dflow_run": context})

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Add the run to the record, beside what the caller adds."""
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


class _ToRun(logging.Handler):
    """Sends records to the run that they belong to."""

    def emit(self, record: logging.LogRecord) -> None:
        context = getattr(record, "dflow_run", None) or current()
        if context is None:
            return
        try:
            say(context, record.levelno, self.format(record), record.name, record.created)
        except Exception:
            self.handleError(record)


def get_run_logger() -> RunLogger:
    """Return the logger of the current flow run or task run, in a hook that of the run it is told of.

    Its lines go to the journal, with the run, the attempt and the worker, and to the driver's log.
    Raises `NoRunError` outside of a run.

    >>> from dflow import task
    >>> @task
    ... def load(rows: int) -> int:
    ...     get_run_logger().info("%s rows", rows)
    ...     return rows
    >>> load(5)
    5
    """
    context = spoken_for()
    if context is None:
        raise NoRunError(
            "There is no current run to log for. Call get_run_logger() inside a flow or a task; "
            "elsewhere use logging.getLogger(__name__)."
        )
    _prepare(context.info.log_level)
    return RunLogger(context)


def _prepare(level: int) -> None:
    """Let the run logger send to runs, and to nobody else; the driver shows the lines itself."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler, _ToRun) for handler in logger.handlers):
        logger.addHandler(_ToRun())
        logger.propagate = False
    logger.setLevel(level)


def prints_of(context: RunContext) -> AbstractContextManager[None]:
    """Let what a body prints become log lines of its run, if the run is to do so."""
    if not context.info.log_prints:
        return uncaptured()
    return captured(lambda line: say(context, logging.INFO, line))


def say(
    context: RunContext, level: int, message: str, logger: str = LOGGER, at: float | None = None
) -> None:
    """Send one log line of a run to its driver."""
    context.link.send(
        LogEntry(
            at=clock.now() if at is None else at,
            flow_run_id=context.info.flow_run_id,
            task_run_id=context.task_run_id,
            attempt=context.attempt if isinstance(context.info, AttemptInfo) else 0,
            level=level,
            logger=logger,
            message=message[:MAX_MESSAGE],
            worker=context.worker,
        )
    )
