"""The tracker: the one owner of all state of a root flow run.

One thread. Whatever happens is posted to it: by the user's threads, by runners, by attempts through the
Link, by timers. It takes what has come, lets the ledger work out what follows, commits that to the journal
in one transaction, and only then shows it and acts on it. Nobody else changes a record, so records need no
locks.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from queue import Empty

from dflow.attempts.clock import monotonic
from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.creation import ids_of as ids_of
from dflow.core.records import FlowRun, TaskRun
from dflow.engine.alarms import Alarms
from dflow.engine.awaited import Awaited
from dflow.engine.claims import Changes
from dflow.engine.ledger import Ledger
from dflow.engine.notes import Noted
from dflow.engine.postbox import Postbox
from dflow.engine.posts import Alarm as Alarm
from dflow.engine.posts import Asked as Asked
from dflow.engine.posts import Came as Came
from dflow.engine.posts import Committed as Committed
from dflow.engine.posts import Do as Do
from dflow.engine.posts import News as News
from dflow.engine.posts import Post as Post
from dflow.errors import (
    CancelledError,
    DflowError,
    InternalError,
    JournalUnavailable,
)
from dflow.messages import HandleDropped, Key, LogEntry, Storing
from dflow.ports import Batch, Clock, RunJournal

GROUP = 2000
"""How many posts are taken together into one transaction."""
HOLD = 0.005
"""Seconds that the record of first dispatches, which are out already, may wait for what comes next."""
HELD, ROUNDS = 500, 20
"""How many such events wait at most, and for how many rounds."""
CALM = 0.05
"""Seconds without any post after which the journal may do what it has put off."""
RETRY_WRITE = 0.5
"""Seconds between two tries of a transaction that the journal could not write."""
LOOK = 0.1
"""Seconds between two looks of somebody who does not want to wait for the journal."""

_log = logging.getLogger("dflow.engine")


class Tracker:
    """The thread that owns the ledger.

    `act` is called with the commands of each transaction after it is durable, `echo` with its log lines and
    events, `changed` with the records that it changed, `tell` with what was noted of watched task runs,
    `forget` with the task runs that have left the ledger. First dispatches overtake their record, which waits
    a moment for what comes next. An event that `holds` takes is not applied; `luck` feeds the jitter of
    retries. What was asked to stop has `stop_grace` seconds for it.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: RunJournal,
        clock: Clock,
        *,
        act: Callable[[Sequence[do.Command]], None],
        echo: Callable[[Sequence[LogEntry], Sequence[ev.Event]], None],
        changed: Callable[[Iterable[TaskRun | FlowRun]], None],
        stop_grace: float = 10.0,
        holds: Callable[[ev.Event], bool],
        tell: Callable[[Sequence[Noted]], None],
        luck: Callable[[], float],
        forget: Callable[[Sequence[str]], None],
    ) -> None:
        self.shown: dict[str, TaskRun | FlowRun] = {
            **ledger.table.flow_runs,
            **ledger.table.task_runs,
        }
        self.failure: DflowError | None = None
        self.trouble: JournalUnavailable | None = None
        self.ended = False
        self._pid = os.getpid()
        self._ledger = ledger
        self._journal = journal
        self._clock = clock
        self._act = act
        self._echo = echo
        self._changed = changed
        self._holds = holds
        self._tell = tell
        self._forget = forget
        self._posts = Postbox()
        self._alarms = Alarms(clock, stop_grace, luck)
        self._awaited = Awaited(self.shown, ledger.retirement)
        self.when_final = self._awaited.when_final
        self.when_all_final = self._awaited.when_all_final
        self._logs: list[LogEntry] = []
        self._storing: set[Key] = set()
        self._asked_for: list[str] = []
        self._reached: list[Committed] = []
        self._closing = False
        self._put_off = False
        self._taken_at = 0.0
        self._only_asked = True
        self._held = 0
        self._thread = threading.Thread(target=self._run, name="dflow-tracker", daemon=True)

    # From any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def hide(self, run_ids: Iterable[str]) -> None:
        """Do not show final runs that are about to be asked for again, until the tracker has decided."""
        for run_id in run_ids:
            run = self.shown.get(run_id)
            if run is not None and run.stage.final:
                self.shown.pop(run_id, None)

    def check(self) -> None:
        """Raise what made the tracker fail, that it has ended, or that this process is a fork."""
        if self.failure is not None:
            raise self.failure
        if os.getpid() != self._pid:
            raise JournalUnavailable(
                f"The flow run belongs to process {self._pid}, of which this one is a fork. "
                "Call flows and tasks in the original process only."
            )
        if self.ended:
            raise CancelledError("The flow run has ended: nothing more can be asked for in it.")

    def post(self, *posts: Post) -> None:
        """Tell the tracker what happened. Does not block. Raises as `check` does."""
        self.check()
        for post in posts:
            self._posts.put(post)

    def post_soon(self, post: Post) -> None:
        """Tell the tracker what it may take with the next post. Does not block. Raises as `check` does."""
        self.check()
        self._posts.put_soon(post)

    def commit(self, *posts: Post, patient: bool = True) -> None:
        """Post, and wait until that and all before it is durable and shown. Raises as `check` does.

        While the journal cannot be written this waits; who is not `patient` gets its `JournalUnavailable`.
        """
        mark = Committed()
        self.post(*posts, mark)
        while not mark.reached.wait(1.0 if patient else LOOK):
            self.check()
            if self.trouble is not None and not patient:
                raise self.trouble
        if not mark.durable:
            self.check()

    def wake_at(self, due: float, then: Callable[[], None]) -> None:
        """Call `then` at a time, in seconds since 1970, from the tracker's thread. Raises as `check` does."""
        self.post(Alarm(due, then))

    def fail(self, error: DflowError) -> None:
        """Stop showing anything, and wake everybody who waits: they will find `failure`."""
        self.failure = error
        self._wake_all()

    def _wake_all(self) -> None:
        for call in self._awaited.end():
            call()
        for mark in self._reached:
            mark.reached.set()
        posts = self._posts.emptied()
        for post in posts:
            if isinstance(post, Committed):
                post.reached.set()
        if None in posts:
            self._posts.put(None)  # the thread has still to end

    def close(self) -> None:
        """Commit what was posted, and end the thread."""
        self._closing = True
        self._posts.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # In the tracker's thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except DflowError as error:
            self.failure = error
        except BaseException as error:
            _log.exception("The tracker failed")
            self.failure = InternalError(f"The tracker failed: {error!r}. Please report this.")
        finally:
            self.ended = True
            self._wake_all()

    def _round(self) -> bool:
        """Take what has come, commit it, act on it; return False when there is nothing more to come."""
        self._only_asked = True
        goes_on = self._take_in()
        self._ring()
        if firsts := self._ledger.take_firsts():
            self._act(firsts)
        if goes_on and self._only_asked and 0 < self._ledger.weight < HELD and self._held < ROUNDS:
            self._held += 1
            return True
        self._held = 0
        changes = self._ledger.take()
        self._write(changes)
        self._show(changes)
        if changes.orders:
            flows = self._ledger.table.flow_runs
            self._act([o for o in changes.orders if not self._alarms.take(o, o.run_id in flows)])
        for mark in self._reached:
            mark.durable = True
            mark.reached.set()
        self._reached.clear()
        if goes_on and self._ledger.retirement.due:
            self._retire(len(changes.records))
        return goes_on

    def _retire(self, changed: int) -> None:
        """Keep nothing in memory of some task runs that nobody needs any more, if the journal has them."""
        chosen = self._ledger.retirement.choose(changed)
        gone = self._journal.let_go(chosen)
        self._ledger.retire(gone)
        for task_run_id in gone:
            self.shown.pop(task_run_id, None)
        self._forget(gone)
        if len(gone) < len(chosen):
            left = set(gone)
            self._ledger.retirement.put_back(run_id for run_id in chosen if run_id not in left)

    def _take_in(self) -> bool:
        """Take what has come, waiting for something; return False after the last post."""
        taken = 0
        try:
            post = self._posts.get(self._patience())
            while post is not None:
                taken += self._absorb(post)
                if taken >= GROUP:
                    self._taken_at = monotonic()
                    return True
                post = self._posts.get(0)
        except Empty:
            self._only_asked = self._only_asked and taken > 0
            if taken:
                self._taken_at = monotonic()
            elif self._put_off and monotonic() - self._taken_at >= CALM:
                self._catch_up()
            return True
        return False

    def _patience(self) -> float:
        """Return how many seconds to wait for a post."""
        patience = self._alarms.seconds_left()
        if self._held:
            patience = min(patience, HOLD)
        idle = not (self._put_off or self._ledger.retirement.due)
        return patience if idle else min(patience, CALM)

    def _catch_up(self) -> None:
        """Let the journal do some of what it has put off, unless something waits to be written."""
        if self._ledger.weight:
            return
        self._put_off = False
        try:
            self._put_off = self._journal.catch_up()
            self._ledger.retirement.look_again()
        except JournalUnavailable as error:  # until it has written something again
            _log.debug("What the journal has put off has to wait: %s", error)

    def _absorb(self, post: Post) -> int:
        """Take a post; return for how many it counts."""
        if isinstance(post, Asked):
            post.accept()
            if not self._ledger.ask(post.event, post.claim, post.handles):
                self._only_asked = False
                self._asked_for += ids_of(post.event)
            return 1
        if isinstance(post, HandleDropped):
            self._ledger.drop_handles(post.task_run_ids)
            return 1
        self._only_asked = False
        match post:
            case News():
                for came in post.came:
                    self._absorb(came)
                return len(post.came)
            case ev.Event():
                self._apply(post)
            case Storing():
                self._storing.add(post.key)
            case LogEntry():
                self._logs.append(post)
            case Do():
                post.action(self._ledger)
            case Committed():
                self._reached.append(post)
            case Alarm():
                self._alarms.set(post.due, post.then)
        return 1

    def _apply(self, event: ev.Event) -> None:
        if not self._holds(event):
            self._ledger.apply(event)

    def _write(self, changes: Changes) -> None:
        """Write one transaction; while the journal cannot, say so and try again, and show nothing."""
        logs, self._logs = self._logs, []
        runs = changes.records.values()
        batch = Batch(
            events=changes.events,
            task_runs=[run for run in runs if isinstance(run, TaskRun)],
            flow_runs=[run for run in runs if isinstance(run, FlowRun)],
            logs=logs,
        )
        if not (batch.events or batch.logs):
            return
        while True:
            try:
                self._journal.append(batch)
                break
            except JournalUnavailable as error:
                if self._closing:
                    raise
                self._say_unsaved(error)
                threading.Event().wait(RETRY_WRITE)
        self._put_off = True
        if self.trouble is not None:
            self.trouble = None
            _log.warning("The journal can be written again; the run goes on.")
        self._echo(logs, changes.events)

    def _say_unsaved(self, error: JournalUnavailable) -> None:
        if self.trouble is None:
            _log.error("The run is held up, because its journal cannot be written: %s", error)
        self.trouble = error

    def _show(self, changes: Changes) -> None:
        records = changes.records
        for run_id in self._asked_for:
            if run_id not in self.shown:
                records.setdefault(run_id, self._ledger.table.task_runs[run_id])
        self._asked_for.clear()
        self.shown.update(records)
        if noted := self._ledger.notes.take():
            self._tell(noted)
        calls = self._awaited.take(records)
        self._changed(records.values())
        for call in calls:
            call()

    def _ring(self) -> None:
        for ripe in self._alarms.ripe():
            self._only_asked = False
            if isinstance(ripe, ev.AttemptTimedOut) and _key(ripe) in self._storing:
                self._storing.discard(_key(ripe))
            elif isinstance(ripe, ev.Event):
                self._apply(ripe)
            else:
                ripe()


def _key(event: ev.Report) -> Key:
    return event.task_run_id, event.dispatch
