"""The oracle: a file outside of the journal. Bodies note there what they did, flows what they were shown.

Each line is written with one system call, so that what was written before a kill is there, whole, after it.
Only what a process is writing when it is killed may be cut: that line is as if it had not been begun.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dflow import current_run

_executions = itertools.count()


@dataclass(frozen=True, slots=True)
class Made:
    """What bodies of the campaign return: a number, and by which execution of which task run it was made."""

    number: int
    run: str
    by: str
    payload: bytes = b""

    def __repr__(self) -> str:
        return f"Made({self.number})"


def note(oracle: str, what: str, **about: Any) -> None:
    """Write one line."""
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **about})
    handle = os.open(oracle, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"\n{line}\n".encode())  # behind what a kill may have cut off
    finally:
        os.close(handle)


@contextmanager
def executed(oracle: str) -> Iterator[Callable[..., Made]]:
    """Note that a body starts, and that it ends well; give what makes its value."""
    run = current_run()
    about = {
        "run": run.task_run_id,
        "key": f"{run.task_name} {_plain(run.parameters)}",
        "attempt": run.attempt,
        "generation": run.generation,
        "by": f"{os.getpid()}-{next(_executions)}",
    }
    note(oracle, "start", **about)

    def make(number: int, payload: bytes = b"") -> Made:
        return Made(number, str(about["run"]), str(about["by"]), payload)

    process = os.getpid()
    yield make
    if os.getpid() == process:  # of a fork nobody hears
        note(oracle, "end", **about)


@contextmanager
def called(oracle: str) -> Iterator[None]:
    """Note that the body of a flow starts, and that it ends well."""
    run = current_run()
    note(oracle, "flow", run=run.id, generation=run.generation)
    yield
    note(oracle, "flow end", run=run.id, generation=run.generation)


def happened(oracle: str, what: str, key: str) -> bool:
    """Tell whether something was noted before, and note it."""
    before = any(line["what"] == what and line.get("key") == key for line in lines(Path(oracle)))
    if not before:
        note(oracle, what, key=key)
    return before


def lines(oracle: Path) -> list[dict[str, Any]]:
    """Return all that was noted, but for what a kill has cut in the middle: the system may stop there."""
    if not oracle.exists():
        return []
    found = []
    for line in filter(None, oracle.read_bytes().splitlines()):
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def count(oracle: Path) -> int:
    """Return how many lines were noted, without reading them."""
    return oracle.read_bytes().count(b"\n") // 2 if oracle.exists() else 0


def _plain(parameters: dict[str, Any]) -> str:
    """Return arguments in words that are the same in every run."""
    given = [value for name, value in parameters.items() if name != "oracle"]
    return repr(given)


def identities(noted: list[dict[str, Any]]) -> Counter[str]:
    """Return under how many identities each piece of work began."""
    return Counter(key for key, _ in {(n["key"], n["run"]) for n in noted if n["what"] == "start"})


def starts(noted: list[dict[str, Any]]) -> Counter[str]:
    """Return how often the body of each task run and of each flow run began."""
    return Counter(line["run"] for line in noted if line["what"] in ("start", "flow"))
