"""What travels between a driver and the attempts it has sent out.

Down go `Work` and the answers to nested work; up come events, log lines and nested work. These are plain
data: a runner carries them, wherever its attempts run, without reading more than it needs. A dispatch is
named by its `Key`: the task run's id and the number of the dispatch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dflow.core.events import Event, MapCreated, TaskCreated
from dflow.core.infos import AttemptInfo as AttemptInfo
from dflow.core.infos import Key as Key
from dflow.core.infos import SharedInfo as SharedInfo
from dflow.core.plain import Plain
from dflow.core.records import ErrorInfo, Stored
from dflow.core.values import ANYBODY, UNSAID, CacheAs, Maker, ResultOptions


class Ref(Plain, frozen=True):
    """Stands in the arguments of a call for the value of a task run; if it `may_fail`, or its exception."""

    task_run_id: str
    may_fail: bool = False


class AtRunner(Plain, frozen=True):
    """An upstream's value is, or will be, where this runner computed it."""

    key: Key


class Blob(Plain, frozen=True):
    """An upstream's value, pickled."""

    data: bytes


class Here(msgspec.Struct, frozen=True):
    """An upstream's value itself, in the memory of the driver; or what stands for its failure."""

    value: Any


class Kept(Plain, frozen=True):
    """An upstream's value, in a result store: read by who takes it, as that of the run called `name`.

    `key` is the dispatch that made it. If it `may_fail`, one that cannot be read is an exception.
    """

    key: Key
    name: str
    stored: Stored
    may_fail: bool = False


Along = Blob | Here | Kept
"""What goes along with a dispatch for an upstream's value."""
Input = AtRunner | Along


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and when a task run may go, for runners that have such things; others ignore it.

    `resources` are (name, amount) that its worker must have free, `workers` the addresses or names of those
    that may run it (none: all), and of what waits a higher `priority` goes first. With `batch` it may always
    travel with others as one task of the cluster, or never; left open (None), if it is found to be small.
    """

    resources: tuple[tuple[str, float], ...] = ()
    priority: int = 0
    workers: tuple[str, ...] = ()
    batch: bool | None = None


ANYWHERE = Placement()


class Work(msgspec.Struct, frozen=True):
    """One dispatch: a call, packed by the runner that gets it, and where the values it needs are."""

    info: AttemptInfo
    call: Any
    inputs: Mapping[str, Input] = msgspec.field(default_factory=dict)
    placement: Placement = ANYWHERE


# Up ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that a run said. `level` is that of the logging module (10 … 50).

    `shown` says that people have seen it in the driver's log already; it is not recorded.
    """

    at: float
    flow_run_id: str
    task_run_id: str | None
    attempt: int
    level: int
    logger: str
    message: str
    worker: str = ""
    number: int = 0
    shown: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Printed:
    """One line that a body on a worker printed, for the driver to print."""

    text: str


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the driver calls for task runs: the hooks and the retry condition of their task.

    `task` is the task itself, or its pickle where it comes from an attempt in another process; `kinds` are
    the names of those of its options that say whom to call.
    """

    task: Any
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class PartialKey:
    """The key of a cached call, but for where the values of `refs` come from; `given` are its arguments."""

    text: str
    refs: tuple[str, ...] = ()
    given: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class LateKey:
    """A key that the driver asks for later; its `question` is pickled where it comes from far away."""

    question: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """How the task runs of one submission are cached: by which key each, None for one that is not.

    Values are good for `seconds`, or for ever. With `refresh` nothing is looked up, but what is computed
    takes the place of what was there. `storage` is the store of the keys, where it is not that of the values,
    and `maker` the function.
    """

    keys: tuple[PartialKey | LateKey | None, ...]
    seconds: float | None = None
    refresh: bool = False
    storage: str | None = None
    maker: Maker = ANYBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How the task runs of one submission are to be run, apart from what decides their life.

    With `here` the body runs where the call was made: a direct call. `around` are the tags that hold for
    whatever is called inside, `max_in_flight` is how many of them may be under way at once.
    `callbacks` are None where the driver has nobody to call. `results` is what their task says of its
    results.
    """

    log_prints: bool = False
    here: bool = False
    around: tuple[str, ...] = ()
    placement: Placement = ANYWHERE
    max_in_flight: int | None = None
    callbacks: Callbacks | None = None
    results: ResultOptions = UNSAID
    caching: Caching | None = None


@dataclass(frozen=True, slots=True)
class ChildrenCreated:
    """An attempt made task runs of its own: `calls` are packed, one for each task run of `event`."""

    parent: Key
    event: TaskCreated | MapCreated
    calls: tuple[Any, ...]
    options: CallOptions


@dataclass(frozen=True, slots=True)
class HandleDropped:
    """Nobody looks at these task runs any more: their values may go, once no task run needs them."""

    task_run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """An attempt wants task runs of its own to end."""

    task_run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlowAsked:
    """A body on a worker asks the driver for something about a flow run that it executes there.

    `what` names it, `arguments` are plain data of ours; the answer bears the same number.
    """

    parent: Key
    number: int
    what: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Storing:
    """The body of a dispatch has ended in its time; its value is on the way to its store."""

    key: Key


@dataclass(frozen=True, slots=True)
class OverQuota:
    """A value of so many bytes was not kept by itself: it would have taken more than is left for that."""

    size: int


Up = (
    CancelAsked
    | ChildrenCreated
    | Event
    | FlowAsked
    | HandleDropped
    | LogEntry
    | OverQuota
    | Printed
    | Storing
)


# Down ----------------------------------------------------------------------------------------------


class Go(Plain, frozen=True):
    """Run the body of a child that was called directly; `quota` is that of its `Keeping`."""

    task_run_id: str
    dispatch: int
    attempt: int
    quota: int = 0
    cached: CacheAs | None = None
    generation: int = 1


@dataclass(frozen=True, slots=True)
class Settled:
    """A child, called `name`, is final, after its last `dispatch`.

    Its value, if it has one, is in `value` (pickled), at the runner under `key`, or `stored`.
    """

    task_run_id: str
    state_name: str
    message: str
    at: float
    error: ErrorInfo | None = None
    value: bytes | None = None
    key: Key | None = None
    stored: Stored | None = None
    dispatch: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class StartConfirmed:
    """The driver has recorded that the attempt has started."""

    key: Key


@dataclass(frozen=True, slots=True)
class FlowAnswered:
    """What a `FlowAsked` came to: plain data of ours, or a pickled error."""

    number: int
    value: Any = None
    error: bytes | None = None


Down = FlowAnswered | Go | Settled | StartConfirmed
