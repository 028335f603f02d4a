"""What can happen to a run, in the past tense. Everything that changes a record arrives as one of these.

Each event has a `kind`, the name under which the journal keeps it, and a `version` of its fields.
A field that is added later must have a default, so that old journals stay readable.
Times (`at`) are seconds since 1970 in UTC; `luck` is a number in [0, 1) drawn by the shell.
"""

from __future__ import annotations

from typing import ClassVar

from dflow.core.plain import Plain
from dflow.core.records import Cause, ErrorInfo, Held, Policy, Stored, Upstream


class Event(Plain, frozen=True, kw_only=True):
    """Something that happened at a time."""

    version: ClassVar[int] = 1

    at: float


class TaskEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one task run."""

    task_run_id: str


class Report(TaskEvent, frozen=True, kw_only=True):
    """News of one dispatch, from the runner that has it. Stale when the dispatch is not the present one."""

    dispatch: int


# The life of a task run ------------------------------------------------------------------------


class TaskCreated(TaskEvent, frozen=True, kw_only=True):
    """A task run came into being. `asked` is the generation of its flow run in which that was.

    One that is `ready` is dispatched at once: nothing stands in its way.
    """

    version: ClassVar[int] = 2

    flow_run_id: str
    parent_id: str
    task_name: str
    name: str
    upstreams: tuple[Upstream, ...] = ()
    policy: Policy = Policy()
    generation: int = 1
    tags: tuple[str, ...] = ()
    source: str = ""
    asked: int = 0
    ready: bool = False


class MapItem(Plain, frozen=True):
    """One item of a map: the identity of its task run, and its own upstreams."""

    task_run_id: str
    name: str
    upstreams: tuple[Upstream, ...] = ()


class MapCreated(Event, frozen=True, kw_only=True):
    """Task runs came into being together, as the items of one map; they are `ready` all, or not at all."""

    version: ClassVar[int] = 2

    flow_run_id: str
    parent_id: str
    task_name: str
    items: tuple[MapItem, ...]
    upstreams: tuple[Upstream, ...] = ()
    policy: Policy = Policy()
    generation: int = 1
    tags: tuple[str, ...] = ()
    source: str = ""
    asked: int = 0
    ready: bool = False


class TaskRunNamed(TaskEvent, frozen=True, kw_only=True):
    """The name of a task run was made from values that it had to wait for."""

    name: str


class UpstreamsMet(TaskEvent, frozen=True, kw_only=True):
    """Nothing stands in the way of a task run any more."""


class DispatchVoided(Report, frozen=True, kw_only=True):
    """A dispatch came back, for no fault of its body: its upstream failed, or it was withdrawn.

    A dispatch that came back because its worker is gone is `WorkerLost`.
    """

    cause: Cause
    message: str = ""


class AttemptStarted(Report, frozen=True, kw_only=True):
    """The body of a task run started on a worker."""

    worker: str = ""


class Outcome(Report, frozen=True, kw_only=True):
    """The body of a task run ended. `at` is when; an attempt that was not reported started opens with it.

    `cpu` is the seconds of processor time that its thread took, `memory` the highest number of bytes that its
    process had resident while it ran; both are None where that is not known.
    """

    started_at: float
    seconds: float
    worker: str = ""
    cpu: float | None = None
    memory: int | None = None


class AttemptSucceeded(Outcome, frozen=True, kw_only=True):
    """The body returned. A small value rides along as `value`, pickled; a large one stays where it is.

    One that was put into a result store is `stored` there. `message` is that of a state that the body made by
    hand. `size` is how many bytes the value takes, if that is known.
    """

    held: Held = Held.RUNNER
    value: bytes | None = None
    message: str = ""
    stored: Stored | None = None
    size: int | None = None


class AttemptRaised(Outcome, frozen=True, kw_only=True):
    """The body raised. `retriable` is the verdict of the user's condition, `luck` feeds the jitter."""

    error: ErrorInfo
    retriable: bool = True
    luck: float = 0.5


class AttemptTimedOut(Outcome, frozen=True, kw_only=True):
    """The body ran past its deadline."""

    error: ErrorInfo
    retriable: bool = True
    luck: float = 0.5


class StateReturned(Outcome, frozen=True, kw_only=True):
    """The body returned a state made by hand: `state_name` is Failed, Crashed or Cancelled. It is final."""

    state_name: str
    message: str = ""
    error: ErrorInfo | None = None


class AttemptStopped(Outcome, frozen=True, kw_only=True):
    """The body ended because it was asked to stop."""


