"""What this process has open: its journal, its sessions, the runners it has used.

Root flow runs come and go; work outside of flows belongs to one ambient session, made at its first use.
`shutdown` ends it all, also at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from dflow import settings as settings_module
from dflow.attempts.context import FlowInfo, works_for_another
from dflow.attempts.haste import calm, hurried_by_interrupts
from dflow.core import events as ev
from dflow.core.records import Policy
from dflow.engine import listing, remote_flows, run_logs, runners, system
from dflow.engine.driver_scope import DriverScope
from dflow.engine.recovery import forget_damaged, forget_gone, table_of, take_over
from dflow.engine.renewal import Again
from dflow.engine.roots import root_info
from dflow.engine.session import Session
from dflow.engine.tracker import Do
from dflow.engine.watch import Watch
from dflow.errors import JournalUnavailable, NoRunError
from dflow.journal import SqliteJournal
from dflow.journal.holding import in_words
from dflow.messages import LogEntry
from dflow.ports import Clock, Ids, Journal, Missing, RunEntry, TaskRunner
from dflow.settings import Settings

AMBIENT = "session"
"""The name of the flow to which work outside of flows belongs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The parts that sessions of one process share. Tests give their own journal, clock and ids."""

    settings: Settings
    journal: Journal
    clock: Clock = field(default_factory=system.SystemClock)
    ids: Ids = field(default_factory=system.SystemIds)
    pid: int = field(default_factory=os.getpid)
    pinned: bool = False


def _opened(settings: Settings) -> Process:
    journal = SqliteJournal(
        Path(settings.home), durability=settings.durability, is_alive=system.is_alive
    )
    return Process(settings=settings, journal=journal)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRun:
    """A root flow run that is to be driven here: a new one, or one that is taken up `again`.

    That may be refused: `check` raises why.
    """

    flow: FlowInfo
    runner: Callable[[], TaskRunner]
    policy: Policy = Policy()
    details: Mapping[str, Any] = field(default_factory=dict)
    again: Again | None = None
    check: Callable[[Session], None] = lambda session: None


_lock = threading.RLock()
_process: Process | None = None
_ambient: tuple[Session, DriverScope] | None = None
_roots: dict[str, Session] = {}
_ending: list[Process] = []
"""What those sessions share that are just ending, once for each of them."""
_used: set[TaskRunner] = set()
_watchers: list[Callable[[Session], None]] = []


def process() -> Process:
    """Return what sessions of this process share, as the settings are now. Raises `SettingsError`."""
    global _process  # noqa: PLW0603  (one per process, by its nature)
    with _lock:
        if _process is not None and _process.pid != os.getpid():
            _forget_parent()
        if _process is not None and (_process.pinned or _roots or _ambient is not None):
            return _process
        wanted = settings_module.load()
        if _process is not None and _process.settings != wanted:
            _let_go(_process)
            _process = None
        if _process is None:
            _process = _opened(wanted)
            _end_at_exit()
        return _process


def _let_go(old: Process) -> None:
    """Close a journal on which no session begins any more; where some still end, the last of them does."""
    if old not in _ending:
        old.journal.close()


@contextmanager
def _closing(run_id: str, here: Process) -> Iterator[None]:
    """Keep the journal open while the session of a run ends, whatever begins meanwhile in other threads."""
    with _lock:
        _roots.pop(run_id, None)
        _ending.append(here)
    try:
        yield
    finally:
        with _lock:
            _ending.remove(here)
            if here is not _process and not here.pinned:
                _let_go(here)


@cache
def _end_at_exit() -> None:
    """Let the ambient session end at exit, and then `shutdown` run.

    The session ends before the standard library ends the executors that runners stand on, which is before
    anything that is registered with ``atexit``: ``threading`` keeps a list of its own for them, the last
    entry first, which has no public name. Flows that were started beside end before.
    """
    atexit.register(_shutdown_at_exit)
    register: Callable[[Callable[[], None]], object] = getattr(
        threading, "_register_atexit", atexit.register
    )
    register(_end_ambient)


def _end_ambient() -> None:
    with _lock:
        if _process is not None and _process.pid == os.getpid():
            _close_ambient()


def _forget_parent() -> None:
    """After a fork: what was the parent's is left alone, this process starts afresh."""
    global _process, _ambient
    _process, _ambient = None, None
    _roots.clear()
    _ending.clear()
    _used.clear()
    listing.forget()


