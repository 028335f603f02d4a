"""What some campaigns need of the machine, and how they say that it is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def no_strace() -> str:
    """Return why system calls cannot be injected here, or nothing if they can."""
    if shutil.which("strace") is None:
        return "there is no strace on this machine"
    tried = subprocess.run(
        ["strace", "-f", "-qqq", "-o", os.devnull, sys.executable, "-c", ""],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"strace cannot be used here: {tried.stderr.strip()}" if tried.returncode else ""


def no_mounts() -> str:
    """Return why small file systems cannot be mounted here, or nothing if they can."""
    if sys.platform != "linux":
        return "small file systems are mounted on Linux only"
    return "" if os.geteuid() == 0 else "mounting a small file system takes root"


def in_memory() -> str | None:
    """Return a folder that is in memory, where nobody waits for a disk, or None if there is none."""
    folder = "/dev/shm"
    return folder if os.path.isdir(folder) and os.access(folder, os.W_OK) else None
