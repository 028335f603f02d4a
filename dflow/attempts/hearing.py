"""What a body says by other ways than its run logger: prints, and extra loggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from dflow.attempts.context import RunContext
from dflow.attempts.extra_loggers import attended
from dflow.attempts.logs import prints_of
from dflow.attempts.prints import is_captured


def heard(context: RunContext) -> AbstractContextManager[None]:
    """Let what a body prints, and what extra loggers say inside, go where its run wants it."""
    info = context.info
    if info.log_prints or info.extra_loggers or context.link.far or is_captured():
        return _heard(context)
    return nullcontext()


@contextmanager
def _heard(context: RunContext) -> Iterator[None]:
    with prints_of(context), attended(context):
        yield
