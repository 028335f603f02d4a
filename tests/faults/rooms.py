"""Room on a disk that can be taken away from a driver, and given back."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.faults.programs import Program


class Room(Protocol):
    """The room that drivers have for their journal."""

    def take(self, driver: Program | None = None, *, leaving: int = 0) -> None:
        """Leave no room, or so many bytes of it."""

    def give(self, driver: Program | None = None) -> None:
        """Let there be room again."""


class SmallDisk:
    """A file system of a few megabytes, filled by a file."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    def take(self, driver: Program | None = None, *, leaving: int = 0) -> None:  # noqa: ARG002  (of a port)
        """Fill it up; what was let go of meanwhile is filled too."""
        place = os.statvfs(self._filler.parent)
        with self._filler.open("ab") as file, contextlib.suppress(OSError):
            if leaving:
                file.write(b"x" * max(0, place.f_bavail * place.f_frsize - leaving))
                file.flush()
                return
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(file.fileno(), b"x" * size)

    def give(self, driver: Program | None = None) -> None:  # noqa: ARG002  (of a port)
        """Empty it."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(megabytes: int = 8) -> Iterator[tuple[Path, SmallDisk]]:
    """Mount a small file system; give its folder. Takes root."""
    with tempfile.TemporaryDirectory(prefix="dflow-small-disk-") as folder:
        size = f"size={megabytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "dflow-faults", folder], check=True)
        try:
            yield Path(folder), SmallDisk(Path(folder))
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


class SmallFiles:
    """A limit on how large the files of a driver may become: without root, and for one driver only."""

    def take(self, driver: Program | None = None, *, leaving: int = 0) -> None:
        """Let no file become larger than the largest of the journal is now."""
        assert driver is not None
        files = driver.place.home.rglob("*.sqlite*")
        largest = max(file.stat().st_size for file in files if not file.name.endswith("-shm"))
        self._limit(driver, largest + leaving)

    def give(self, driver: Program | None = None) -> None:
        """Lift the limit."""
        if driver is not None:
            self._limit(driver, resource.RLIM_INFINITY)

    def _limit(self, driver: Program, size: int) -> None:
        if sys.platform == "linux":
            _, most = resource.prlimit(driver.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(driver.pid, resource.RLIMIT_FSIZE, (size, most))