class WorkerLost(Report, frozen=True, kw_only=True):
    """The worker that had this dispatch is gone. Charged only to a body that had started."""

    cause: Cause = Cause.WORKER_DIED
    message: str = ""


class StopExpired(Report, frozen=True, kw_only=True):
    """A body that was asked to stop went on past its grace: it is left to itself."""


class RetryDue(TaskEvent, frozen=True, kw_only=True):
    """The time to wait after an attempt is over. `attempt` counts those of the present generation."""

    generation: int
    attempt: int


class ResultLost(Report, frozen=True, kw_only=True):
    """The value of a completed task run is gone from its runner, or what was `stored` from its store."""

    stored: bool = False


class ResultRecomputed(Report, frozen=True, kw_only=True):
    """The cluster made a lost value again: another execution of the same attempt."""


class UpstreamFailed(TaskEvent, frozen=True, kw_only=True):
    """Something that a task run depends on ended without a value. `chain` reads "c ← b ← a"."""

    cause_id: str
    chain: str


class UpstreamLost(TaskEvent, frozen=True, kw_only=True):
    """The value of an upstream that had completed can no longer be had."""

    cause_id: str
    message: str


class CacheHit(TaskEvent, frozen=True, kw_only=True):
    """The value was already there: no worker is needed. `message` says whose it is."""

    held: Held = Held.JOURNAL
    value: bytes | None = None
    stored: Stored | None = None
    message: str = ""


class CancelRequested(TaskEvent, frozen=True, kw_only=True):
    """Somebody asked for the task run to end."""


class PauseRequested(TaskEvent, frozen=True, kw_only=True):
    """Somebody asked for the task run to wait."""


class Unpaused(TaskEvent, frozen=True, kw_only=True):
    """A paused task run may go on."""


class Reopened(TaskEvent, frozen=True, kw_only=True):
    """The task run was asked for again, in a new generation.

    One that has completed with a value that is kept does not run again, unless it is `Outdated`.
    """

    generation: int
    upstreams: tuple[Upstream, ...] = ()
    policy: Policy = Policy()
    source: str = ""
    asked: int = 0


class Reused(TaskEvent, frozen=True, kw_only=True):
    """The value of a completed task run was asked for again, in a later generation of its flow run.

    It is given though the code of its task `changed` since it was made.
    """

    generation: int
    changed: bool = False


class Outdated(TaskEvent, frozen=True, kw_only=True):
    """The value of a completed task run is not to be given any more: it runs again once it is asked for.

    Because a rerun wants it, its code has changed, something that it was made from runs again, or it is
    damaged.
    """


# The life of a flow run ------------------------------------------------------------------------


class FlowEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one flow run."""

    flow_run_id: str


class FlowRunCreated(FlowEvent, frozen=True, kw_only=True):
    """A flow run came into being."""

    root_id: str
    parent_id: str | None
    flow_name: str
    name: str
    policy: Policy = Policy()
    tags: tuple[str, ...] = ()
    upstreams: tuple[Upstream, ...] = ()


class FlowRunStarted(FlowEvent, frozen=True, kw_only=True):
    """The body of a flow began, in a new generation: the first time, for a retry, or to resume."""

    generation: int


class FlowRunReturned(FlowEvent, frozen=True, kw_only=True):
    """The body of a flow returned, and its final state was worked out.

    `state_name` is Completed, Failed, Crashed or Cancelled. `error` is the first failure among what it
    returned.
    """

    state_name: str
    message: str = ""
    held: Held = Held.NOWHERE
    value: bytes | None = None
    error: ErrorInfo | None = None
    stored: Stored | None = None


class FlowRunRaised(FlowEvent, frozen=True, kw_only=True):
    """The body of a flow raised. `state_name` is Failed, TimedOut, Crashed or Cancelled."""

    error: ErrorInfo
    state_name: str = "Failed"
    retriable: bool = True
    luck: float = 0.5


class FlowRunInterrupted(FlowEvent, frozen=True, kw_only=True):
    """The driver was stopped, or found dead, before the flow had ended."""

    message: str


class FlowRunOutdated(FlowEvent, frozen=True, kw_only=True):
    """The value of a completed subflow is not to be given any more: its body runs again once it is called."""


class FlowCancelRequested(FlowEvent, frozen=True, kw_only=True):
    """Somebody asked for the flow run to end."""


class FlowRunStopped(FlowEvent, frozen=True, kw_only=True):
    """The body of a flow ended because it was asked to."""

    message: str = ""
