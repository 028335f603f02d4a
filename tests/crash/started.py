"""A script that starts two flows and, if told so, waits for them. It says when it does nothing else."""

from __future__ import annotations

import sys
import threading
import time

from dflow import flow, task
from dflow.engine import beside


@task
def step(x: int) -> int:
    """Take a moment."""
    time.sleep(0.1)
    return x


@flow(task_runner="threads")
def main(count: int) -> list[int]:
    """Take many."""
    return step.map(range(count)).result()


def say_when_waiting() -> None:
    """Say that the program is at its end, once its main thread waits there for the flows.

    What is interrupted just before, while it flushes its files, the interpreter drops.
    """
    main_thread = threading.main_thread().ident or 0
    while True:
        frame = sys._current_frames().get(main_thread)
        while frame is not None and frame.f_code is not beside.end.__code__:
            frame = frame.f_back
        if frame is not None:
            print("started", flush=True)
            return
        time.sleep(0.01)


if __name__ == "__main__":
    handles = [main.start(int(sys.argv[1])) for _ in range(2)]
    for handle in handles:
        while handle.state.name == "Pending":
            time.sleep(0.01)
    if sys.argv[2] == "wait":
        print("started", flush=True)
        for handle in handles:
            handle.wait()
    else:
        threading.Thread(target=say_when_waiting, daemon=True).start()
