"""What is to happen at a time: retries, deadlines, the end of a grace. Times of day may jump meanwhile."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

from dflow.attempts.capture import capture
from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.retry import retry_due
from dflow.errors import TimedOutError
from dflow.ports import Clock

PATIENCE = 0.6
"""Seconds after its deadline in which an attempt is expected to report that it timed out."""
IDLE = 3600.0
"""Seconds that the tracker sleeps at most when nothing is due."""

Ripe = ev.Event | Callable[[], None]
"""An event that is due, or something to call."""


class Alarms:
    """Alarms, each set for a time that was so many seconds ahead when it was set."""

    def __init__(self, clock: Clock, stop_grace: float, luck: Callable[[], float]) -> None:
        self._clock = clock
        self._stop_grace = stop_grace
        self._luck = luck
        self._alarms: list[tuple[float, int, Ripe]] = []
        self._order = itertools.count()

    def set(self, due: float, what: Ripe) -> None:
        """Set an alarm for a time in seconds since 1970."""
        at = self._clock.monotonic() + max(0.0, due - self._clock.now())
        heapq.heappush(self._alarms, (at, next(self._order), what))

    def seconds_left(self) -> float:
        """Return how many seconds may be slept."""
        if not self._alarms:
            return IDLE
        return min(IDLE, max(0.0, self._alarms[0][0] - self._clock.monotonic()))

    def ripe(self) -> Iterator[Ripe]:
        """Take what is due."""
        while self._alarms and self._alarms[0][0] <= self._clock.monotonic():
            yield heapq.heappop(self._alarms)[2]

    def take(self, order: do.Command, of_flow: bool) -> bool:
        """Set the alarm that a command asks for or brings with it; return whether that is all of it.

        Flows wait for their retries in the threads that run their bodies.
        """
        match order:
            case do.SetTimer():
                if not of_flow:
                    self.set(order.due, retry_due(order))
                return True
            case do.SetDeadline():
                self._set_deadline(order)
                return True
            case do.Stop() | do.Withdraw() if not of_flow:
                due = self._clock.now() + self._stop_grace
                run_id, dispatch = order.run_id, order.dispatch
                self.set(due, ev.StopExpired(at=due, task_run_id=run_id, dispatch=dispatch))
        return False

    def _set_deadline(self, order: do.SetDeadline) -> None:
        """See to it that an attempt times out, also when nothing is heard from where it runs."""
        now, seconds = self._clock.now(), order.seconds + PATIENCE
        error = TimedOutError(
            f"It took longer than {order.seconds:g} seconds, and where it runs does not answer: "
            "its body may go on, and what becomes of it will not be recorded."
        )
        event = ev.AttemptTimedOut(
            at=now + seconds,
            task_run_id=order.run_id,
            dispatch=order.dispatch,
            started_at=now,
            seconds=seconds,
            error=capture(error),
            luck=self._luck(),
        )
        self.set(now + seconds, event)
