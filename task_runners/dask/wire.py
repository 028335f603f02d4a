"""What the owned way relies on that distributed does not promise: its messages, and the check of them.

Nothing else may send such a message. Each function here says why it is needed. `missing` is asked at connect,
in the driver and on the scheduler; where it finds something the plain way is taken. Each message has a test
against a real scheduler.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dask.task_spec import Task
from distributed import Client, Scheduler, SchedulerPlugin, Worker
from distributed.utils_comm import gather_from_workers

try:
    from dask._expr import LLGExpr
    from distributed.protocol.serialize import (
        Serialize,
        Serialized,
        ToPickle,
        deserialize,
        serialize,
        to_serialize,
    )
except ImportError:
    LLGExpr = None  # type: ignore[misc,assignment]  # told by `missing`

RELEASE = "dflow-release"
"""The message by which a driver lets keys go; the scheduler's own fails for an unknown owner."""
LETTERS = "dflow-letters"
"""The message that brings what attempts say; a logged event costs the scheduler several times as much."""
GIVEN_BACK = "dflow-given-back"
"""The message by which a worker says which tasks it will not run, before Dask could move them elsewhere."""
PLACES = "dflow-places"
"""Under which name `keep` notes something with a task."""
EXECUTE = "execute"
"""The name of the function that runs parcels on workers."""
LEAVING = frozenset({"closing", "closing_gracefully"})
"""The names of the status of a worker that was told to leave."""
SAME_TURN = "60s"
"""Graphs that come within this time take turns, as those of Dask's own `Client.get` do."""
REMEMBERED = 10
"""How many messages a stream keeps: each may carry the arguments of a thousand task runs."""
PROBE = 3.0
"""Seconds in which a worker must answer to count as reachable."""

_FIELDS = ("expr_ser", "keys", "internal_priority", "submitting_task", "fifo_timeout", "actors")
_TAKEN: tuple[tuple[Any, str, frozenset[str], bool], ...] = (
    (
        Scheduler,
        "update_graph",
        frozenset({"client", *_FIELDS, "code", "annotations", "span_metadata", "stimulus_id"}),
        True,
    ),
    (Scheduler, "client_desires_keys", frozenset({"keys", "client"}), True),
    (Scheduler, "client_releases_keys", frozenset({"keys", "client", "stimulus_id"}), True),
    (Scheduler, "remove_client", frozenset({"client", "stimulus_id"}), True),
    (Scheduler, "transitions", frozenset({"recommendations", "stimulus_id"}), True),
    (Scheduler, "client_send", frozenset({"client", "msg"}), True),
    (Scheduler, "add_plugin", frozenset({"plugin", "name"}), False),
    (Scheduler, "broadcast", frozenset({"msg", "on_error"}), False),
    (Scheduler, "gather", frozenset({"keys"}), False),
    (Worker, "plugin_add", frozenset({"plugin", "name"}), True),
    (Worker, "batched_send", frozenset({"msg"}), True),
    (SchedulerPlugin, "update_graph", frozenset({"client", "keys"}), False),
    (SchedulerPlugin, "transition", frozenset({"key", "start", "finish"}), False),
    (SchedulerPlugin, "remove_client", frozenset({"client"}), False),
    (SchedulerPlugin, "add_worker", frozenset({"scheduler", "worker"}), False),
    (SchedulerPlugin, "remove_worker", frozenset({"scheduler", "worker"}), False),
    (SchedulerPlugin, "log_event", frozenset({"topic", "msg"}), False),
    (SchedulerPlugin, "restart", frozenset({"scheduler"}), False),
)
"""Classes with the methods that are used: which parameters they must have; whether others may be required."""


class Unavailable(Exception):
    """The owned way cannot be taken; says why."""


def missing() -> list[str]:
    """Return what the distributed of this process lacks of what is relied on."""
    if LLGExpr is None:
        return ["the modules that make graphs into messages"]
    lacks = [
        f"{owner.__name__}.{name}"
        for owner, name, parameters, exact in _TAKEN
        if not _takes(getattr(owner, name, None), parameters, exact)
    ]
    attributes = {"who_wants", "exception", "exception_blame", "state", "nbytes", "run_spec"}
    attributes |= {"suspicious", "waiters", "metadata"}
    state = getattr(inspect.getmodule(Scheduler), "TaskState", None)
    lacks += [f"TaskState.{name}" for name in sorted(attributes) if not hasattr(state, name)]
    return lacks


def _takes(function: Any, parameters: frozenset[str], exact: bool) -> bool:
    """Tell whether a function takes these parameters, and, if `exact`, can be called with them alone."""
    if not callable(function):
        return False
    found = dict(inspect.signature(function).parameters)
    found.pop("self", None)
    required = {
        name
        for name, parameter in found.items()
        if parameter.default is parameter.empty and parameter.kind.name[:3] != "VAR"
    }
    return parameters <= found.keys() and not (exact and required - parameters)


