"""What Dask runs on a worker: one attempt of one task run."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from distributed import get_worker

from dflow.attempts import body, prints
from dflow.attempts.calls import Call
from dflow.attempts.inputs import value_of
from dflow.core.events import AttemptSucceeded
from dflow.errors import DflowError
from dflow.messages import Kept
from dflow.ports import Link
from dflow.results import files
from dflow.results.pickling import loads
from task_runners.dask.carried import BodyFailed, Carried, TakenBack
from task_runners.dask.internals import hide_noise
from task_runners.dask.payload import Payload, call_of, decode
from task_runners.dask.places import Place, taken
from task_runners.dask.station import station


def execute(data: bytes, *given: Any) -> Carried:
    """Run an attempt on a worker. `given` are the parts beside the payload, then the upstreams' values.

    Raises `BodyFailed` when the body did not return, so that Dask lets what depends on it err.
    """
    hide_noise()
    prints.settle()
    payload = decode(data)
    worker = get_worker()
    here = station(payload.run, worker)
    if not here.begin(payload.ticket):
        raise TakenBack
    key = payload.info.key
    link = here.link(key, payload.script_there)
    try:
        with taken() as place:
            outcome, value = body.run(
                payload.info,
                lambda: _load(payload, given, link),
                link,
                worker=worker.address,
                must_travel=True,
                slot=place.slot,
                adopted=place.adopted,
            )
        link.finish(outcome)
    finally:
        here.unlink(key)
    if not isinstance(outcome, AttemptSucceeded):
        raise BodyFailed.of(key, outcome)
    return Carried(outcome, value)


def _load(payload: Payload, given: tuple[Any, ...], link: Link) -> tuple[Call, dict[str, Any]]:
    count = len(payload.beside)
    call = call_of(payload, dict(zip(payload.beside, given[:count], strict=True)))
    values = {name: loads(data) for name, data in (payload.values or {}).items()}
    brought = dict(zip(payload.upstreams, given[count:], strict=True))
    kept = payload.kept or {}
    values.update((name, carried.value) for name, carried in brought.items() if name not in kept)
    values.update((name, _stored(each, brought.get(name), link)) for name, each in kept.items())
    return call, values


def _stored(kept: Kept, carried: Carried | None, link: Link) -> Any:
    """Return a value from a result store: as it was brought, or read now. Raises as `inputs.read` does."""
    if carried is None or isinstance(carried.value, Unread):
        return value_of(kept, link)
    return carried.value


def beside(data: bytes) -> bytes:
    """Return a part that travels beside payloads: the task that holds it."""
    return data


class Unread:
    """Stands for a value that could not be read: who needs it tries itself, and says what comes of it."""


def read(data: bytes) -> Carried:
    """Return a value from its store, or `Unread`: the task of a node."""
    kept: Kept = pickle.loads(data)
    try:
        return Carried(None, files.read(kept.stored, kept.name))
    except DflowError:
        return Carried(None, Unread())


# In the driver's own process ------------------------------------------------------------------------

Job = Callable[[Place, tuple[Any, ...]], Carried]
_jobs: dict[int, Job] = {}


def put(ticket: int, job: Job) -> None:
    """Leave a job for a worker in this process to find: nothing of it need be pickled."""
    _jobs[ticket] = job


def drop(ticket: int) -> None:
    """Forget a job."""
    _jobs.pop(ticket, None)


def execute_here(ticket: int, *given: Any) -> Carried:
    """Run an attempt on a worker in the driver's own process."""
    hide_noise()
    job = _jobs.get(ticket)
    if job is None:
        raise TakenBack
    with taken() as place:
        return job(place, given)
