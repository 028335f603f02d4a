"""A flow whose task runs share tasks of Dask, for ``python together.py ADDRESS FOLDER [RUN]``.

With a run that is resumed, else one begins. Each body appends its beginning and its end to a file: that is
the oracle.
"""

from __future__ import annotations

import sys
import time

from dflow import flow, task, wait
from task_runners import DaskTaskRunner
from tests.crash.lasting import note

COUNT = 70
SECONDS = 0.03
RAISING = (4, 30, 31, 60)
LARGE = 30_000


@task(retries=1, persist_result=False, batch=True)
def step(folder: str, n: int, data: bytes = b"") -> bytes:
    """Take a moment; some raise the first time, some return a value that stays on its worker."""
    note(folder, f"begin {n}")
    time.sleep(SECONDS)
    note(folder, f"end {n}")
    if n in RAISING and tries(folder, n) == 1:
        raise ValueError(n)
    return bytes(LARGE) if n % 10 == 7 else bytes(n + len(data) % 2)


def tries(folder: str, n: int) -> int:
    """Return how often a body has ended."""
    with open(f"{folder}/oracle") as file:
        return sum(line.split()[:2] == ["end", str(n)] for line in file)


@flow
def together(folder: str) -> int:
    """Have many under way, some of them behind others."""
    wait(step.map(folder, range(1000, 1004)))  # from now on it is known how long they take
    first = step.map(folder, range(COUNT))
    second = [step.submit(folder, COUNT + n, first[n]) for n in range(10)]
    return sum(len(one.result()) for one in [*first, *second])


if __name__ == "__main__":
    chosen = together.with_options(task_runner=DaskTaskRunner(address=sys.argv[1]))
    print(chosen.resume(sys.argv[3]) if len(sys.argv) > 3 else chosen(sys.argv[2]))
