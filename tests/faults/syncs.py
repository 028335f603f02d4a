"""With durability "full" nothing is shown before it is synced: read off the order of system calls.

A power cut cannot be had in a test. But strace lists in their order what a driver writes to its journal, when
it syncs it, and when its flow notes that it was shown a value.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.faults.drivers import text_of
from tests.faults.lanes import ROOT, Place
from tests.faults.reports import Asked, Report
from tests.faults.tools import no_strace

LINE = re.compile(r"(\d+) +(<\.\.\. )?(\w+)")


def campaign(asked: Asked) -> Report:
    """Trace drivers, some of whose syncs fail."""
    report = Report('Nothing is shown before it is synced, with durability "full" (strace)')
    report.skipped = no_strace()
    if report.skipped:
        return report
    luck = random.Random(asked.seed)
    failing = [""]
    for _ in range(asked.count(1, 6) - 1):
        first = luck.randint(16, 24)  # those before are of the catalog
        failing.append(f"fdatasync:error=EIO:when={first}..{first + luck.choice((0, 2))}")
    for inject in failing:
        shown, syncs, failed, early = _traced(inject)
        figures = {"injected": inject or "nothing", "values shown": shown, "syncs": syncs}
        report.rows.append({**figures, "failed": failed, "shown too early": len(early)})
        report.violations += early
        if not shown:
            report.violations.append(
                f"with {inject or 'nothing'} injected nothing was shown at all"
            )
    return report


def _traced(inject: str) -> tuple[int, int, int, list[str]]:
    """Run a flow of direct calls; return values shown, syncs, failed ones, and what was shown too early."""
    with tempfile.TemporaryDirectory(prefix="dflow-faults-") as folder:
        place = Place(Path(folder) / "traced")
        trace = place.folder / "trace"
        subprocess.run(
            [
                *("strace", "-f", "-y", "-s", "32", "-qqq", "-o", str(trace)),
                *("-e", "trace=pwrite64,fdatasync,write"),
                *(("-e", f"inject={inject}") if inject else ()),
                *(sys.executable, "-m", "tests.faults.drivers"),
                text_of(place.order("calls", "inline", durability="full")),
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=60,
        )
        lines = trace.read_text(errors="replace").splitlines()
    synced = [line for line in lines if "fdatasync" in line and "-wal" in line]
    failed = [line for line in synced if "EIO" in line]
    shown = [line for line in lines if _shows(line)]
    return len(shown), len(synced), len(failed), list(too_early(lines))


def _shows(line: str) -> bool:
    return " write(" in line and r"{\"what\": \"shown\"" in line


def too_early(lines: Iterable[str]) -> Iterator[str]:
    """Yield what was shown while something was written to the log of the journal and not synced."""
    pending = ""
    syncing: set[str] = set()
    for line in lines:
        found = LINE.match(line)
        if found is None:
            continue
        thread, resumed, call = found.groups()
        if call == "pwrite64" and "-wal>" in line:
            pending = line
        elif call == "fdatasync" and "-wal>" in line and "unfinished" in line:
            syncing.add(thread)
        elif call == "fdatasync" and ("-wal>" in line or (resumed and thread in syncing)):
            syncing.discard(thread)
            pending = pending if "= 0" not in line else ""
        elif pending and _shows(line):
            yield f"'{line}' came when '{pending}' was not synced"
