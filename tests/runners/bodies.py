"""Bodies that runners are given. Workers import this module by its name."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import sys
import threading
import time
from typing import Any

import numpy as np

from dflow.attempts.calls import Call
from dflow.attempts.context import current
from dflow.attempts.logs import get_run_logger
from dflow.core.events import TaskCreated
from dflow.messages import CallOptions, ChildrenCreated, Settled

calls: list[Any] = []


def add(*numbers: int) -> int:
    """Return a sum."""
    return sum(numbers)


def linger(seconds: float) -> float:
    """Take so many seconds, and return when it began."""
    began = time.time()
    threading.Event().wait(seconds)
    return began


def fail(text: str = "no") -> None:
    """Raise."""
    raise ValueError(text)


def leave() -> None:
    """Ask the process to end."""
    sys.exit(3)


def interrupt() -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


def make_lock() -> Any:
    """Return what cannot be pickled."""
    return threading.Lock()


def large(size: int) -> bytes:
    """Return so many bytes."""
    return bytes(size)


def size_of(data: Any, **_: Any) -> int:
    """Return a length."""
    return len(data)


def talk(text: str) -> str:
    """Print a line and log one."""
    print(text)
    get_run_logger().warning("warned: %s", text)
    return text


def fail_or_talk(fails: bool, text: str) -> str:
    """Talk, and raise if asked to."""
    talk(text)
    if fails:
        raise ValueError(text)
    return text


def total(own: int, size: int, *below: tuple[int, bytes]) -> tuple[int, bytes]:
    """Return a sum, with so many bytes beside it; what is negative is refused."""
    if own < 0:
        raise ValueError(own)
    return own + sum(each for each, _ in below), bytes(size)


def note(path: str, text: str, dies: bool = False) -> str:
    """Append this process's id and a text to a file, at once; end the process if asked to."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()} {text}\n")
    if dies:
        os._exit(1)
    return text


def large_or_die(path: str, text: str, size: int = 10, dies: bool = False) -> bytes:
    """Note a text and return bytes; or end the process, after a moment."""
    note(path, text)
    if dies:
        time.sleep(0.1)
        os._exit(1)
    return bytes(size)


def leave_or_not(how: str) -> str:
    """Ask the process to end, in one way or another, or return."""
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    return how


def wait_in_slot_if(path: str) -> str:
    """Give the slot back until a file appears, if one is named."""
    context = current()
    assert context is not None
    if path:
        with context.slot():
            while not os.path.exists(path):
                threading.Event().wait(0.02)
    return path


def wait_and_hold(wait: str, back: str, hold: str) -> None:
    """Give the slot back until a file appears; then say so by one, and keep it until another appears."""
    context = current()
    assert context is not None
    with context.slot():
        while not os.path.exists(wait):
            threading.Event().wait(0.02)
    touch_and_wait(back, hold)


class Telling:
    """Appends the id of the process in which it is unpickled to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return tell_pid, (self.path,)


def tell_pid(path: str) -> Telling:
    """Append this process's id to a file."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()} ")
    return Telling(path)


def same(*_: Any, **__: Any) -> int:
    """Return the id of this process, whatever is given."""
    return os.getpid()


def remember(what: Any) -> list[Any]:
    """Return all that was remembered in this process."""
    calls.append(what)
    return list(calls)


def pid(*_: Any) -> int:
    """Return the id of this process."""
    return os.getpid()


def surroundings() -> dict[str, Any]:
    """Return what a worker process has of its own, and what it must not have."""
    return {
        "luck": (random.random(), float(np.random.random())),
        "hash": hash("dflow"),
        "environment": dict(os.environ),
    }


def die(*_: Any) -> None:
    """End this process without a word."""
    os._exit(1)


def touch_and_wait(begun: str, go_on: str) -> str:
    """Say that it began by a file, and go on when another one appears."""
    open(begun, "w").close()
    while not os.path.exists(go_on):
        threading.Event().wait(0.02)
    return begun


def context_of(*_: Any) -> Any:
    """Return what the body knows of its run."""
    context = current()
    return (context.run_id, context.attempt, context.worker) if context else None


def descend(depth: int) -> int:
    """Make a task run of its own, wait for it, and return how deep it went."""
    context = current()
    assert context is not None
    link, run_id = context.link, context.run_id
    if depth == 0:
        return 0
    event = TaskCreated(
        at=0.0,
        task_run_id=f"{run_id}.{depth}",
        flow_run_id=context.info.flow_run_id,
        parent_id=run_id,
        task_name="descend",
        name=f"descend-{depth}",
    )
    call = link.pack(Call(descend, (depth - 1,)))
    link.send(ChildrenCreated(link.address, event, (call,), CallOptions()))
    with context.slot():
        settled = link.receive()
    assert isinstance(settled, Settled)
    assert settled.key is not None
    below: int = link.fetch(settled.key)
    return below + 1


def sit(path: str) -> None:
    """Write this process's id to a file, and never return."""
    write_pid(path)
    threading.Event().wait()


def sit_once(path: str) -> None:
    """Sit, unless somebody did before."""
    if not os.path.exists(path):
        sit(path)


def write_pid(path: str) -> None:
    """Write this process's id to a file, all at once."""
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)


def last_words() -> None:
    """Say something, and be killed shortly after."""
    get_run_logger().warning("last words")
    threading.Event().wait(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """Touch memory that is not there."""
    ctypes.string_at(0)


def pid_and_more() -> tuple[int, bytes]:
    """Return this process's id, with enough to keep it from travelling with the outcome."""
    return os.getpid(), bytes(100_000)


def once(marker: str) -> tuple[int, bytes]:
    """Work the first time only."""
    with open(marker, "x"):
        return pid_and_more()


class Mute:
    """Large, and can be pickled nowhere."""

    def __init__(self) -> None:
        self.data = bytes(100_000)
        self.lock = threading.Lock()


def make_mute() -> Mute:
    """Return what is large and cannot be pickled."""
    return Mute()


class Unreadable:
    """Can be pickled, but not read again."""

    def __init__(self) -> None:
        self.data = bytes(100_000)

    def __reduce__(self) -> Any:
        return int, ("not a number", "x" * 100_000)


def make_unreadable() -> Unreadable:
    """Return what is large and cannot be read again."""
    return Unreadable()


def babble(lines: int) -> None:
    """Log many lines."""
    logger = get_run_logger()
    for number in range(lines):
        logger.warning("line %d", number)


def divide_by_nothing(value: bytes) -> float:
    """Raise."""
    return len(value) / 0


def pages_for(size: int, times: int) -> int:
    """Make a block and free it, some times; return how many pages the process was given for that."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
