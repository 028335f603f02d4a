"""Copies of this process that a body has forked: each ends with the body, whatever is around that.

Nobody waits for what a copy would do: its driver, its runner and its journal are the original's.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn


@contextmanager
def copies_end() -> Iterator[None]:
    """End a copy of this process, made inside, at the end of what is inside."""
    home = os.getpid()
    try:
        yield
    except SystemExit as error:
        if os.getpid() != home:
            _end(error.code if isinstance(error.code, int) else int(error.code is not None))
        raise
    except BaseException:
        if os.getpid() != home:
            traceback.print_exc()
            _end(1)
        raise
    if os.getpid() != home:
        _end(0)


def _end(code: int) -> NoReturn:
    """End as the children of multiprocessing do: without what is to be done at the original's end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody could be told
            stream.flush()
    os._exit(code)
