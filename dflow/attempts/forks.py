"""Copies of this process that a body has forked: each ends with the body, whatever is around that.

Nobody waits for what a copy would do: its driver, its runner and its journal are the original's.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn


class copies_end:  # noqa: N801  (reads as a word after `with`)
    """End a copy of this process, made inside, at the end of what is inside."""

    __slots__ = ("_home",)

    def __enter__(self) -> None:
        """Note which process this is."""
        self._home = os.getpid()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End, if this is another one."""
        if os.getpid() == self._home:
            return
        if error is None:
            _end(0)
        if isinstance(error, SystemExit):
            _end(error.code if isinstance(error.code, int) else int(error.code is not None))
        traceback.print_exception(error)
        _end(1)


def _end(code: int) -> NoReturn:
    """End as the children of multiprocessing do: without what is to be done at the original's end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody could be told
            stream.flush()
    os._exit(code)
