"""Retry conditions: functions of the user that say whether an attempt that failed may have a retry.

The failure is held back from the ledger until the verdict is there. Conditions run in threads of their own,
so that a slow one holds up nothing but its task run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dflow.core import events as ev
from dflow.core import machine
from dflow.core.records import Stage, TaskRun
from dflow.engine import callbacks as calling
from dflow.engine import outcomes
from dflow.engine.callbacks import CONDITION
from dflow.engine.futures import state_of
from dflow.engine.ledger import Ledger
from dflow.engine.scope import status_of
from dflow.engine.tracker import Do
from dflow.errors import DflowError
from dflow.messages import Callbacks, Key

if TYPE_CHECKING:
    from dflow.engine.session import Session

MOST = 64
"""How many conditions are asked at once; more wait for their turn."""

Failure = ev.AttemptRaised | ev.AttemptTimedOut


class Conditions:
    """Asks the retry conditions of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._judging: set[Key] = set()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._lock = threading.Lock()

    def holds(self, event: ev.Event) -> bool:
        """Tell whether an event must not be applied now; for the tracker's thread.

        The failure of an attempt is applied later, if a condition has to be asked whether it may have a
        retry. What is reported of that dispatch meanwhile is late: its first outcome is known.
        """
        if not isinstance(event, ev.Report):
            return False
        key = (event.task_run_id, event.dispatch)
        if key in self._judging:
            return True
        if not isinstance(event, Failure):
            return False
        asked = self._session.dispatcher.asked.get(event.task_run_id)
        callbacks = None if asked is None else asked.options.callbacks
        if callbacks is None or CONDITION not in callbacks.kinds:
            return False
        ledger = self._session.ledger
        run = ledger.table.task_runs[event.task_run_id]
        if machine.step(run, event)[0].stage is not Stage.AWAITING_RETRY:
            return False
        self._judging.add(key)
        ledger.hold(run.id)
        failed = machine.step(run, replace(event, retriable=False))[0]
        live = self._session.errors.get(run.id) if isinstance(event, ev.AttemptRaised) else None
        self._ask(partial(self._judge, event, callbacks, failed, live))
        return True

    def _ask(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._threads == MOST:
                return
            self._threads += 1
        threading.Thread(target=self._work, name="dflow-condition", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._threads -= 1
                    return
                job = self._jobs.popleft()
            job()

    def _judge(
        self, event: Failure, callbacks: Callbacks, run: TaskRun, live: BaseException | None
    ) -> None:
        """Ask a condition. `run` is the task run as it will be if it says no, or raises."""

        def outcome() -> None:
            raise outcomes.failure_of(run.name, run.state_name, run.message, run.error, live)

        verdict = False
        try:
            owner = self._session.owners.owner(callbacks)
            if owner is not None:
                condition = owner._options.retry_condition_fn
                context = calling.told_of_task(self._session, run)
                state = state_of(status_of(run), outcome)
                verdict = calling.call(context, CONDITION, condition, owner, run, state)
        finally:
            decided = replace(event, retriable=verdict)
            with suppress(DflowError):  # the flow run has ended, or its journal is gone
                self._session.tracker.post(Do(partial(self._decide, decided)))

    def _decide(self, event: Failure, ledger: Ledger) -> None:
        self._judging.discard((event.task_run_id, event.dispatch))
        ledger.judged.discard(event.task_run_id)
        ledger.apply(event)
