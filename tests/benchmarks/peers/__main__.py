"""The same small work in dflow, raw Dask and their peers: ``python -m tests.benchmarks.peers``.

Each peer is installed into an environment of its own (see ``--cache``) and runs a program of its own from
the folder ``programs``, with two workers, on loopback, with its telemetry switched off. One that cannot be
installed or run is named, with the reason. Some promise less than others: the table says what.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.benchmarks import report
from tests.benchmarks.machine import ROOT, described
from tests.benchmarks.peers.environments import HERE, Environment, NotInstalled, cache_folder

WORKS = ("map", "submits", "chain")
SILENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PARSL_TRACKING": "false",
    "DFLOW_LOG_LEVEL": "ERROR",
}
PROGRAMS = HERE / "programs"
LIMIT = 300.0
"""Seconds that one program may take."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: how many tasks it gets for each of the works, and what it keeps of them."""

    title: str
    counts: tuple[int, int, int]
    keeps: str
    here: tuple[str, ...] = ()
    """The packages of this environment that it is, if it needs none of its own."""


PEERS = {
    "dflow": Peer("dflow", (10_000, 2_000, 1_000), "every state, on disk", ("dflow-dask",)),
    "dask": Peer("raw Dask", (5_000, 2_000, 1_000), "nothing", ("distributed",)),
    "prefect": Peer("Prefect on Dask", (100, 100, 30), "every state, in its server"),
    "dbos": Peer("DBOS, threads", (300, 300, 1_000), "every state, on disk (SQLite)"),
    "parsl": Peer("Parsl", (2_000, 2_000, 300), "nothing"),
    "ray": Peer("Ray", (5_000, 5_000, 1_000), "nothing"),
    "joblib": Peer("joblib", (10_000, 0, 0), "nothing, no futures"),
}


@dataclass(slots=True)
class Found:
    """What came of a peer: tasks a second, by work."""

    versions: str = ""
    rates: dict[str, list[float]] = field(default_factory=dict)
    problem: str = ""

    def cell(self, work: str) -> str:
        """Return the median of the rates of a work."""
        rates = self.rates.get(work)
        return f"{median(rates):,.0f}" if rates else "–"


def measured(name: str, cache: Path, rounds: int, share: float) -> Found:
    """Measure a peer."""
    peer, found = PEERS[name], Found()
    environment = Environment(name, cache / name)
    python = Path(sys.executable)
    try:
        if peer.here:
            found.versions = ", ".join(f"{package} {version(package)}" for package in peer.here)
        else:
            environment.prepare()
            found.versions, python = environment.versions(), environment.python
    except NotInstalled as error:
        found.problem = f"cannot be installed: {error}"
        return found
    counts = [max(int(count * share), 3) if count else 0 for count in peer.counts]
    for _ in range(rounds):
        found.problem = found.problem or _run(name, python, counts, found)
    return found


def _run(name: str, python: Path, counts: Sequence[int], found: Found) -> str:
    """Run the program of a peer once; return what went wrong."""
    command = [str(python), str(PROGRAMS / f"with_{name}.py"), *map(str, counts)]
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as said:
        paths = {
            "PREFECT_HOME": home,
            "DFLOW_HOME": home,
            "PYTHONPATH": f"{PROGRAMS}{os.pathsep}{ROOT}" if PEERS[name].here else str(PROGRAMS),
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",  # Parsl's commands
        }
        process = subprocess.Popen(
            command,
            cwd=home,
            env={**os.environ, **SILENT, **paths},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return f"has not ended within {LIMIT:.0f} s"
        finally:
            _end(process)
        for line in printed.splitlines():
            if line.startswith("{"):
                one = json.loads(line)
                found.rates.setdefault(one["work"], []).append(one["count"] / one["seconds"])
        said.seek(0)
        last = said.read().strip().splitlines()[-1:]
        return f"failed: {' '.join(last)}" if process.returncode else ""


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and what it has left behind: all are of its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.communicate()


def rows_of(all_found: dict[str, Found]) -> list[report.Row]:
    """Return a row for each peer."""
    return [
        (
            PEERS[name].title,
            *(found.cell(work) for work in WORKS),
            PEERS[name].keeps,
            "; ".join(text for text in (found.versions, found.problem) if text),
        )
        for name, found in all_found.items()
    ]


def main() -> int:
    """Measure the peers that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    parser.add_argument("--share", type=float, default=1.0, help="of the number of tasks")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="for environments")
    parser.add_argument("--write", action="store_true", help="write the table of BENCHMARKS.md")
    asked = parser.parse_args()
    if asked.write and (asked.only or asked.share != 1.0):
        sys.exit("--write is for the whole table: without --only and --share.")
    heads = ("tasks a second", *WORKS, "it keeps of them", "")
    all_found = {}
    for name in asked.only or PEERS:
        all_found[name] = measured(name, asked.cache, asked.rounds, asked.share)
        print(" | ".join(rows_of({name: all_found[name]})[0]), flush=True)
    if asked.write:
        how = f"`python -m tests.benchmarks.peers --write`, medians of {asked.rounds} rounds"
        lines = [f"- {text}" for text in (*described(), how)]
        text = "\n".join([*lines, "", *report.table(heads, rows_of(all_found))])
        report.replaced("peers", text)
    return 1 if any(found.problem for found in all_found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
