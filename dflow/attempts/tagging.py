"""``with tags(…)``: tags for whatever is called inside, in this thread or coroutine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dflow.errors import DefinitionError

_around: ContextVar[tuple[str, ...]] = ContextVar("dflow_tags", default=())


def around() -> tuple[str, ...]:
    """Return the tags that hold here, sorted."""
    return _around.get()


def joined(*several: Iterable[str]) -> tuple[str, ...]:
    """Return all tags of several collections, sorted, each once."""
    return tuple(sorted({tag for one in several for tag in one}))


@contextmanager
def tags(*names: str) -> Iterator[tuple[str, ...]]:
    """Give these tags to the flow runs and task runs that begin inside, and to what those call in turn.

    Yields all the tags that hold inside. Raises `DefinitionError` for what is not a text.

    >>> with tags("nightly"), tags("gpu") as now:
    ...     now
    ('gpu', 'nightly')
    """
    for name in names:
        if not isinstance(name, str):
            raise DefinitionError(f"tags(...) takes texts, not {name!r:.100}.")
    token = _around.set(joined(_around.get(), names))
    try:
        yield _around.get()
    finally:
        _around.reset(token)