@contextmanager
def replaced(other: Process) -> Iterator[Process]:
    """Let sessions that begin inside use `other`: its journal, its clock, its ids, its settings."""
    global _process  # noqa: PLW0603  (one per process, by its nature)
    with _lock:
        before, _process = _process, replace(other, pinned=True)
    try:
        yield other
    finally:
        with _lock:
            _close_ambient()
            listing.forget()
            _process = before


@contextmanager
def watched(watcher: Callable[[Session], None]) -> Iterator[None]:
    """Call ``watcher(session)`` for each session of a root flow run that begins inside."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def wake() -> None:
    """Let open sessions look at the clock: for tests that move it."""
    with _lock:
        sessions = [*_roots.values(), *([] if _ambient is None else [_ambient[0]])]
    for opened in sessions:
        opened.tracker.post(Do(lambda ledger: None))


def use(runner: Any) -> TaskRunner:
    """Return the runner that an instance, a class, a name or None (the default one) speaks of."""
    chosen = runners.resolve(process().settings.task_runner if runner is None else runner)
    with _lock:
        _used.add(chosen)
    return chosen


@contextmanager
def session(root: RootRun) -> Iterator[Session]:
    """Drive a root flow run: claim it, open its journal, and close everything at the end.

    Raises errors of `JournalError`, `RunHeld` among them.
    """
    here = process()
    run_logs.prepare(here.settings.log_level)
    if not _roots:
        calm()
    listing.tell()
    run_id, now = root.flow.flow_run_id, here.clock.now()
    catalog, holder = here.journal.catalog, system.holder()
    if root.again is None:
        epoch = 1
        catalog.create(
            RunEntry(
                id=run_id,
                name=root.flow.flow_run_name,
                flow_name=root.flow.flow_name,
                created_at=now,
                changed_at=now,
                epoch=epoch,
                holder=holder,
                heartbeat=now,
                details=root.details,
            )
        )
    else:
        epoch = catalog.claim(run_id, holder, now)
    try:
        journal = here.journal.write(run_id, epoch)
        table = None if root.again is None else table_of(journal)
        opened = Session(
            root.flow,
            journal,
            here.settings,
            here.clock,
            here.ids,
            table,
            again=root.again,
            answer=remote_flows.answer,
            reader=lambda: here.journal.read(run_id),
            leases=here.journal.leases,
            holder=holder,
        )
    except BaseException:
        listing.tell(partial(catalog.release, run_id, epoch))
        raise
    opened.add_flow(root.flow, root.runner)
    watch = Watch(opened, catalog, run_id, epoch, here.clock)
    with _lock:
        _roots[run_id] = opened
    refused = root.again is not None
    try:
        if root.again is not None:
            root.check(opened)
            refused = False
        _begin(opened, root, journal.missing())
        if root.again is not None:
            catalog.update(run_id, epoch, "Running", "", now)
        for watcher in _watchers:
            watcher(opened)
        yield opened
    finally:
        if os.getpid() == here.pid:  # a fork leaves alone what is its parent's
            with _closing(run_id, here), hurried_by_interrupts():
                try:
                    watch.stop()
                    opened.close()
                finally:
                    listing.tell_end(opened, catalog, epoch, refused=refused)


def _told(missing: Missing) -> str:
    return (
        f"The record of this run lacks {in_words(missing)}: the machine lost power, or a file of the "
        "record was cut. What they told is done again."
    )


def _begin(opened: Session, root: RootRun, missing: Missing) -> None:
    now, run_id = opened.clock.now(), root.flow.flow_run_id
    if missing:
        opened.tracker.post(
            LogEntry(now, run_id, None, 0, logging.WARNING, __name__, _told(missing))
        )
    if root.again is None or run_id not in opened.tracker.shown:
        opened.tracker.post(  # recorded with its start, for which whoever runs its body waits
            ev.FlowRunCreated(
                at=now,
                flow_run_id=run_id,
                root_id=run_id,
                parent_id=None,
                flow_name=root.flow.flow_name,
                name=root.flow.flow_run_name,
                policy=root.policy,
                tags=root.flow.tags,
            )
        )
        return
    take_over(opened, now)
    forget_damaged(opened)
    forget_gone(opened)


# Work outside of flows -------------------------------------------------------------------------------


def ambient_scope() -> DriverScope:
    """Return the scope of work outside of flows. Raises `NoRunError` in a stray thread of a body."""
    global _ambient  # noqa: PLW0603  (one per process, by its nature)
    with _lock:
        if works_for_another() and not _roots and _ambient is None:
            raise _stray()
    process()
    stray = threading.current_thread() is not threading.main_thread()
    with _lock:
        if _roots and stray and not _in_loop():
            raise _stray()
        if _ambient is None:
            _ambient = _open_ambient()
        return _ambient[1]


def _stray() -> NoRunError:
    return NoRunError(
        "A task was called in a thread that does not know the run it belongs to. Give the thread "
        "current_run().bind(function) to run, so that it does."
    )


def _in_loop() -> bool:
    """Tell whether an event loop runs in this thread: flows beside it are no reason to suspect a mistake."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_ambient_exit = contextlib.ExitStack()


