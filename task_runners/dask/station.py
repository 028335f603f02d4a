"""What a worker process keeps for each flow run that has work there: the Links of its attempts.

The functions at the end are called by drivers, through Dask, outside of any task.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from distributed import Worker, WorkerPlugin

from dflow.attempts import clock
from dflow.attempts.link import Ended, Mailbox, Sender, WorkerLink
from dflow.attempts.rows import BACK, Row
from dflow.messages import Down, Key
from dflow.results.pickling import loads
from task_runners.dask import names, worker_wire
from task_runners.dask.carried import Carried, Delivered, item_of
from task_runners.dask.clearing import Clearing, MayLeave
from task_runners.dask.internals import pull
from task_runners.dask.parcels import DaskKey
from task_runners.dask.running import last_words
from task_runners.values import missing

PROTOCOL = 5
"""Raised whenever driver and workers of different age would no longer understand each other."""
LAST_WORDS = 10.0
"""Seconds that a body that failed waits until all that it said before has left."""
REMEMBERED = 10_000
"""How many parcels that were given back are remembered: Dask may have one run here yet."""
PATIENCE = 30.0
"""Seconds in which a value must be found that is lost, but may be computed again."""


class Station:
    """What one worker keeps for one flow run."""

    def __init__(self, run: str, worker: Worker) -> None:
        self._run = run
        self._worker = worker
        self._name = os.urandom(4).hex()
        self._sender = Sender(self._carry)
        self._lock = threading.Lock()
        self._begun: set[int] = set()
        self._forbidden: set[int] = set()
        self._taken: weakref.WeakSet[Any] = weakref.WeakSet()
        self._given_back: dict[int, None] = {}
        self._boxes: dict[Key, Mailbox] = {}
        self._places: dict[Key, DaskKey | bytes] = {}
        self._closed = False

    def _carry(self, number: int, data: bytes) -> None:
        batch = {"station": self._name, "number": number, "data": data}
        topic = names.letters_topic(self._run)
        if names.is_fed(self._run):
            worker_wire.post(self._worker, self._run, topic, batch)
        else:
            self._worker.log_event(topic, batch)

    # For attempts -------------------------------------------------------------------------------------

    def begin(self, ticket: int) -> bool:
        """Note that a dispatch begins; return False if it was taken back before."""
        with self._lock:
            if ticket in self._forbidden:
                return False
            self._begun.add(ticket)
            return True

    def take(self, parcel: int) -> bool:
        """Take up the parcel of the calling thread; return False if it was given back before."""
        with self._lock:
            if parcel in self._given_back:
                return False
            # By Dask's record: it is at work for Dask a moment longer than its thread is.
            task = worker_wire.present_task(self._worker)
            if task is not None:
                self._taken.add(task)
            return True

    def give_back(self, task: Any) -> None:
        """Give a parcel back, by Dask's record of it, unless it was taken up; then it never is."""
        parcel = task.key[1]
        with self._lock:
            if task in self._taken or parcel in self._given_back:
                return
            self._given_back[parcel] = None
            if len(self._given_back) > REMEMBERED:
                del self._given_back[next(iter(self._given_back))]
        worker_wire.will_not_run(self._worker, self._run, task.key)
        self.tell(parcel, self._worker.address, [(0, BACK)], at_once=True)

    def clear_way(self, place: MayLeave, still: Callable[[], bool]) -> None:
        """Give back what waits here for a thread, as long as a body takes its time."""
        _clearing(self._worker).begin(still, place)

    def link(self, address: Key, pack: Callable[[Any], Any]) -> WorkerLink:
        """Return the link of an attempt."""
        return WorkerLink(
            address, self._sender, partial(self._open_box, address), self._fetch, pack
        )

    def _open_box(self, address: Key) -> Mailbox:
        with self._lock:
            box = self._boxes.setdefault(address, Mailbox())
            closed = self._closed
        if closed:
            box.close()
        return box

    def unlink(self, link: WorkerLink) -> None:
        """Note that an attempt has ended."""
        if link.has_box:
            with self._lock:
                box = self._boxes.pop(link.address, None)
            if box is not None:
                box.close()

    def tell(self, ticket: int, worker: str, rows: list[Row], at_once: bool) -> None:
        """Send what became of dispatches in a parcel."""
        self._sender.send(("", ticket), Ended(ticket, worker, rows), urgent=True, at_once=at_once)

    def flush(self) -> None:
        """Wait until all that was said has left."""
        self._sender.flush(LAST_WORDS)

    def _fetch(self, key: Key) -> Any:
        with self._lock:
            place = self._places.get(key)
        if isinstance(place, bytes):
            return loads(place)
        deadline = clock.monotonic() + PATIENCE
        while place is not None and (left := deadline - clock.monotonic()) > 0:
            found = pull(self._worker, place, left)
            if found:
                delivered: Carried | Delivered = found[0]
                return item_of(delivered, key[0]).value
            threading.Event().wait(0.1)
        raise missing(key)

    # For drivers --------------------------------------------------------------------------------------

    def deliver(
        self, letters: Iterable[tuple[Key, Down]], places: Mapping[Key, DaskKey | bytes]
    ) -> None:
        """Put messages into the boxes of attempts here; `places` says where values are, or has them."""
        with self._lock:
            self._places.update(places)
            boxes = [(self._boxes.get(key), message) for key, message in letters]
        for box, message in boxes:
            if box is not None:
                box.put(message)

    def forbid(self, tickets: Iterable[int]) -> list[int]:
        """Let no dispatch begin that has not begun yet; return those that have."""
        with self._lock:
            asked = set(tickets)
            self._forbidden |= asked - self._begun
            return sorted(asked & self._begun)

    def dismiss(self, kept: Iterable[Key]) -> None:
        """End what waits here in attempts that are not among these."""
        with self._lock:
            others = self._boxes.keys() - set(kept)
            boxes = [self._boxes.pop(key) for key in others]
        for box in boxes:
            box.close()

    def close(self) -> None:
        """End what waits here for the driver."""
        with self._lock:
            self._closed = True
            boxes = list(self._boxes.values())
            self._boxes.clear()
        for box in boxes:
            box.close()
        self._sender.close()


