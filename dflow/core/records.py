"""What is known of flow runs, task runs and attempts.

Records are frozen: `dflow.core.machine.step` makes new ones, nobody changes one. Times are seconds
since 1970 in UTC, durations are seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from dflow.core.plain import Plain
from dflow.states import FINAL_TYPES, TYPE_OF_NAME, State, StateType

_ENDS = frozenset({"completed", "failed", "crashed", "cancelled"})
"""The stages in which a run has ended."""


class Stage(StrEnum):
    """Where a task run is in its life: the nodes of the transition table."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    AWAITING_RETRY = "awaiting_retry"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"

    final: bool
    """Whether a task run in this stage has ended, within its generation."""

    def __new__(cls, value: str) -> Self:
        """Make one of them."""
        stage = str.__new__(cls, value)
        stage._value_ = value
        stage.final = value in _ENDS
        return stage


class FlowStage(StrEnum):
    """Where a flow run is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    AWAITING_RETRY = "awaiting_retry"
    CANCELLING = "cancelling"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"

    final: bool
    """Whether a flow run in this stage has ended, within its generation."""

    def __new__(cls, value: str) -> Self:
        """Make one of them."""
        stage = str.__new__(cls, value)
        stage._value_ = value
        stage.final = value in _ENDS
        return stage


class Need(StrEnum):
    """What a task run needs of one of its upstreams."""

    DATA = "data"
    """Its value is an argument."""
    WAIT = "wait"
    """It must have completed (``wait_for``)."""
    ALLOW = "allow"
    """It must have ended, well or not (``allow_failure``)."""


class Ending(StrEnum):
    """How an attempt ended; OPEN while it has not."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    RAISED = "raised"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    STOPPED = "stopped"
    ABANDONED = "abandoned"
    RETURNED = "returned"
    """Its body returned a final state that is not a completed one."""


class Cause(StrEnum):
    """Why a dispatch or an attempt came to nothing. Only WORKER_DIED is ever charged."""

    WORKER_DIED = "worker_died"
    SCALED_DOWN = "scaled_down"
    SCHEDULER_LOST = "scheduler_lost"
    DRIVER_LOST = "driver_lost"
    UPSTREAM = "upstream"
    WITHDRAWN = "withdrawn"


class Held(StrEnum):
    """Where the value of a completed task run can be had."""

    NOWHERE = "nowhere"
    RUNNER = "runner"
    """Only where it was computed: gone with the cluster or the process."""
    JOURNAL = "journal"
    """In the journal: it outlives every process."""
    STORED = "stored"
    """In a result store, where `stored` says: it outlives every process."""
    LOST = "lost"
    """It was at the runner or in a store, and is lost."""
    OUTDATED = "outdated"
    """It was made from something else than what would be taken today: it is not given any more."""

    kept: bool
    """Whether the value outlives the processes that made it."""

    def __new__(cls, value: str) -> Self:
        """Make one of them."""
        held = str.__new__(cls, value)
        held._value_ = value
        held.kept = value in ("journal", "stored")
        return held


class Stored(Plain, frozen=True):
    """A value in a result store: where it is, and what tells that it is still the same.

    `storage` is the URL of the store, `path` the name in it; `size` is in bytes, `digest` the hexadecimal
    BLAKE2b hash (16 bytes) of what was written, by `serializer`. One that was kept because its body took
    long, and not because somebody asked for it, is `automatic`.
    """

    storage: str
    path: str
    size: int
    digest: str
    serializer: str
    automatic: bool = False


class Upstream(Plain, frozen=True):
    """A task run that another one depends on."""

    task_run_id: str
    need: Need = Need.DATA


class Policy(Plain, frozen=True):
    """How often a task run may be tried, and how long it waits in between.

    `retry_delays` are seconds, the last one repeats; `jitter` is the share by which a delay may grow
    or shrink; `max_worker_losses` is how many dying workers it survives; `timeout` is how many seconds one
    attempt may take.
    """

    retries: int = 0
    retry_delays: tuple[float, ...] = (0.0,)
    jitter: float = 0.0
    max_worker_losses: int = 3
    timeout: float | None = None


class ErrorInfo(Plain, frozen=True):
    """An exception in words, and, where it could be pickled, as a blob that rebuilds it.

    Only the engine unpickles `blob`, when a user asks for the exception; nothing that displays does.
    """

    type_name: str
    text: str
    traceback: str = ""
    blob: bytes | None = None


