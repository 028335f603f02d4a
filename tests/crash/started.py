"""A script that starts two flows and, if told so, waits for them."""

from __future__ import annotations

import sys
import time

from dflow import flow, task


@task
def step(x: int) -> int:
    """Take a moment."""
    time.sleep(0.1)
    return x


@flow(task_runner="threads")
def main(count: int) -> list[int]:
    """Take many."""
    return step.map(range(count)).result()


if __name__ == "__main__":
    handles = [main.start(int(sys.argv[1])) for _ in range(2)]
    for handle in handles:
        while handle.state.name == "Pending":
            time.sleep(0.01)
    print("started", flush=True)
    if sys.argv[2] == "wait":
        for handle in handles:
            handle.wait()
