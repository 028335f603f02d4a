"""Flows that the tests of the command run."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from dflow import flow, get_run_logger, task

HOSTILE = "[red]evil[/red]\n\x1b[2J\x1b]0;title\x07\u202e" + "x" * 9_000


@task
def double(x: int) -> int:
    """Double a number."""
    return 2 * x


@task(retries=1)
def picky(x: int) -> int:
    """Take any number but 3."""
    if x == 3:
        raise ValueError(f"cannot take {x}")
    return x


@task(log_prints=True)
def talk(text: str) -> None:
    """Say something twice."""
    print(text)
    get_run_logger().warning("%s, said twice", text)


@flow(task_runner="threads")
def adding(count: int, *, kind: str = "plain", offset: float = 0.5) -> float:
    """Add up doubled numbers.

    Args:
        count: how many numbers
        kind: what kind of adding
        offset: what is added at the end
    """
    assert kind == "plain"
    return sum(double.map(list(range(count))).result()) + offset


@flow(task_runner="threads")
def failing(count: int = 5) -> list[int]:
    """Double numbers, of which 3 fails."""
    picked = picky.map(list(range(count)))
    return double.map(picked).result()


@flow
def inner(x: int) -> int:
    """Double a number."""
    return double(x)


@flow(task_runner="threads")
def outer() -> int:
    """Call another flow twice."""
    return inner(1) + inner(2)


@flow(task_runner="inline")
def talking() -> None:
    """Log some lines."""
    talk("hello")
    talk(HOSTILE)
    get_run_logger().info("two\nlines")


@task(name=HOSTILE)
def hostile() -> None:
    """Fail with a hostile message."""
    raise ValueError(HOSTILE)


@flow(name=HOSTILE, flow_run_name=HOSTILE, task_runner="inline")
def cursed(text: str = "") -> str:
    """Return hostile text, or another."""
    hostile.submit(return_state=True)
    return text or HOSTILE


@flow
def waiting(gate: Path) -> str:
    """Wait for ever, unless the gate is there."""
    double(1)
    if not gate.exists():
        print("waiting", flush=True)
        threading.Event().wait()
    return "through"


@flow
def leaving() -> None:
    """Leave the process."""
    raise SystemExit(5)


@flow(task_runner="threads")
def noisy() -> None:
    """Print from here, from a child process, and half a line."""
    print("from here")
    subprocess.run(["sh", "-c", "echo from a child; echo and its errors >&2"], check=True)
    double.map([1, 2]).wait()
    print("half a line", end="")
