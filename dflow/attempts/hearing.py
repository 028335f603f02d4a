"""What a body says by other ways than its run logger: prints, and extra loggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from dflow.attempts.context import NOTHING, RunContext
from dflow.attempts.extra_loggers import attended
from dflow.attempts.logs import prints_of
from dflow.attempts.prints import is_captured


def heard(context: RunContext) -> AbstractContextManager[None]:
    """Let what a body prints, and what extra loggers say inside, go where its run wants it."""
    info = context.info
    if info.extra_loggers:
        return _heard(context)
    if info.log_prints or context.link.far or is_captured():
        return prints_of(context)
    return NOTHING


@contextmanager
def _heard(context: RunContext) -> Iterator[None]:
    with prints_of(context), attended(context):
        yield
