"""An exception of the user's flow, as its author wants to see it: without the frames of ours."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import dflow
from dflow.attempts.capture import RemoteTraceback

_ROOT = Path(dflow.__file__).parent
_OURS = (str(_ROOT), str(_ROOT.parent / "task_runners"))
_NOT_OURS = str(_ROOT / "examples")
_FRAME = re.compile(
    r'^  File "(?P<file>[^"]*)", line \d+, in .*\n(?:    .*\n|  \[Previous.*\n)*', re.MULTILINE
)


def explain(error: BaseException) -> str:
    """Return type, message and traceback of an exception that a flow raised.

    One that came from a worker has the traceback of the worker, and the place where the flow met it.
    """
    remote = error.__cause__
    if not isinstance(remote, RemoteTraceback):
        return without_our_frames("".join(traceback.format_exception(error)))
    shown = str(remote.args[0]) + "".join(f"{note}\n" for note in _notes(error))
    met = without_our_frames("".join(traceback.format_tb(error.__traceback__)))
    return without_our_frames(shown) + (f"The flow met it here:\n{met}" if met else "")


def without_our_frames(formatted: str) -> str:
    """Return a formatted traceback without the frames of dflow and its runners."""
    shown = _FRAME.sub(lambda frame: "" if _is_ours(frame["file"]) else frame[0], formatted)
    return re.sub(r"^Traceback \(most recent call last\):\n(?! )", "", shown, flags=re.MULTILINE)


def _is_ours(file: str) -> bool:
    return any(_below(file, folder) for folder in _OURS) and not _below(file, _NOT_OURS)


def _below(file: str, folder: str) -> bool:
    return Path(file).is_relative_to(folder)


def _notes(error: BaseException) -> list[str]:
    return [str(note) for note in getattr(error, "__notes__", ())]
