"""A flow on a cluster that outlives its driver, for ``python lasting.py ADDRESS FOLDER [RUN]``.

With a run that is resumed, else one begins. Each body appends its beginning and its end to a file: that is
the oracle.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from dflow import flow, task, wait
from task_runners import DaskTaskRunner

FOLDER = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()


def note(folder: str, what: str) -> None:
    """Append a line to the oracle."""
    line = f"{what} {os.getpid()}\n".encode()
    file = os.open(Path(folder) / "oracle", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


@task
def small(folder: str, n: int) -> int:
    """Return a value that goes into the journal."""
    note(folder, f"begin small{n}")
    note(folder, f"end small{n}")
    return n


@task(persist_result=False, batch=False)
def large(folder: str) -> bytes:
    """Return a value that stays on its worker."""
    note(folder, "begin large")
    note(folder, "end large")
    return bytes(100_000)


@task(persist_result=False, batch=False)
def held(folder: str, n: int) -> int:
    """Return when there is a file."""
    note(folder, f"begin held{n}")
    deadline = time.monotonic() + 60
    while not (Path(folder) / "go").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    note(folder, f"end held{n}")
    return n


@task(persist_result=False, batch=False)
def behind(folder: str, n: int) -> int:
    """Run once the others have left a slot."""
    note(folder, f"begin behind{n}")
    note(folder, f"end behind{n}")
    if n == 3:
        raise ValueError("no")
    return n


@task(persist_result=False, batch=False)
def sum_of(folder: str, data: bytes, *numbers: int) -> int:
    """Return the sum of everything."""
    note(folder, "begin sum")
    note(folder, "end sum")
    return len(data) + sum(numbers)


@flow
def lasting(folder: str) -> int:
    """Have some done, some under way and some waiting."""
    note(folder, "begin flow")
    some = small.map(folder, range(4))
    big = large.submit(folder)
    wait([*some, big])
    running = [held.submit(folder, n) for n in range(2)]
    waiting = [behind.submit(folder, n) for n in range(6)]
    good = [one for n, one in enumerate(waiting) if n != 3]
    total = sum_of.submit(folder, big, *some, *running, *good)
    (Path(folder) / "submitted").touch()
    value = total.result()
    assert isinstance(value, int)
    assert repr(waiting[3].result(raise_on_failure=False)) == "ValueError('no')"
    return value


if __name__ == "__main__":
    runner = DaskTaskRunner(address=sys.argv[1])
    chosen = lasting.with_options(task_runner=runner)
    if len(sys.argv) > 4:
        print(chosen.rerun(sys.argv[3]))
    else:
        print(chosen.resume(sys.argv[3]) if len(sys.argv) > 3 else chosen(sys.argv[2]))