def missing_on(scheduler: Any) -> list[str]:
    """Return what a scheduler lacks, which may be of another version than the driver."""
    names = ["stream_handlers", "clients", "client_comms", "tasks", "plugins", "loop"]
    names += ["allowed_failures", "total_nthreads"]
    return [*missing(), *(f"Scheduler.{name}" for name in names if not hasattr(scheduler, name))]


def missing_in(client: Any) -> list[str]:
    """Return what a client lacks."""
    names = ("scheduler_comm", "scheduler", "rpc", "id", "loop", "status", "_event_handlers")
    return [
        *missing(),
        *(f"Client.{name}" for name in names if getattr(client, name, None) is None),
    ]


# From the driver -------------------------------------------------------------------------------------


def graph(
    owner: str,
    tasks: Any,
    priorities: Mapping[Any, int],
    annotations: Mapping[str, Any],
    stimulus: str,
) -> dict[str, Any]:
    """Return the message that submits a graph under an owner's name, all its keys wanted.

    `Client.get` submits for its client alone, makes a future for each key, and lets `dask.order` run.
    """
    expression = to_serialize(LLGExpr(tasks))
    return {
        "op": "update-graph",
        "client": owner,
        "expr_ser": Serialized(*serialize(expression, on_error="raise")),
        "keys": set(priorities),
        "internal_priority": dict(priorities),
        "submitting_task": None,
        "fifo_timeout": SAME_TURN,
        "actors": None,
        "code": ToPickle(()),
        "annotations": ToPickle(dict(annotations)),
        "span_metadata": ToPickle({"collections": [{"type": "low-level-graph"}]}),
        "stimulus_id": stimulus,
    }


def released(owner: str, keys: Sequence[Any]) -> dict[str, Any]:
    """Return the message that lets keys go, many at once: futures would send one for each."""
    return {"op": RELEASE, "owner": owner, "keys": list(keys)}


SOON = 0.001
"""Seconds between two sendings to the scheduler. Clients wait 10 ms, for calls that come one by one; ours
come together, and one that is waited for would be held up by the letting go of the one before."""


def stream(client: Client) -> Any:
    """Return the present stream of a client to its scheduler: a new one after each break, None in between."""
    comm: Any = client.scheduler_comm
    return comm if client.status == "running" and comm is not None and not comm.closed() else None


def forgetful(stream: Any) -> Any:
    """Let a stream keep only a few of the messages that it has carried, not a thousand; return it."""
    if hasattr(stream, "recent_message_log"):
        stream.recent_message_log = deque(maxlen=REMEMBERED)
    return stream


def send(client: Client, to: Any, message: Mapping[str, Any]) -> bool:
    """Send a message by this very stream, in the client's thread; return False if it is not there any more.

    The client itself would keep messages for whatever scheduler answers next, which may not know the owner.
    """
    if to is None or stream(client) is not to:
        return False
    to.interval = SOON
    try:
        to.send(dict(message))
    except OSError:
        return False
    return True


def listen(client: Client, topic: str, handler: Callable[[Any], None]) -> None:
    """Have a handler called for events of a topic that nobody but our feed sends.

    A subscription would make a topic on the scheduler, and could be taken back after the topic was dropped.
    """
    handlers: dict[str, Callable[[Any], None]] = client._event_handlers
    handlers[topic] = handler


async def gather(client: Client, key: Any, unreachable: set[str]) -> list[Any]:
    """Return [what a key holds], or [] if nobody has it now; from a worker itself where it can be reached."""
    found = await gather_each(client, [key], unreachable)
    return [found[key]] if key in found else []


async def gather_each(client: Client, keys: Sequence[Any], unreachable: set[str]) -> dict[Any, Any]:
    """Return what keys hold, of those that somebody has now; from workers where they can be reached.

    `Client.gather` takes futures only. Workers that cannot be reached are added to `unreachable`.
    """
    scheduler: Any = client.scheduler
    who_has: dict[Any, Sequence[str]] = await scheduler.who_has(keys=list(keys))
    for worker in {each for holders in who_has.values() for each in holders} - unreachable:
        await _answers(client, worker, unreachable)
    near = {key: [w for w in holders if w not in unreachable] for key, holders in who_has.items()}
    near = {key: holders for key, holders in near.items() if holders}
    found: dict[Any, Any] = {}
    if near:
        found, *_ = await gather_from_workers(near, rpc=client.rpc)
    left = [key for key in keys if key not in found]
    if left:
        answer: Any = await scheduler.gather(keys=left)
        found.update(answer["data"] if answer["status"] == "OK" else {})
    return found


