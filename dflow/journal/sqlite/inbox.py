"""Commands to the drivers of runs, as small files in a folder per run.

A command is written under a hidden name and renamed, so that nobody reads half of one. Names sort by
time, which is read off the file itself: where machines share the folder, all have the same clock.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from dflow.journal.sqlite.failures import folder_failure
from dflow.journal.sqlite.files import make_folder

LOG = logging.getLogger(__name__)

_sent = count()
"""Numbers the commands that this process sent: those of one moment stay in order, none has another's name."""


class FileInbox:
    """The inbox in folders. `folder_of` gives that of a run."""

    def __init__(self, folder_of: Callable[[str], Path]) -> None:
        self._folder_of = folder_of
        self._lock = threading.Lock()
        self._last = 0

    def send(self, run_id: str, command: Mapping[str, Any]) -> None:
        """Leave a command (JSON-able)."""
        folder = self._folder_of(run_id)
        text = json.dumps(dict(command))
        make_folder(folder)
        try:
            with self._lock:
                self._leave(folder, text)
        except OSError as error:
            raise folder_failure(error, folder) from error

    def _leave(self, folder: Path, text: str) -> None:
        sender = f"{socket.gethostname()}-{os.getpid()}-{next(_sent):08d}"
        hidden = folder / f".{sender}"
        handle = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        hidden.chmod(0o600)
        self._last = max(self._last, hidden.stat().st_mtime_ns)
        hidden.rename(folder / f"{self._last:020d}-{sender}.json")

    def receive(self, run_id: str) -> Sequence[Mapping[str, Any]]:
        """Take the commands that were left, the oldest first; each is received once."""
        folder = self._folder_of(run_id)
        try:
            names = sorted(name for name in os.listdir(folder) if _is_command(name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise folder_failure(error, folder) from error
        taken: list[dict[str, Any]] = []
        for name in names:
            try:
                command = _take(folder / name)
            except OSError as error:
                if not taken:
                    raise folder_failure(error, folder / name) from error
                break  # those that were taken come first; the error comes back with the next call
            if command is not None:
                taken.append(command)
        return taken


def _is_command(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _take(path: Path) -> dict[str, Any] | None:
    """Return the command in a file and delete that; None if it was damaged or somebody was quicker."""
    try:
        content = path.read_bytes()
        command = _parsed(content)
        if command is None:
            path.rename(path.with_suffix(".damaged"))
            LOG.warning("A command to a run is damaged and was moved aside: '%s'", path)
            return None
        path.unlink()
    except FileNotFoundError:
        return None
    return command


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        command = json.loads(content)
    except ValueError:
        return None
    return command if isinstance(command, dict) else None
