"""What some versions of Python cannot do."""

from __future__ import annotations

import sys

import pytest

threads_at_exit = pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3),
    reason="starts no threads once the main thread has ended (python/cpython#113964)",
)
"""For tests of programs that work on when their main thread has come to its end."""
