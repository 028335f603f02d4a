"""How far a run is: the task runs of each group, counted from what the tracker knows at the moment.

A group is the task runs of one task in one flow run. The tracker counts in its own thread; what is read here
is a copy, and only to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dflow.engine.session import Session

_KIND = {
    "Completed": "completed",
    "Cached": "cached",
    "Running": "running",
    "Cancelling": "running",
    "Retrying": "retrying",
    "AwaitingRetry": "retrying",
    "Failed": "failed",
    "TimedOut": "failed",
    "UpstreamFailed": "failed",
    "UpstreamLost": "failed",
    "Crashed": "failed",
    "Cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class Group:
    """How many task runs of a task there are, and how they do. `left` is in seconds, `rate` per second."""

    label: str
    total: int
    completed: int = 0
    cached: int = 0
    failed: int = 0
    cancelled: int = 0
    reused: int = 0
    running: int = 0
    retrying: int = 0
    seconds: float = 0.0
    rate: float | None = None
    left: float | None = None

    @property
    def done(self) -> int:
        """How many have their value."""
        return self.completed + self.cached

    @property
    def ended(self) -> int:
        """How many have ended, well or not."""
        return self.done + self.failed + self.cancelled

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return self.ended == self.total

    def exceptions(self) -> list[tuple[str, int]]:
        """Return what there is besides done and waiting, with its number."""
        words = ("running", "retrying", "failed", "cancelled", "cached", "reused")
        return [(word, number) for word in words if (number := getattr(self, word))]


@dataclass(slots=True)
class _Pace:
    """When a group began, what had ended by then, and when it last moved."""

    since: float
    ended_before: int
    ended: int
    moved: float


class Groups:
    """The groups of one run."""

    def __init__(self, session: Session) -> None:
        self.clock = session.clock
        self.flow_name = session.root.flow_name
        self.run_name = session.root.flow_run_name
        self._begun = session.clock.monotonic()
        self._session = session
        self._paces: dict[tuple[str, str], _Pace] = {}

    def seconds(self) -> float:
        """Return for how long the run has gone on."""
        return self.clock.monotonic() - self._begun

    def now(self) -> list[Group]:
        """Return the groups as they are now, in the order in which they came."""
        groups = []
        at = self.clock.monotonic()
        for key, states in self._copy().items():
            numbers = dict.fromkeys(_KIND.values(), 0)
            for state_name, number in states.items():
                if state_name in _KIND:
                    numbers[_KIND[state_name]] += number
            total = sum(states.values())
            done = numbers["completed"] + numbers["cached"]
            numbers["reused"] = min(self._session.ledger.tally.reused[key], done)
            groups.append(self._with_pace(key, Group(self._label(key), total, **numbers), at))
        return groups

    def _copy(self) -> dict[tuple[str, str], Mapping[str, int]]:
        while True:
            try:
                return {key: dict(c) for key, c in list(self._session.ledger.tally.groups.items())}
            except RuntimeError:  # the tracker added a state meanwhile
                continue

    def _label(self, key: tuple[str, str]) -> str:
        flow_run_id, task_name = key
        if flow_run_id == self._session.root.flow_run_id:
            return task_name
        return f"{self._session.name_of(flow_run_id)} / {task_name}"

    def _with_pace(self, key: tuple[str, str], group: Group, at: float) -> Group:
        ended = group.ended - group.cached
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = _Pace(at, ended, ended, at)
        pace.ended_before = min(pace.ended_before, ended)  # some may run again
        if ended == pace.ended_before and not group.running:
            pace.since = at  # it has not begun
        if ended != pace.ended or not group.over:
            pace.ended, pace.moved = ended, at
        seconds = max(0.0, pace.moved - pace.since)
        done_here = ended - pace.ended_before
        rate = done_here / seconds if done_here > 0 and seconds > 0 else None
        left = (group.total - group.ended) / rate if rate and not group.over else None
        return replace(group, seconds=seconds, rate=rate, left=left)
