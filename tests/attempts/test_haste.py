"""Who interrupts an end does not want to wait for it any more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from dflow.attempts import haste


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """Begin and end without haste."""
    haste.calm()
    yield
    haste.calm()


def test_an_end_that_is_interrupted_makes_haste() -> None:
    """What interrupts it goes on to the caller; other failures are no reason to hurry."""
    with pytest.raises(ValueError, match="other"), haste.hurried_by_interrupts():
        raise ValueError("other")
    assert not haste.in_haste()
    with pytest.raises(KeyboardInterrupt), haste.hurried_by_interrupts():
        raise KeyboardInterrupt
    assert haste.in_haste()


LOOP = """
error, first, second = KeyboardInterrupt(), ValueError(), ValueError()
error.__context__, first.__context__, second.__context__ = first, second, first
raise error
"""

ENDS = {
    "in order": ("pass", False),
    "by an error": ("raise ValueError", False),
    "by Ctrl-C behind errors that led to each other": (LOOP, False),
    "by Ctrl-C": ("raise KeyboardInterrupt", False),
    "by Ctrl-C behind an error": (
        "try: raise ValueError\nexcept ValueError: raise KeyboardInterrupt",
        False,
    ),
    "by Ctrl-C while it was ending by one": (
        "try: raise KeyboardInterrupt\nfinally: raise KeyboardInterrupt",
        True,
    ),
    "by an error while it was ending by Ctrl-C": (
        "try: raise KeyboardInterrupt\nfinally: raise ValueError",
        False,
    ),
}


@pytest.mark.parametrize(("body", "twice"), ENDS.values(), ids=ENDS)
def test_a_program_that_was_interrupted_twice(body: str, twice: bool) -> None:
    """What is called at its end is told."""
    program = (
        "import atexit\nfrom dflow.attempts import haste\n"
        f"atexit.register(lambda: print(haste.interrupted_twice()))\n{body}"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ran.stdout.decode().split() == [str(twice)]
