"""How much memory processes take: resident bytes before, at the most, and after."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Use:
    """Resident bytes of a process around a piece of work. Without /proc the peak is what is there after."""

    before: int
    peak: int
    after: int

    @property
    def grown(self) -> int:
        """What the work took at most, beyond what was there before."""
        return max(self.peak - self.before, 0)


@dataclass(slots=True)
class Watch:
    """Watches processes, by name. The kernel keeps their peaks: watching costs the work nothing."""

    pids: Mapping[str, int]
    _before: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget earlier peaks."""
        gc.collect()
        for name, pid in self.pids.items():
            _forget_peak(pid)
            self._before[name] = resident(pid)

    def end(self) -> dict[str, Use]:
        """Return what each process took since `begin`."""
        found = {}
        for name, pid in self.pids.items():
            peak = _peak(pid)
            gc.collect()
            after = resident(pid)
            found[name] = Use(self._before[name], max(peak, after), after)
        return found


def resident(pid: int | None = None) -> int:
    """Return the bytes that a process, or this one, has in memory."""
    return int(psutil.Process(pid).memory_info().rss)


def _forget_peak(pid: int) -> None:
    forget = Path(f"/proc/{pid}/clear_refs")
    if forget.exists():
        forget.write_text("5")


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return resident(pid)
    words = next(line.split() for line in status.read_text().splitlines() if "VmHWM" in line)
    return int(words[1]) * 1024
