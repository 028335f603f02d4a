"""The run logger: what a flow or a task says goes to its driver, and there into the journal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from dflow.attempts import clock
from dflow.attempts.context import RunContext, spoken_for
from dflow.attempts.prints import captured, uncaptured
from dflow.errors import NoRunError
from dflow.messages import AttemptInfo, LogEntry, Printed

LOGGER = "dflow.run"
"""The name under which the lines of run loggers are recorded."""
MAX_MESSAGE = 20_000
"""How many characters of one log line are kept."""

_formatter = logging.Formatter()
_log = logging.getLogger("dflow.attempts")


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that belongs to one run, in whatever thread it is used.

    It says what is of the level of its run or above; `setLevel` can only make it say less.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__(_logger, {"dflow_run": context})
        self._level = context.info.log_level

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Add the run to the record, beside what the caller adds."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  (of the standard library)
        """Tell whether lines of this level are said."""
        return level >= self._level and super().isEnabledFor(level)

    def getEffectiveLevel(self) -> int:  # noqa: N802  (of the standard library)
        """Return the level from which on lines are said."""
        return self._level

    def setLevel(self, level: int | str) -> None:  # noqa: N802  (of the standard library)
        """Let this logger say only what is of this level or above."""
        number = logging.getLevelName(level) if isinstance(level, str) else level
        if not isinstance(number, int):
            raise ValueError(f"There is no level '{level}'. Use DEBUG, INFO, WARNING or ERROR.")
        self._level = max(self._level, number)


class _ToRun(logging.Handler):
    """Sends records to the run that they belong to."""

    def emit(self, record: logging.LogRecord) -> None:
        relay(record.__dict__["dflow_run"], record)


_logger = logging.Logger(LOGGER, level=1)  # noqa: LOG001  (on purpose, see below)
"""In no tree of loggers: what a program, or its tests, set up for all loggers does not reach it."""
_logger.addHandler(_ToRun())


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
            "There is no current run to log for. Call get_run_logger() inside a flow or a task; a thread "
            "of your own belongs to its run when it is given current_run().bind(function) to run. "
            "Elsewhere use logging.getLogger(__name__)."
        )
    return RunLogger(context)


def relay(context: RunContext, record: logging.LogRecord, *, shown: bool = False) -> None:
    """Send a record as a log line of a run. Whatever goes wrong, the body that logs goes on.

    `shown` says that people have seen it in the driver's log already.
    """
    text = _text_of(record)
    try:
        say(context, record.levelno, text, record.name, record.created, shown=shown)
    except Exception as error:
        _log.warning("A log line could not be sent to its run (%s). It said: %s", error, text)


def _text_of(record: logging.LogRecord) -> str:
    """Return what a record says, with its traceback; or its parts, where they do not go together."""
    try:
        return _formatter.format(record)
    except Exception as error:
        parts = f"{_shown(record.msg)} {_shown(record.args)}" if record.args else _shown(record.msg)
        return f"{parts} (this line could not be put together: {_shown(error)})"


def _shown(thing: Any) -> str:
    if isinstance(thing, str):
        return thing
    if isinstance(thing, tuple):
        return f"({', '.join(map(_shown, thing))})"
    try:
        return repr(thing)
    except Exception:
        return f"<{type(thing).__qualname__}, which has no readable form>"


def prints_of(context: RunContext) -> AbstractContextManager[None]:
    """Let what a body prints become log lines of its run, if the run is to do so.

    Otherwise it goes where prints go; from another process, to those of the driver.
    """
    if context.info.log_prints:
        return captured(_saying(context))
    if context.link.far:
        return captured(lambda line: context.link.send(Printed(line)))
    return uncaptured()


def _saying(context: RunContext) -> Callable[[str], None]:
    return lambda line: say(context, logging.INFO, line)


def say(
    context: RunContext,
    level: int,
    message: str,
    logger: str = LOGGER,
    at: float | None = None,
    *,
    shown: bool = False,
) -> None:
    """Send one log line of a run to its driver, if it is of the level of its run or above."""
    if level < context.info.log_level:
        return
    context.link.send(
        LogEntry(
            at=clock.now() if at is None else at,
            flow_run_id=context.info.flow_run_id,
            task_run_id=context.task_run_id,
            attempt=context.attempt if isinstance(context.info, AttemptInfo) else 0,
            level=level,
            logger=logger,
            message=_kept(message),
            worker=context.worker,
            shown=shown,
        )
    )


def _kept(message: str) -> str:
    """Return a message that a journal can keep: not endless, and nothing that is no character."""
    if len(message) > MAX_MESSAGE:
        note = f" … ({len(message):,} characters)"
        message = message[: MAX_MESSAGE - len(note)] + note
    try:
        message.encode()
    except UnicodeEncodeError:  # half a character, as in names of files that are not in UTF-8
        return message.encode(errors="backslashreplace").decode()
    return message
