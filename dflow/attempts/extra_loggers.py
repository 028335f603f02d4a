"""Extra loggers: what chosen loggers of the standard library say inside of a run becomes log lines of it.

No handler is added to them, and nobody's is taken away: code that looks for handlers finds those of its
program. Instead records are looked at where loggers hand them to handlers, and go on from there. Outside of
a run, and in threads that belong to none, everything is as ever; a level that was lowered for a run holds
only inside.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dflow.attempts.context import RunContext, current
from dflow.attempts.logs import relay

OURS = "dflow"
"""The loggers of dflow itself are never extra: they speak of runs, not in them."""
SHOWN = "dflow.runs"
"""The logger on which a driver shows the lines of its runs."""

_lock = threading.Lock()
_lowered: dict[str, tuple[int, ...]] = {}
"""The levels that runs at work here ask for, of each logger that has none of its own."""
_hand_on: Callable[[logging.Logger, logging.LogRecord], None] | None = None


@contextmanager
def attended(context: RunContext) -> Iterator[None]:
    """Let the extra loggers of a run speak to it inside."""
    names, level = context.info.extra_loggers, context.info.log_level
    if not names:
        yield
        return
    _stand_between()
    lowered = [name for name in names if not _is_ours(name) and _lower(name, level)]
    try:
        yield
    finally:
        for name in lowered:
            _restore(name, level)


def _stand_between() -> None:
    global _hand_on  # noqa: PLW0603  (one per process, as the class is)
    with _lock:
        if _hand_on is None:
            _hand_on = logging.Logger.callHandlers
            logging.Logger.callHandlers = _handed_on  # type: ignore[method-assign,assignment]  # for all loggers


def _handed_on(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Give a record to the run in which it was made, if it is to have it, and to its handlers as ever."""
    context = current()
    passes = not (_lowered and _only_lowered(logger, record.levelno))
    heard = context is not None and _is_named(record.name, context.info.extra_loggers)
    handlers = _handlers_of(logger) if heard and passes else []
    if heard and context is not None:
        relay(context, record, shown=not context.link.far and _seen(record, handlers))
    if passes and (handlers or not heard) and _hand_on is not None:
        _hand_on(logger, record)


def _is_ours(name: str) -> bool:
    return name == OURS or name.startswith(f"{OURS}.")


def _is_named(name: str, names: Sequence[str]) -> bool:
    """Tell whether a logger is one of those that are named, or below one."""
    if not names or _is_ours(name):
        return False
    return any(name == one or name.startswith(f"{one}.") or one == "root" for one in names)


def _handlers_of(logger: logging.Logger) -> list[logging.Handler]:
    """Return the handlers that a record of a logger comes to."""
    found: list[logging.Handler] = []
    at: logging.Logger | None = logger
    while at is not None:
        found += at.handlers
        at = at.parent if at.propagate else None
    return found


def _seen(record: logging.LogRecord, handlers: Sequence[logging.Handler]) -> bool:
    """Tell whether one of the handlers writes what is shown of runs: nobody wants to read it twice."""
    ours = _handlers_of(logging.getLogger(SHOWN))
    return any(h in ours and record.levelno >= h.level for h in handlers)


# Levels --------------------------------------------------------------------------------------------------


def _lower(name: str, level: int) -> bool:
    """Let a logger that has no level of its own say what a run wants, while it is at work."""
    logger = logging.getLogger(name)
    with _lock:
        ours = name in _lowered and logger.level == min(_lowered[name])
        if not ours and (logger.level or logger.getEffectiveLevel() <= level):
            return False
        _lowered[name] = (*_lowered.get(name, ()), level)
        logger.setLevel(min(_lowered[name]))
        return True


def _restore(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    with _lock:
        before, left = _lowered[name], list(_lowered[name])
        left.remove(level)
        if left:
            _lowered[name] = tuple(left)
        else:
            del _lowered[name]
        if logger.level == min(before):  # else somebody has set it meanwhile
            logger.setLevel(min(left, default=logging.NOTSET))


def _only_lowered(logger: logging.Logger, level: int) -> bool:
    """Tell whether a record of this level has come here only because a level was lowered."""
    return logger.getEffectiveLevel() <= level < _level_of(logger)


def _level_of(logger: logging.Logger) -> int:
    """Return the level that a logger would have without us."""
    at: logging.Logger | None = logger
    while at is not None:
        if at.level and at.level != min(_lowered.get(at.name, (0,))):
            return at.level
        at = at.parent
    return logging.NOTSET