def _open_ambient() -> tuple[Session, DriverScope]:
    here = process()
    run_id = here.ids.run_id()
    flow = root_info(here.settings, run_id, here.ids.run_name(), AMBIENT)
    opened = _ambient_exit.enter_context(session(RootRun(flow=flow, runner=lambda: use(None))))
    _roots.pop(run_id)
    opened.tracker.commit(ev.FlowRunStarted(at=here.clock.now(), flow_run_id=run_id, generation=1))
    return opened, DriverScope(opened, run_id, run_id, lambda: opened.open_runner(run_id))


def _close_ambient() -> None:
    """End the ambient session: what nobody waited for is cancelled."""
    global _ambient  # noqa: PLW0603  (one per process, by its nature)
    if _ambient is None:
        return
    opened, scope = _ambient
    _ambient = None
    run_id, now = scope.flow_run_id, opened.clock.now()
    with _ambient_exit:
        if opened.tracker.failure is not None:
            return
        returned = ev.FlowRunReturned(at=now, flow_run_id=run_id, state_name="Completed")
        try:
            opened.in_tracker(lambda led: led.closing.cancel_all(run_id, now), patient=False)
            opened.in_tracker(lambda led: led.closing.abandon_all(run_id, now), patient=False)
            opened.tracker.commit(returned, patient=False)
        except JournalUnavailable as error:
            run_logs.show(
                logging.ERROR, f"ERROR   The end of this session is not recorded: {error}"
            )


def _shutdown_at_exit() -> None:
    with contextlib.suppress(KeyboardInterrupt):  # whoever presses Ctrl-C now does not want to wait
        shutdown()


def shutdown() -> None:
    """End the session of work outside of flows, and let go of clusters, threads and files.

    Called at exit too. A flow or a task that is called afterwards starts afresh.

    >>> shutdown()
    """
    global _process  # noqa: PLW0603  (one per process, by its nature)
    with _lock:
        if _process is None or _process.pid != os.getpid():
            return
        _close_ambient()
        for runner in _used:
            runner.shutdown()
        _used.clear()
        listing.tell()
        listing.forget()
        _let_go(_process)
        _process = None