async def _answers(client: Client, worker: str, unreachable: set[str]) -> bool:
    pool: Any = client.rpc
    try:
        comm = await asyncio.wait_for(pool.connect(worker), PROBE)
    except (OSError, TimeoutError):
        unreachable.add(worker)
        return False
    pool.reuse(worker, comm)
    return True


# On the scheduler ------------------------------------------------------------------------------------


def handle(scheduler: Any, message: str, handler: Callable[..., None]) -> None:
    """Have a handler called for messages of ours in any stream; it must not raise."""
    scheduler.stream_handlers[message] = handler


def own(scheduler: Any, owner: str) -> None:
    """Make an owner, who wants nothing yet; what one of this name wanted is let go."""
    if owner in scheduler.clients:
        disown(scheduler, owner)
    scheduler.client_desires_keys(keys=[], client=owner)


def disown(scheduler: Any, owner: str) -> None:
    """Let go of an owner, and of all that it wants; nothing is left of it, not even a topic."""
    if owner in scheduler.clients:
        scheduler.remove_client(client=owner, stimulus_id=f"{owner}-let-go")
    forget_topics(scheduler, owner)


def forget_topics(scheduler: Any, *topics: str) -> None:
    """Drop topics: what was logged to them stays there for ever otherwise."""
    known: Any = getattr(getattr(scheduler, "_broker", None), "_topics", {})
    for topic in topics:
        known.pop(topic, None)


def let_go(scheduler: Any, owner: str, keys: Sequence[Any]) -> None:
    """Let keys of an owner go; nothing happens if the scheduler does not know it.

    Of a graph that was refused the scheduler keeps tasks that nobody wants: they are forgotten.
    """
    stimulus = f"{owner}-released"
    if owner in scheduler.clients:
        scheduler.client_releases_keys(keys=list(keys), client=owner, stimulus_id=stimulus)
    left = [scheduler.tasks[key] for key in keys if key in scheduler.tasks]
    unwanted = {
        task.key: "forgotten"
        for task in left
        if task.state == "released" and not (task.who_wants or task.dependents)
    }
    if unwanted:
        scheduler.transitions(unwanted, stimulus)


def wanted(scheduler: Any, owner: str) -> list[Any]:
    """Return the scheduler's records of the keys that an owner wants."""
    state = scheduler.clients.get(owner)
    return [] if state is None else list(state.wants_what)


def tell(scheduler: Any, client: str, topic: str, at: float, message: Any) -> None:
    """Send something to a client, as an event: to one alone, without that the scheduler keeps it."""
    event = {"op": "event", "topic": topic, "event": (at, message)}
    scheduler.client_send(client, event)


def not_again(scheduler: Any, key: Any) -> None:
    """Let a key err when the worker that has it now dies: the driver decides whether it runs again.

    By itself the scheduler would run it on the next worker, three times, and tell nobody.
    """
    task = scheduler.tasks.get(key)
    if task is not None:
        task.suspicious = max(task.suspicious, scheduler.allowed_failures)


def error_of(task: Any) -> bytes:
    """Return the pickled exception that has made a key err, its own or that of what it depends on."""
    given = (task.exception_blame or task).exception
    if isinstance(given, Serialize):
        given = given.data
    elif isinstance(given, Serialized):
        given = deserialize(given.header, given.frames)
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    return pickle.dumps(given)


def payload_of(task: Any) -> bytes | None:
    """Return the payload in the scheduler's record of a task, or None if it has none.

    It says which dispatches the task is of: a driver that comes later can learn it nowhere else.
    """
    function, args = getattr(task.run_spec, "func", None), getattr(task.run_spec, "args", ())
    return args[0] if getattr(function, "__name__", "") == EXECUTE and args else None


def kept(task: Any) -> list[int] | None:
    """Return what `keep` has noted with a task whose value is lost, if it will be computed again."""
    again = task.who_wants or task.waiters
    return (getattr(task, "metadata", None) or {}).get(PLACES) if again else None


def change_payload(task: Any, data: bytes) -> None:
    """Let a task have another payload when it runs again.

    By itself the scheduler would run all of it, for the sake of one value.
    """
    spec = task.run_spec
    task.run_spec = Task(spec.key, spec.func, data, *spec.args[1:], **spec.kwargs)


async def on_workers(scheduler: Any, function: Callable[..., Any], *args: Any) -> None:
    """Call a function on all workers, as the clients' `run` does: there is no client any more."""
    message = {"op": "run", "function": pickle.dumps(function), "args": pickle.dumps(args)}
    with contextlib.suppress(Exception):  # workers that are gone have nothing left
        await scheduler.broadcast(msg=message, on_error="ignore")
