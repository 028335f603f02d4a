"""Making text harmless and short: names, messages and tracebacks come from anywhere.

Nothing here reads markup, and what comes out of `line` and `block` moves no cursor and changes no colour.
"""

from __future__ import annotations

from datetime import UTC, datetime

from dflow.engine.run_logs import NAME, escaped, one_line

LINE = 300
"""How many characters of a message are shown."""
BLOCK = 30_000
"""How many characters of a traceback are shown: its end, where the error is."""


def line(text: str, limit: int = LINE) -> str:
    """Return text on one line: control characters as escapes, what goes beyond `limit` as ``…``."""
    return one_line(text, limit)


def name(text: str) -> str:
    """Return a name on one line, shortened."""
    return one_line(text, NAME)


def block(text: str) -> str:
    """Return text that may have several lines, made harmless."""
    kept = text if len(text) <= BLOCK else "…" + text[-BLOCK:]
    return escaped(kept.expandtabs(4), keep="\n")


def when(at: float) -> str:
    """Return a time (seconds since 1970) as the clock on the wall here shows it."""
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def clock(at: float) -> str:
    """Return the time of the day, here."""
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%H:%M:%S}"


def iso(at: float) -> str:
    """Return a time as JSON has it: ISO 8601, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def took(seconds: float | None) -> str:
    """Return a duration: ``5 ms``, ``0.42 s``, ``12.3 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return ""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def left(seconds: float) -> str:
    """Return how long something will still take, roughly: ``4 s left``."""
    return f"{max(1, round(seconds))} s left" if seconds < 60 else f"{took(seconds)} left"


def size(number: int) -> str:
    """Return a number of bytes: ``512 B``, ``1.5 kB``, ``230 MB``, ``1.2 GB``."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if round(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def several(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 task run``, ``3 task runs``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def local(moment: str) -> str:
    """Return a time that `iso` gave, as the clock on the wall here shows it."""
    return when(datetime.fromisoformat(moment).timestamp())