class Attempt(Plain, frozen=True):
    """One execution of a task run's body, named by (task run, generation, number).

    `cpu` is the seconds of processor time that it took, `memory` the highest number of bytes that its process
    had resident while it ran, `size` the bytes of its value: None where that is not known.
    """

    generation: int
    number: int
    dispatch: int
    started_at: float
    worker: str = ""
    ending: Ending = Ending.OPEN
    ended_at: float | None = None
    seconds: float | None = None
    error: ErrorInfo | None = None
    cause: Cause | None = None
    cpu: float | None = None
    memory: int | None = None
    size: int | None = None


class TaskRun(Plain, frozen=True):
    """A task run: its identity, where it is in its life, and what became of it.

    `dispatch` numbers every handing-over to a runner and is never used twice; `raised` and `losses`
    are what has been spent of the budgets in `policy`. A `suspect` was assigned to a worker that died
    before anything was heard of a start: from then on its starts are confirmed before its body runs.
    `source` stands for the code of its function. `asked` is the generation of its flow run in which it was
    last asked for, `reused` that in which its value was last given without running it again (0: not known).
    `anew` is its own generation that began as its value was outdated: nothing left of earlier ones is for it.
    """

    id: str
    flow_run_id: str
    parent_id: str
    task_name: str
    name: str
    created_at: float
    upstreams: tuple[Upstream, ...] = ()
    policy: Policy = Policy()
    stage: Stage = Stage.WAITING
    state_name: str = "Pending"
    message: str = ""
    changed_at: float = 0.0
    generation: int = 1
    dispatch: int = 0
    attempts: tuple[Attempt, ...] = ()
    raised: int = 0
    losses: int = 0
    suspect: bool = False
    due: float | None = None
    held: Held = Held.NOWHERE
    error: ErrorInfo | None = None
    tags: tuple[str, ...] = ()
    stored: Stored | None = None
    source: str = ""
    asked: int = 0
    reused: int = 0
    anew: int = 0

    @property
    def state_type(self) -> StateType:
        """The type of the state that users see."""
        return TYPE_OF_NAME[self.state_name]

    @property
    def state(self) -> State:
        """The state that users see; it gives no result."""
        return _state(self)

    @property
    def run_count(self) -> int:
        """How often the body has begun, in all generations."""
        return len(self.attempts)

    @property
    def open_attempt(self) -> Attempt | None:
        """The attempt that has started and not ended, if there is one."""
        if self.attempts and self.attempts[-1].ending is Ending.OPEN:
            return self.attempts[-1]
        return None

    @property
    def attempts_now(self) -> tuple[Attempt, ...]:
        """The attempts of the present generation."""
        if not self.attempts or self.attempts[0].generation == self.generation:
            return self.attempts  # generations only grow
        return tuple(a for a in self.attempts if a.generation == self.generation)


class FlowRun(Plain, frozen=True):
    """A run of a flow: a root, or a subflow of `parent_id` (a flow run or a task run).

    `upstreams` are the task runs whose values were among the arguments of a subflow.
    """

    id: str
    root_id: str
    parent_id: str | None
    flow_name: str
    name: str
    created_at: float
    policy: Policy = Policy()
    stage: FlowStage = FlowStage.PENDING
    state_name: str = "Pending"
    message: str = ""
    changed_at: float = 0.0
    generation: int = 0
    raised: int = 0
    due: float | None = None
    held: Held = Held.NOWHERE
    error: ErrorInfo | None = None
    tags: tuple[str, ...] = ()
    stored: Stored | None = None
    upstreams: tuple[Upstream, ...] = ()

    @property
    def state_type(self) -> StateType:
        """The type of the state that users see."""
        return TYPE_OF_NAME[self.state_name]

    @property
    def state(self) -> State:
        """The state that users see; it gives no result."""
        return _state(self)

    @property
    def run_count(self) -> int:
        """How often the body has begun."""
        return self.generation


def _state(run: TaskRun | FlowRun) -> State:
    at = datetime.fromtimestamp(run.changed_at, UTC)
    return State(run.state_type, run.state_name, run.message, at)


def is_final(run: TaskRun | FlowRun) -> bool:
    """Tell whether a run has ended, within its generation."""
    return run.state_type in FINAL_TYPES
