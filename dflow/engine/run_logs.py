"""The driver's log: what runs say, and what becomes of them, in one place for people to read.

Lines of runs go through the journal first and are shown here after. The logger is ``dflow``; a program that
has set up logging of its own gets them there, any other on standard error.
"""

from __future__ import annotations

import logging
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from dflow.attempts.context import FlowInfo
from dflow.attempts.prints import uncaptured
from dflow.core import events as ev
from dflow.core.machine import message_of
from dflow.core.records import Cause, Ending, FlowRun, Need, Stage, TaskRun
from dflow.errors import JournalUnavailable
from dflow.messages import LogEntry

SHOWN = "dflow.runs"
"""The logger on which lines of runs are shown."""
NAME = 60
"""How many characters of a name are shown."""
MESSAGE = 500
"""How many characters of what became of a run are shown; the record has them all."""

_lock = threading.Lock()
_handler: logging.Handler | None = None


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # its stream is looked up
    """Writes to what ``sys.stderr`` is at the moment, so that captured and redirected output works."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def prepare(level: str) -> None:
    """Show the lines of runs on standard error, unless the program has set up logging of its own."""
    global _handler  # noqa: PLW0603  (one per process, by its nature)
    logger = logging.getLogger("dflow")
    with _lock:
        logger.setLevel(level)
        if _handler is None and not logger.handlers and not logging.getLogger().handlers:
            _handler = _Stderr()
            _handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            logger.addHandler(_handler)


def show(level: int, message: str) -> None:
    """Show one line. A log handler of the program that raises harms no run: that is printed."""
    try:
        logging.getLogger(SHOWN).log(level, message)
    except Exception:
        traceback.print_exc()


KEPT = "\n\t"
"""Control characters that log lines may have."""


def escaped(text: str, keep: str = "") -> str:
    """Return text with escapes for what would move a cursor, change a colour or turn the writing round."""
    if text.isprintable():
        return text
    return "".join(char if char in keep or char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def one_line(text: str, limit: int) -> str:
    """Return text on one line, escaped, with ``…`` for what goes beyond `limit` characters."""
    shown = escaped(text[:limit])
    return shown if max(len(shown), len(text)) <= limit else shown[: limit - 1] + "…"


def echo(entries: Sequence[LogEntry], name_of: Callable[[str], str]) -> None:
    """Show lines of runs, each with the name of its run, its attempt if it is not the first, its worker."""
    for entry in entries:
        if entry.shown:
            continue
        who = one_line(name_of(entry.task_run_id or entry.flow_run_id), NAME)
        if entry.attempt > 1:
            who += f" (attempt {entry.attempt})"
        if entry.worker:
            who += f" @ {entry.worker}"
        show(
            entry.level,
            f"{logging.getLevelName(entry.level):<7} {who} | {escaped(entry.message, KEPT)}",
        )


def print_line(text: str) -> None:
    """Print a line that a body on a worker printed, as if it had been printed here.

    An output that is gone, or has no such characters, must not hold up the run.
    """
    with uncaptured():
        try:
            _print(text + "\n")
        except (OSError, ValueError, AttributeError) as error:
            logging.getLogger("dflow.engine").debug("Could not print %r: %s", text, error)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def announce_loss(run: TaskRun, event: ev.WorkerLost) -> None:
    """Show that an attempt was lost with its worker, and that the task run goes again.

    What crashed of it is announced as such; what a driver that is gone has left open is not news.
    """
    attempts = [a for a in run.attempts if (a.dispatch, a.ending) == (event.dispatch, Ending.LOST)]
    if not attempts or event.cause is Cause.DRIVER_LOST:
        return
    if run.stage.final and run.attempts[-1] is attempts[0]:
        return
    charged = event.cause is Cause.WORKER_DIED
    spent = f" (loss {run.losses} of {run.policy.max_worker_losses})" if charged else ""
    why = event.message.rstrip(".") or f"Its worker {attempts[0].worker} is gone"
    name = one_line(run.name, NAME)
    show(logging.WARNING, f"LOST    {name} | {one_line(why, MESSAGE)}; it runs again{spent}")


_ANNOUNCED = frozenset({Stage.AWAITING_RETRY, Stage.FAILED, Stage.CRASHED})


def announce(run: TaskRun | FlowRun) -> None:
    """Show what became of a run, where somebody should know: retries that are waited for, and failures."""
    if run.stage not in _ANNOUNCED or isinstance(run, FlowRun):
        return
    if run.stage is Stage.AWAITING_RETRY:
        _show_retry(run, run.message, max(0.0, (run.due or run.changed_at) - run.changed_at))
    elif run.state_name != "UpstreamFailed" or not any(u.need is Need.ALLOW for u in run.upstreams):
        name, message = one_line(run.name, NAME), one_line(run.message, MESSAGE)
        show(logging.ERROR, f"{run.state_name.upper():<7} {name} | {message}")


def announce_retry(run: TaskRun, failure: ev.AttemptRaised | ev.AttemptTimedOut) -> None:
    """Show that an attempt failed, if the next one goes at once: of one that waits its record tells."""
    if not run.stage.final and run.stage is not Stage.AWAITING_RETRY:
        _show_retry(run, message_of(failure), 0.0)


def _show_retry(run: TaskRun, failure: str, wait: float) -> None:
    if not logging.getLogger(SHOWN).isEnabledFor(logging.WARNING):
        return  # thousands may fail together
    tried = f"attempt {len(run.attempts_now)} of {run.policy.retries + 1}"
    name, message = one_line(run.name, NAME), one_line(failure, MESSAGE)
    why = f"{tried} failed: {message}" if run.attempts_now else "it still awaits a retry"
    show(logging.WARNING, f"RETRY   {name} | {why}; next in {wait:.1f} s")


def show_left(what: str, names: Sequence[str], level: int) -> None:
    """Show which task runs of an earlier pass nobody has asked for in this one, if there are any."""
    if names:
        shown = ", ".join(one_line(name, NAME) for name in names[:10])
        more = ", …" if len(names) > 10 else ""
        runs = "task run" if len(names) == 1 else "task runs"
        show(
            level,
            f"{logging.getLevelName(level):<7} {len(names):,} {what} {runs} of the earlier run "
            f"{'was' if len(names) == 1 else 'were'} not asked for again: {shown}{more}",
        )


def show_mixed(run_name: str, pairs: Sequence[tuple[TaskRun, TaskRun]]) -> None:
    """Show that results are given which were made from values that had to be made again, if there are any."""
    if not pairs:
        return
    shown = ", ".join(
        f"{one_line(given.name, NAME)} (from {one_line(source.name, NAME)})"
        for given, source in pairs[:5]
    )
    run, task = one_line(run_name, NAME), one_line(pairs[0][1].task_name, NAME)
    show(
        logging.WARNING,
        f"WARNING {run} | {len(pairs):,} recorded results were given, though what they were made from was "
        f"not kept and has been made again: {shown}{', …' if len(pairs) > 5 else ''}. If that may give "
        "another value, keep it (persist_result=True) or give it a seed. To make all of it again: "
        f"dflow rerun {shlex.quote(run)} --from {shlex.quote(task)}",
    )


def show_changed(run_name: str, task_name: str) -> None:
    """Show that results of a task are given though its code has changed, and how to have others."""
    task, run = one_line(task_name, NAME), one_line(run_name, NAME)
    show(
        logging.WARNING,
        f"WARNING {run} | The code of task '{task}' has changed since task runs of it have completed; their "
        "results are given as they are. To have them again: resume with --rerun-changed "
        "(rerun_changed=True), or when it has ended: "
        f"dflow rerun {shlex.quote(run)} --from {shlex.quote(task)}",
    )


def show_end(name: str, flow_name: str, state_name: str, message: str) -> None:
    """Show how a root flow run ended."""
    level = logging.INFO if state_name == "Completed" else logging.ERROR
    what = f"flow '{one_line(flow_name, NAME)}'. {one_line(message, MESSAGE)}".rstrip()
    show(level, f"{state_name.upper():<7} {one_line(name, NAME)} | {what}")


def show_unsaved(flow: FlowInfo, error: JournalUnavailable) -> None:
    """Show that a flow run was interrupted while its journal could not be written."""
    name = one_line(flow.flow_run_name, NAME)
    show(
        logging.ERROR,
        f"INTERRUPTED {name} | What has ended since its journal could not be written is not recorded, and "
        f"will be done again. {error} Then go on with: dflow resume {flow.root_id}",
    )


def show_interrupted(name: str, how: str | None) -> None:
    """Show that a root flow run was interrupted, and how it goes on, if it can."""
    then = "It cannot be resumed: run it again." if how is None else f"Go on with: {how}"
    show(logging.WARNING, f"INTERRUPTED {one_line(name, NAME)} | {then}")
