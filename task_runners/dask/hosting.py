"""The driver's side of the process in which the scheduler and the nannies of a cluster of ours live.

That process is tied to this one: it ends when its standard input does, or when its parent is another.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from multiprocessing import process
from pathlib import Path
from typing import Any

import psutil

from dflow.attempts import clock
from dflow.attempts.haste import hurried_by_interrupts, in_haste
from dflow.errors import ClusterError
from task_runners.dask import main_guard
from task_runners.dask.runner import OwnCluster

START = 120.0
"""Seconds that a cluster may take to start, on the slowest of file systems."""
GRACE = 10.0
"""Seconds that it may take to close."""
LINGER = 1.0
"""Seconds in which what came from its process may end by itself, when that has ended."""
LOOK = 0.02
"""Seconds between two looks at whether it has."""
OURS = "dflow"
"""The package of which workers load what is loaded here: a script that uses it begins with that."""
ROOT = Path(__file__).parents[2]


class HostProcess:
    """A running host process, and the address of its scheduler."""

    def __init__(self, popen: subprocess.Popen[bytes], address: str) -> None:
        self.address = address
        self._popen = popen
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._popen.pid

    def alive(self) -> bool:
        """Tell whether the process runs."""
        return self._popen.poll() is None

    def close(self) -> None:
        """Ask it to close its cluster, and see that neither it nor a worker is left."""
        with self._lock:
            _end(self._popen)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A host process that is starting its cluster, and the pipe by which it will report."""

    popen: subprocess.Popen[bytes]
    reading: int
    pid: int


_lock = threading.Lock()
_begun: dict[OwnCluster, _Begun] = {}


def begin(own: OwnCluster) -> None:
    """Let a cluster begin to start; `start` waits for it. Meanwhile this process may load Dask.

    Raises `ClusterError`, and `MissingMainGuard`.
    """
    with _lock:
        if own not in _begun:
            _begun[own] = _launched(own)


def give_up() -> None:
    """End what was begun and is not wanted any more."""
    with _lock:
        left = list(_begun.values())
        _begun.clear()
    for begun in left:
        if begun.pid == os.getpid():  # a fork leaves alone what is its parent's
            os.close(begun.reading)
            _end(begun.popen, 0.0)


def start(own: OwnCluster) -> HostProcess:
    """Start a cluster of worker processes. Raises `ClusterError`, and `MissingMainGuard`."""
    with _lock:
        begun = _begun.pop(own, None)
    if begun is None or begun.pid != os.getpid():
        begun = _launched(own)
    with os.fdopen(begun.reading, "rb") as reports:
        try:
            report = _report(reports, begun.popen)
        except BaseException:
            _end(begun.popen, 0.0)
            raise
    if "error" in report:
        _end(begun.popen, 1.0)
        raise ClusterError(f"The cluster could not start: {report['error']}")
    return HostProcess(begun.popen, report["address"])


def _launched(own: OwnCluster) -> _Begun:
    main_guard.check()
    reading, writing = os.pipe()
    try:
        popen = subprocess.Popen(
            [sys.executable, "-m", "task_runners.dask.host"],
            stdin=subprocess.PIPE,
            pass_fds=(writing,),
            env={**os.environ, "PYTHONPATH": _python_path()},
            start_new_session=True,  # what a terminal signals to the driver is the driver's to decide on
        )
    except OSError as error:
        os.close(reading)
        raise ClusterError(f"The process of the cluster cannot be started: {error}.") from error
    finally:
        os.close(writing)
    _tell(popen, {**_configuration(own), "report_to": writing})
    return _Begun(popen, reading, os.getpid())


def _configuration(own: OwnCluster) -> dict[str, Any]:
    script = main_guard.script_of(sys.modules.get("__main__"))
    return {
        "cluster": asdict(own),
        "parent": os.getpid(),
        "script": asdict(script) if script is not None else None,
        "argv": sys.argv,
        "loaded": [name for name in sys.modules if name.startswith(f"{OURS}.")],
        "path": [str(entry) for entry in sys.path],
        "cwd": os.getcwd(),
        "original_dir": getattr(process, "ORIGINAL_DIR", None),
        "python_path": os.environ.get("PYTHONPATH"),
    }


def _python_path() -> str:
    """Return a search path with which a new process finds this package; it then takes ours."""
    given = os.environ.get("PYTHONPATH")
    return str(ROOT) if given is None else f"{ROOT}{os.pathsep}{given}"


def _tell(popen: subprocess.Popen[bytes], message: dict[str, Any] | str) -> None:
    if popen.stdin is not None:
        try:
            popen.stdin.write(json.dumps(message).encode() + b"\n")
            popen.stdin.flush()
        except OSError:  # it has ended; its report, or the lack of one, says so
            return


def _report(reports: Any, popen: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for the one line that the host process writes."""
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(reports.readline()), name="dflow-start")
    reader.start()
    reader.join(START)
    if reader.is_alive():
        popen.kill()
        reader.join()
        raise ClusterError(f"The cluster has not started within {START:.0f} seconds.")
    if not lines or not lines[0]:
        return {"error": f"its process ended (exit code {popen.wait()}). What it wrote is above."}
    report: dict[str, Any] = json.loads(lines[0])
    return report


def _end(popen: subprocess.Popen[bytes], grace: float = GRACE) -> None:
    """End a host process and all its descendants."""
    descendants = _descendants(popen)
    if popen.poll() is None and grace and not in_haste():
        _tell(popen, "close")
    if popen.stdin is not None:
        with contextlib.suppress(OSError):  # what was not yet written cannot be any more
            popen.stdin.close()
    if in_haste():  # left without a word it ends at once, with all that came from it
        return
    try:
        with hurried_by_interrupts():
            popen.wait(grace)
    except subprocess.TimeoutExpired:
        descendants += _descendants(popen)
        popen.kill()
        popen.wait()
    except KeyboardInterrupt:
        descendants += _descendants(popen)
        popen.kill()
        _kill(descendants)
        raise
    _kill(_still_there(descendants, LINGER))
    _still_there(descendants, LINGER)


def _kill(processes: list[psutil.Process]) -> None:
    for one in processes:
        with contextlib.suppress(psutil.Error):
            one.kill()


def _still_there(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end, of which not all are children of this one; return those that do not."""
    deadline = clock.monotonic() + seconds
    while (left := [one for one in processes if _runs(one)]) and clock.monotonic() < deadline:
        threading.Event().wait(LOOK)
    return left


def _runs(one: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended may still be waiting for its parent to notice."""
    try:
        return bool(one.is_running() and one.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _descendants(popen: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(popen.pid).children(recursive=True)
    except psutil.Error:
        return []
