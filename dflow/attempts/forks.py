"""Copies of this process that a body has forked: each ends with the body, whatever is around that.

Nobody waits for what a copy would do: its driver, its runner and its journal are the original's.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

_generation = 0


def generation() -> int:
    """Return a number that is another one in a copy of this process; to ask for its pid takes longer."""
    return _generation


def _is_copy() -> None:
    global _generation  # noqa: PLW0603  (it is that of the process)
    _generation += 1


os.register_at_fork(after_in_child=_is_copy)


class copies_end:  # noqa: N801  (reads as a word after `with`)
    """End a copy of this process, made inside, at the end of what is inside."""

    __slots__ = ("_original",)

    def __enter__(self) -> None:
        """Note which process this is."""
        self._original = _generation

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End, if this is another one."""
        if self._original == _generation:
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
