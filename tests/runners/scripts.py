"""Scripts that start worker processes, each run as its user would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAD = """\
import os, sys, threading
from task_runners import DaskTaskRunner
from tests.runners.hosts import FakeHost, work

RUNNER = DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1})

"""


class Script:
    """Scripts in a folder of their own, and the processes that come from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, text: str, *arguments: str) -> subprocess.Popen[str]:
        """Run a script in a session of its own."""
        path = self.folder / "script.py"
        path.write_text(HEAD + text)
        started = subprocess.Popen(
            [sys.executable, *(arguments or [str(path)])],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(started)
        return started

    def run(self, text: str, *arguments: str) -> tuple[int, str, str]:
        """Run a script to its end; return its exit code and what it wrote."""
        started = self.start(text, *arguments)
        out, err = started.communicate(timeout=60)
        return started.returncode, out, err

    def close(self) -> None:
        """End what is still there."""
        for started in self._started:
            if started.poll() is None:
                started.kill()
            started.communicate(timeout=60)
