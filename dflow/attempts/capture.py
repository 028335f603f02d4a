"""Exceptions in words, and back: what is kept of an error when it leaves the process that raised it."""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from pathlib import Path
from types import CodeType, TracebackType

from dflow.core.records import ErrorInfo
from dflow.errors import TaskFailedError
from dflow.results import pickling

MAX_TEXT = 10_000
"""How many characters of an exception's message are kept."""
MAX_TRACEBACK = 30_000
"""How many characters of a traceback are kept: half from its beginning, half from its end."""
MAX_BLOB = 1_000_000
"""How many bytes a pickled exception may take, to be kept."""

PLACES = 1000
"""Of how many places in the code the lines of tracebacks are remembered."""

_OURS = tuple(str(Path(file).parent) + os.sep for file in (__file__, inspect.getfile(asyncio)))
"""Where the code lies that calls bodies."""


class RemoteTraceback(Exception):
    """Carries the traceback of another process, as the cause of the exception raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def capture(error: BaseException) -> ErrorInfo:
    """Return an exception in words, with a pickle of it if it survives the way there and back."""
    return ErrorInfo(
        type_name=type_name(error),
        text=_text(error)[:MAX_TEXT],
        traceback=_shortened(_traceback(error)),
        blob=_blob(error),
    )


def rebuild(info: ErrorInfo, what: str) -> Exception:
    """Return the exception that `info` keeps, with its traceback as its cause.

    `what` names the run in the `TaskFailedError` that stands for an exception that cannot be rebuilt,
    or that would end this process (``SystemExit``).
    """
    if info.blob is not None:
        try:
            error = pickling.loads(info.blob)
        except Exception as problem:
            why = f" (it cannot be rebuilt here: {problem!r})"
        else:
            if isinstance(error, Exception):
                # Pickles may carry causes and, older ones, tracebacks; the text has them all.
                error.__traceback__ = None
                if info.traceback:
                    error.__cause__ = RemoteTraceback(info.traceback)
                return error
            why = ""
    else:
        why = ""
    failure = TaskFailedError(
        f"{what} raised {info.type_name}: {info.text}{why}",
        type_name=info.type_name,
        text=info.text,
        traceback=info.traceback,
    )
    if info.traceback:
        failure.__cause__ = RemoteTraceback(info.traceback)
    return failure


def type_name(error: BaseException) -> str:
    """Return the type of an exception as it is recorded."""
    kind = type(error)
    if kind.__module__ in ("builtins", *pickling.MAIN_NAMES):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        return f"(its message cannot be shown: {type(problem).__name__})"


def _shortened(text: str) -> str:
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n…\n{text[-half:]}"


def _traceback(error: BaseException) -> str:
    """Return the traceback as Python prints it, without the frames above the body."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    try:
        return _simple(error, frames) or "".join(
            traceback.format_exception(type(error), error, frames)
        )
    except Exception as problem:
        return f"{type_name(error)}: (its traceback cannot be shown: {type(problem).__name__})\n"


def _simple(error: BaseException, frames: TracebackType | None) -> str | None:
    """Return the traceback of an exception that no other one led to; None if it is not as simple as that.

    The lines of a place in the code are the same each time: thousands of attempts may fail in one place.
    """
    led = error.__cause__ is not None or error.__context__ is not None
    if led or isinstance(error, BaseExceptionGroup | NameError):  # what is meant may be in a frame
        return None
    lines: dict[tuple[int, int], str] = {}
    while frames is not None:
        code, place = frames.tb_frame.f_code, frames.tb_lasti
        if (id(code), place) in lines:
            return None  # Python leaves out some of many that are the same
        known = _places.get((id(code), place))
        if known is None or known[0] is not code:
            known = code, traceback.format_tb(frames, limit=1)[0]
            if len(_places) >= PLACES:
                _places.clear()
            _places[id(code), place] = known
        lines[id(code), place] = known[1]
        frames = frames.tb_next
    if not lines:
        return None
    said = traceback.format_exception_only(type(error), error)
    return "".join(["Traceback (most recent call last):\n", *lines.values(), *said])


_places: dict[tuple[int, int], tuple[CodeType, str]] = {}


def _blob(error: BaseException) -> bytes | None:
    """Return the exception pickled, or None if it is too large or does not come back as what it was.

    Without tracebacks, which are kept in words.
    """
    try:
        data = pickling.dumps_error(error, MAX_BLOB)
        if data is None or type(pickling.loads(data)) is not type(error):
            return None
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        return None
    return data
