"""What is shown of an exception that a flow raised."""

from __future__ import annotations

import pytest

from dflow.attempts.capture import capture, rebuild
from dflow.cli import failures


def fail() -> None:
    """Raise an error."""
    raise ValueError("boom")


def raised(error: Exception) -> Exception:
    """Return an error as a flow meets it."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def remote() -> Exception:
    """Return an error of a worker, as it arrives in a flow."""
    try:
        fail()
    except ValueError as error:
        return raised(rebuild(capture(error), "a task"))
    raise AssertionError


def test_an_error_of_a_worker_has_both_places() -> None:
    """It shows the traceback of the worker, its notes, and the line at which the flow met it."""
    error = remote()
    error.add_note("a note")
    shown = failures.explain(error)
    assert "in fail" in shown
    assert (
        shown.index("ValueError: boom")
        < shown.index("a note")
        < shown.index("The flow met it here:")
    )
    assert shown.count("ValueError") == 2  # the line that raised it, and what it raised
    assert "RemoteTraceback" not in shown


def test_frames_of_ours_are_left_out() -> None:
    """Frames of dflow and its runners go, with their source lines; all others stay."""
    folder = failures._ROOT
    formatted = (
        "Traceback (most recent call last):\n"
        '  File "/home/me/flow.py", line 3, in main\n    x.result()\n    ^^^^^^^^^^\n'
        f'  File "{folder}/engine/futures.py", line 9, in result\n    raise error\n'
        f'  File "{folder}/examples/digits.py", line 9, in digits\n    load()\n'
        "ValueError: boom\n"
    )
    shown = failures.without_our_frames(formatted)
    assert "engine/futures.py" not in shown
    assert "raise error" not in shown
    assert "x.result()\n    ^^^^^^^^^^\n" in shown
    assert "examples/digits.py" in shown


def test_without_frames_only_the_error_is_left() -> None:
    """Where every frame is ours the heading goes too."""
    formatted = (
        "Traceback (most recent call last):\n"
        f'  File "{failures._ROOT}/tasks.py", line 3, in map\n    x\n'
        "ValueError: boom\n"
    )
    assert failures.without_our_frames(formatted) == "ValueError: boom\n"