_lock = threading.Lock()
_stations: dict[tuple[str, str], Station] = {}
_clearings: weakref.WeakValueDictionary[str, Clearing] = weakref.WeakValueDictionary()


def station(run: str, worker: Worker) -> Station:
    """Return the station of a flow run on a worker."""
    with _lock:
        key = (run, worker.address)
        if key not in _stations:
            _stations[key] = Station(run, worker)
            worker_wire.plug_in(worker, Farewell())
        return _stations[key]


def _clearing(worker: Worker) -> Clearing:
    """Return what gives back parcels, of any flow run, that wait on a worker."""
    with _lock:
        found = _clearings.get(worker.address)
        if found is None:
            found = _clearings[worker.address] = Clearing(worker, partial(_give_back, worker))
        return found


def _give_back(worker: Worker, run: str, task: Any) -> None:
    station(run, worker).give_back(task)


class Farewell(WorkerPlugin):
    """Lets what is at work on a worker that closes say what there is to say, while it can be heard."""

    name = f"dflow-farewell-{PROTOCOL}"

    async def teardown(self, worker: Worker) -> None:
        """Say it, and wait until it has left; nothing if the plugin is taken from a worker at work."""
        if not worker_wire.leaves(worker):
            return
        last_words()
        with _lock:
            here = [found for (_, at), found in _stations.items() if at == worker.address]
        await asyncio.gather(*(asyncio.to_thread(each.flush) for each in here))


def can_import(module: ModuleType) -> bool:
    """Tell whether this process finds a module by its name, and not only because it is loaded."""
    spec = getattr(module, "__spec__", None)
    return spec is not None and (
        spec.origin is not None or spec.submodule_search_locations is not None
    )


# Called by drivers ---------------------------------------------------------------------------------


def deliver(
    run: str,
    letters: Sequence[tuple[Key, Down]],
    places: Mapping[Key, DaskKey | bytes],
    dask_worker: Worker | None = None,
) -> None:
    """Put messages into the boxes of attempts on this worker."""
    if dask_worker is not None:
        station(run, dask_worker).deliver(letters, places)


def forbid(run: str, tickets: Sequence[int], dask_worker: Worker | None = None) -> list[int]:
    """Take dispatches back on this worker; return those that have begun here."""
    return station(run, dask_worker).forbid(tickets) if dask_worker is not None else []


def dismiss(run: str, kept: Sequence[Key], dask_worker: Worker | None = None) -> None:
    """Let attempts of a flow run on this worker hear nothing more, but for these: they have no driver."""
    with _lock:
        found = _stations.get((run, dask_worker.address)) if dask_worker else None
    if found is not None:
        found.dismiss(kept)


def close(run: str, dask_worker: Worker | None = None) -> None:
    """End what a flow run has on this worker."""
    with _lock:
        ended = _stations.pop((run, dask_worker.address), None) if dask_worker else None
    if ended is not None:
        ended.close()


def importable(names: Sequence[str]) -> list[str]:
    """Return those of the modules that this process can import."""
    return [name for name in names if _found(name)]


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
