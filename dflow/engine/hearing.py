"""What comes up from attempts, on its way to the tracker: what has come together stays together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dflow.core import events as ev
from dflow.engine import run_logs
from dflow.engine.tracker import Came, News
from dflow.messages import (
    CancelAsked,
    ChildrenCreated,
    FlowAsked,
    HandleDropped,
    LogEntry,
    OverQuota,
    Printed,
    Storing,
    Up,
)

if TYPE_CHECKING:
    from dflow.engine.session import Session

_CAME = (ev.Event, LogEntry, HandleDropped, Storing)
_FAILURES = (ev.AttemptRaised, ev.AttemptTimedOut)

_log = logging.getLogger("dflow.engine")


class Hearing:
    """Hears what comes up in one session. `answer` answers what bodies on workers ask of flow runs."""

    def __init__(self, session: Session, answer: Callable[[Session, FlowAsked], None]) -> None:
        self._session = session
        self._answer = answer
        self._early: dict[str, list[Up]] = {}

    def news(self, messages: Sequence[Up]) -> None:
        """Take what came up from attempts, in order: the tracker gets it in as few posts as can be."""
        came: list[Came] = []
        for message in messages:
            if isinstance(message, _FAILURES):
                came.append(self._in_our_time(message))
            elif isinstance(message, _CAME):
                came.append(message)
            else:
                self._post(came)
                came = []
                self._hear(message)
        self._post(came)

    def _post(self, came: list[Came]) -> None:
        if len(came) == 1:
            self._session.tracker.post(came[0])
        elif came:
            self._session.tracker.post(News(came))

    def _in_our_time(self, event: ev.AttemptRaised | ev.AttemptTimedOut) -> ev.Event:
        """Return a failure as of now: a retry is timed by the driver's clock, a worker's may be hours off."""
        return replace(event, at=self._session.clock.now(), luck=self._session.ids.luck())

    def _hear(
        self, message: ChildrenCreated | FlowAsked | Printed | CancelAsked | OverQuota
    ) -> None:
        if isinstance(message, ChildrenCreated | FlowAsked) and self._is_early(message):
            return
        if isinstance(message, ChildrenCreated):
            self._ask_for_attempt(message)
        elif isinstance(message, FlowAsked):
            self._answer(self._session, message)
        elif isinstance(message, Printed):
            run_logs.print_line(message.text)
        elif isinstance(message, CancelAsked):
            self._session.cancel(message.task_run_ids)
        else:
            self._session.persisting.over(message.size)

    def asked_for(self, task_run_ids: Sequence[str]) -> None:
        """Hear what adopted attempts of these task runs have asked for, now that there is somebody for it."""
        if not self._early:
            return
        early = [each for run_id in task_run_ids for each in self._early.pop(run_id, ())]
        if early:  # some of it waits for the tracker, whose thread this is
            threading.Thread(target=self.news, args=(early,), name="dflow-early").start()

    def _is_early(self, message: ChildrenCreated | FlowAsked) -> bool:
        """Keep what an attempt of an earlier driver asks for, until its task run is asked for again."""
        task_run_id = message.parent[0]
        if self._session.again is None or task_run_id in self._session.dispatcher.asked:
            return False
        if task_run_id in self._session.ledger.adopted.waiting:
            self._early.setdefault(task_run_id, []).append(message)
        return True

    def _ask_for_attempt(self, message: ChildrenCreated) -> None:
        parent = self._session.dispatcher.asked.get(message.parent[0])
        if parent is None:  # its body has ended long ago, and a thread that it began goes on
            _log.debug("Nobody hears any more what %s asks for.", message.parent)
            return
        calls, options = message.calls, message.options
        self._session.ask(message.event, calls, options, parent.runner, message.parent)
