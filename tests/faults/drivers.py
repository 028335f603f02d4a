"""The program that is killed: it runs or resumes one flow of the campaign, and dies where it is told to.

``python -m tests.faults.drivers`` with an `Order` in JSON is such a program; `serve` forks one after the
other from a process that has loaded everything and has no thread yet, which is the same without the loading.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from dflow import runs
from dflow.engine import driver_scope, process, retirement
from dflow.engine.claims import Changes
from dflow.engine.defined import to_the_end
from dflow.engine.identity import Children
from dflow.engine.tracker import Tracker
from dflow.errors import NotResumable
from dflow.journal.sqlite.connection import Use
from dflow.journal.sqlite.run_journal import SqliteRunJournal
from tests.faults import oracle
from tests.faults.flows import CASES


@dataclass(frozen=True, slots=True)
class Order:
    """What a driver is to do: run a flow, or resume the latest run of a home.

    It kills itself at the transaction `crash_at`, counted from 1 over all files, `place` of which is "before"
    it begins, "middle" (all is written and nothing committed) or "after" (before anything is shown). With a
    `sabotage` it breaks a promise, to see that this is noticed.
    """

    flow: str
    home: str
    oracle: str
    runner: str
    resumes: bool = False
    crash_at: int = 0
    place: str = "before"
    durability: str = "normal"
    sabotage: str = ""


def drive(order: Order) -> None:
    """Do what is ordered, and note what comes of it."""
    os.environ.update(
        DFLOW_HOME=order.home,
        DFLOW_TASK_RUNNER=order.runner,
        DFLOW_LOG_LEVEL="ERROR",
        DFLOW_DURABILITY=order.durability,
    )
    retirement.KEPT = 1  # or task runs would leave the memory of a driver in long runs only
    driver_scope.OVER = 1
    Transactions(order.crash_at, order.place).count()
    SABOTAGES[order.sabotage]()
    oracle.note(order.oracle, "resume" if order.resumes else "run")
    try:
        if order.resumes:
            value = runs.resume("latest")
        else:
            chosen = CASES[order.flow].flow
            value = to_the_end(chosen.kind, chosen(order.oracle))
    except NotResumable as error:
        oracle.note(order.oracle, "refused", why=str(error))
    else:
        oracle.note(order.oracle, "returned", value=value)
    process.shutdown()
    oracle.note(order.oracle, "ends", transactions=Transactions.seen)


@dataclass(slots=True)
class Transactions:
    """Counts the transactions of this process, and kills it at one of them."""

    crash_at: int
    place: str

    seen = 0
    alone: ClassVar[set[int]] = set()
    """The threads that write with one statement now, which begins no transaction in words."""

    def count(self) -> None:
        """Count from now on: this stands before and behind what each transaction does."""
        enter, leave = Use.__enter__, Use.__exit__

        def entered(use: Use) -> Any:
            if _writes(use):
                Transactions.seen += 1
                self._reach("before")
            return enter(use)

        def left(use: Use, kind: Any, error: Any, trace: Any) -> None:
            if _writes(use) and kind is None:
                self._reach("middle")
            leave(use, kind, error, trace)
            if _writes(use):
                self._reach("after")

        write = SqliteRunJournal._write_alone

        def alone(journal: SqliteRunJournal, *given: Any) -> None:
            Transactions.alone.add(threading.get_ident())
            try:
                write(journal, *given)
            finally:
                Transactions.alone.discard(threading.get_ident())

        # In the program that is to die.
        Use.__enter__ = entered  # type: ignore[method-assign]
        Use.__exit__ = left  # type: ignore[method-assign]
        SqliteRunJournal._write_alone = alone  # type: ignore[assignment,method-assign]

    def _reach(self, place: str) -> None:
        if Transactions.seen == self.crash_at and place == self.place:
            os.kill(os.getpid(), signal.SIGKILL)


def _writes(use: Use) -> bool:
    return use._begin == "BEGIN IMMEDIATE" or threading.get_ident() in Transactions.alone


def _show_before_writing() -> None:
    write, show = Tracker._write, Tracker._show

    def shown_and_written(self: Tracker, changes: Changes) -> None:
        show(self, changes)
        time.sleep(0.01)  # or nobody sees it in time
        write(self, changes)

    Tracker._write = shown_and_written  # type: ignore[method-assign]  # in the program that is to die


def _name_by_luck() -> None:
    begin = Children.__init__

    def begun(self: Children, parent_id: str, execution: str = "") -> None:
        begin(self, f"{parent_id}{os.getpid()}", execution)

    Children.__init__ = begun  # type: ignore[method-assign]  # as above


SABOTAGES: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "shows before it writes": _show_before_writing,
    "names task runs by luck": _name_by_luck,
}


def serve() -> None:
    """Fork a driver for each order that comes in; say its pid, and how it has ended."""
    gc.freeze()  # or forks copy all pages at their first collection
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if threading.active_count() > 1:
            raise RuntimeError(
                f"A process with threads must not fork drivers: {threading.enumerate()}"
            )
        said = order.pop("said")
        pid = os.fork()
        if pid == 0:
            _begin_anew(Path(said))
            _end_at_once(Order(**order))
        print(f"pid {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"end {os.waitstatus_to_exitcode(status)}", flush=True)


def _end_at_once(order: Order) -> None:
    """Do what is ordered, and end without the long goodbye of an interpreter that has loaded everything."""
    code = 1
    try:
        drive(order)
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _begin_anew(said: Path) -> None:
    """Let what a fork says go to a file of its own, and dump its threads there when it is asked to."""
    handle = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (handle, 1), (handle, 2)):
        os.dup2(source, target)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def text_of(order: Order) -> str:
    """Return an order as the program takes it."""
    return json.dumps(asdict(order))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        importlib.import_module("task_runners.dask.clusters")  # others load it as they need it
        serve()
    else:
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        drive(Order(**json.loads(sys.argv[1])))
