"""What a body says by other ways than its run logger: prints, and extra loggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dflow.attempts.context import RunContext
from dflow.attempts.extra_loggers import attended
from dflow.attempts.logs import prints_of


@contextmanager
def heard(context: RunContext) -> Iterator[None]:
    """Let what a body prints, and what extra loggers say inside, go where its run wants it."""
    with prints_of(context), attended(context):
        yield
