"""What Dask runs on a worker: a parcel, one attempt after the other."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from distributed import get_worker

from dflow.attempts import body, prints
from dflow.attempts.calls import Call
from dflow.attempts.inputs import value_of
from dflow.attempts.link import WorkerLink
from dflow.attempts.packing import Packer
from dflow.attempts.rows import row_of
from dflow.core.events import AttemptSucceeded, Outcome
from dflow.errors import DflowError
from dflow.messages import Kept
from dflow.ports import Link
from dflow.results import files
from dflow.results.pickling import loads
from task_runners.dask import worker_wire
from task_runners.dask.carried import BodyFailed, Carried, Delivered, TakenBack, item_of
from task_runners.dask.internals import hide_noise
from task_runners.dask.payload import Extra, Item, Payload, call_of, decode, info_of
from task_runners.dask.places import Place, taken
from task_runners.dask.running import Running
from task_runners.dask.station import Station, can_import, station


def execute(data: bytes, *given: Any) -> Carried | Delivered:
    """Run a parcel on a worker. `given` are the parts beside the payload, then the upstreams' values.

    Raises `BodyFailed` when the body of the only dispatch did not return, so that Dask lets what depends on
    it err; `TakenBack` when there is nothing to run.
    """
    hide_noise()
    prints.settle()
    payload = decode(data)
    if payload.again == ():
        raise TakenBack(payload.ticket)
    worker = get_worker()
    here = station(payload.run, worker)
    if payload.again is None and not here.take(payload.ticket):
        raise TakenBack(payload.ticket)
    with taken() as place:
        work = _Work(payload, given, here, worker.address, place)
        return work.one() if len(payload.items) == 1 else work.all()


class _Work:
    """One parcel, and what its attempts need of their surroundings."""

    def __init__(
        self,
        payload: Payload,
        given: tuple[Any, ...],
        here: Station,
        worker: str,
        place: Place,
    ) -> None:
        self._payload = payload
        count = len(payload.beside)
        self._beside: dict[str, bytes] = dict(zip(payload.beside, given[:count], strict=True))
        self._given = given[count:]
        self._here = here
        self._worker = worker
        self._place = place
        self._pack = Packer(can_import, payload.script_there).pack
        tell = partial(here.tell, payload.ticket, worker)
        self._running = Running(
            len(payload.items),
            tell,
            payload.patience,
            keeps=payload.again is not None,
            leaves=partial(worker_wire.leaves, get_worker()),
            slow=partial(here.clear_way, place),
        )
        self._values: dict[int, bytes | Carried] = {}
        self._functions: dict[int, Callable[..., Any]] = {}

    def one(self) -> Carried:
        """Run the only attempt."""
        ended: tuple[Outcome, Any] | None = None
        for _ in self._running.items():
            ended = self._attempt(self._payload.items[0], 0)
        if ended is None:
            raise TakenBack(self._payload.ticket)
        outcome, value = ended
        if isinstance(outcome, AttemptSucceeded):
            if outcome.value is not None or outcome.stored is not None:
                worker_wire.keep(get_worker(), [])
            return Carried(outcome, value)
        self._here.flush()  # Dask may tell the driver before: all that the body has said comes first
        item = self._payload.items[0]
        raise BodyFailed.of((item[4], item[5]), outcome)

    def all(self) -> Delivered:
        """Run the attempts, one after the other, but for those behind one that came to nothing.

        Where values that were lost are made again, and one cannot be, what takes any of them errs.
        """
        large: dict[int, Carried] = {}
        again, failed = self._payload.again, None
        for place in self._running.items():
            item = self._payload.items[place]
            extra = item[12]
            if again is not None and place not in again:
                continue
            if extra is not None and not self._values.keys() >= set(extra.inside.values()):
                continue
            ended = self._attempt(item, place)
            if ended is None:
                continue
            outcome, value = ended
            if not isinstance(outcome, AttemptSucceeded):
                failed = failed or BodyFailed.of((item[4], item[5]), outcome)
                continue
            if outcome.value is None or again is not None:
                large[place] = self._values[place] = Carried(None, value)
            else:
                self._values[place] = outcome.value
            if self._place.left:
                self._running.give_back()
        if again is not None and failed is not None:
            raise failed
        worker_wire.keep(get_worker(), list(large))
        values = {self._payload.items[place][4]: carried for place, carried in large.items()}
        return Delivered(self._payload.ticket, self._worker, self._running.all_rows, values)

    def _attempt(self, item: Item, place: int) -> tuple[Outcome, Any] | None:
        """Run one attempt, unless it was taken back."""
        if not self._here.begin(item[0]):
            self._running.ended((place,))
            return None
        info = info_of(self._payload, item)
        link = self._here.link(info.key, self._pack)
        self._running.begins(link)
        try:
            outcome, value = body.run(
                info,
                partial(self._load, item, link),
                link,
                worker=self._worker,
                must_travel=True,
                slot=self._running.slot(self._place),
                adopted=self._place.adopted,
            )
            link.finish(outcome)
        finally:
            self._here.unlink(link)
        self._running.ended(row_of(place, outcome, self._worker))
        return outcome, value

    def _load(self, item: Item, link: WorkerLink) -> tuple[Call, Mapping[str, Any]]:
        call = call_of(self._payload, item, self._beside, self._functions)
        extra = item[12]
        return call, {} if extra is None else self._values_of(extra, link)

    def _values_of(self, extra: Extra, link: Link) -> dict[str, Any]:
        values = {name: loads(data) for name, data in extra.values.items()}
        for name, place in extra.inside.items():
            inside = self._values[place]
            values[name] = inside.value if isinstance(inside, Carried) else loads(inside)
        brought = {name: item_of(self._given[n], name) for name, n in extra.given.items()}
        values.update((name, it.value) for name, it in brought.items() if name not in extra.kept)
        for name, kept in extra.kept.items():
            values[name] = _stored(kept, brought.get(name), link)
        return values


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

Job = Callable[[Place], None]
_jobs: dict[int, Job] = {}


def put(ticket: int, job: Job) -> None:
    """Leave a job for a worker in this process to find: nothing of it need be pickled."""
    _jobs[ticket] = job


def drop(ticket: int) -> None:
    """Forget a job."""
    _jobs.pop(ticket, None)


def execute_here(ticket: int, *_: Any) -> None:
    """Run a parcel on a worker in the driver's own process, once what it depends on has run."""
    hide_noise()
    job = _jobs.get(ticket)
    if job is None:
        raise TakenBack(ticket)
    with taken() as place:
        job(place)
