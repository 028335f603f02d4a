"""Bodies that wait in threads of their own, and one that tells how many run at once."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from pathlib import Path
from typing import Any

from distributed import get_client, get_worker, worker_client

from dflow.attempts.context import RunContext, current
from task_runners.dask import places


def at_once(folder: str) -> int:
    """Return how many of these bodies run at the same time as this one."""
    mine = Path(folder) / os.urandom(8).hex()
    mine.touch()
    threading.Event().wait(0.05)
    count = len(list(Path(folder).iterdir()))
    mine.unlink()
    return count


def appears(path: Path, seconds: float = 30.0) -> None:
    """Wait for a file."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        threading.Event().wait(0.01)


def context() -> RunContext:
    """Return what the body knows of its run."""
    found = current()
    assert found is not None
    return found


def wait_in_slot(folder: str) -> None:
    """Give the slot back until the file 'go' appears, and say so before and after."""
    with context().slot():
        (Path(folder) / "waits").touch()
        appears(Path(folder) / "go")
    (Path(folder) / "gone").touch()


def thread_with_context(folder: str) -> threading.Thread:
    """Start a thread of the body that waits in its slot."""
    copied = contextvars.copy_context()
    thread = threading.Thread(target=copied.run, args=(wait_in_slot, folder), daemon=True)
    thread.start()
    appears(Path(folder) / "waits")
    return thread


def end_before_its_thread(folder: str) -> None:
    """Return while a thread of the body still waits."""
    thread_with_context(folder)


def end_while_its_thread_asks(folder: str) -> bool:
    """Return while a thread of the body waits for the slot, which another body has; say whether it did."""
    thread = thread_with_context(folder)
    appears(Path(folder) / "taken")
    (Path(folder) / "go").touch()
    thread.join(0.3)
    return thread.is_alive()


def take_slot(folder: str) -> None:
    """Run until the file 'enough' appears."""
    (Path(folder) / "taken").touch()
    appears(Path(folder) / "enough")


def come_and_go(times: int) -> None:
    """Let several threads of the body and the body itself wait again and again."""
    slot = context().slot

    def wait_often() -> None:
        for _ in range(times):
            with slot():
                threading.Event().wait(0.001)

    threads = [threading.Thread(target=wait_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_often()
    for thread in threads:
        thread.join()


def in_thread(function: Any) -> Any:
    """Return what a function returns in a thread of its own, adopted by the body, that has no context."""
    found: list[Any] = []
    adopted = context().adopted

    def run() -> None:
        with adopted():
            found.append(function())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def worker_of_thread() -> tuple[str, str, Any]:
    """Return the worker of an adopted thread, that of the body, and the task that the thread works for."""

    def ask() -> tuple[str, Any]:
        worker = get_worker()
        assert get_client().scheduler.address == worker.scheduler.address  # type: ignore[union-attr]
        return worker.address, worker.get_current_task()

    address, key = in_thread(ask)
    return address, get_worker().address, key == get_worker().get_current_task()


def work_of_thread() -> int:
    """Let an adopted thread send something to the cluster and wait for it, by Dask's own means."""

    def ask() -> int:
        with worker_client() as client:
            number: int = client.submit(int, "7", pure=False).result()
        return number

    number: int = in_thread(ask)
    return number


def can_stand_in() -> bool:
    """Tell whether distributed is as the places of tasks need it."""
    return places.can_stand_in()
