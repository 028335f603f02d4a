"""On what was measured: the machine, the versions, the commit, the day."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def described() -> list[str]:
    """Return lines that say on what was measured."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("dflow-dask", "dask", "distributed", "numpy")
    )
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}"
    return [
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}",
        f"Python {platform.python_version()}, {packages}",
        f"commit {_commit()}, {time.strftime('%Y-%m-%d')}",
    ]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    commit = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "dflow", "task_runners")
    return f"{commit or 'unknown'}{', with changes' if changed else ''}"


def _git(*words: str) -> str:
    command = ["git", *words]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
