"""The desk of an attempt on a worker: what comes down its link goes to those in its body who wait for it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from dflow.engine.waiting import Inlet, inlet
from dflow.errors import CancelledError
from dflow.messages import Down, FlowAnswered, FlowAsked, Go, HandleDropped, Settled
from dflow.ports import Link
from dflow.results.pickling import loads

PAUSE = 0.5
"""Seconds after which what was dropped is told to the driver, at the latest."""


class Desk:
    """Takes what comes down the link of one attempt, and gives it to those who wait for it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._settled: dict[str, Settled] = {}
        self._orders: dict[str, Inlet] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._over = False
        self._numbers = itertools.count()
        self._answers: dict[int, Inlet] = {}
        self._dropped: SimpleQueue[str] = SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="dflow-desk", daemon=True)
        self._thread.start()

    def orders(self, task_run_id: str, inlet: Inlet) -> Inlet:
        """Let the orders for a child that runs here arrive in an inlet, and return it."""
        with self._lock:
            self._orders[task_run_id] = inlet
            if self._over:
                inlet.put(None)
            return inlet

    async def ask(self, what: str, arguments: tuple[Any, ...], *, native: bool) -> Any:
        """Ask the driver for something, and return its answer. Raises what it raised there."""
        answer, number = inlet(native=native), next(self._numbers)
        with self._lock:
            self._answers[number] = answer
            if self._over:
                answer.put(None)
        self._link.send(FlowAsked(self._link.address, number, what, arguments))
        answered = await answer.get()
        self._answers.pop(number, None)
        if answered is None:
            self.check()
        elif answered.error is not None:
            raise loads(answered.error)
        return answered.value

    def check(self) -> None:
        """Raise `CancelledError` if the driver has let go of the attempt."""
        if self._over:
            raise CancelledError(
                "The driver has let go of this attempt: nothing more comes from it."
            )

    def drop(self, *task_run_ids: str) -> None:
        """Note that futures are gone. Takes no lock and starts no thread: destructors call it, anywhere."""
        for task_run_id in task_run_ids:
            self._dropped.put(task_run_id)

    def forget(self, task_run_id: str) -> None:
        """Forget what is known of a child that is asked for (again)."""
        with self._lock:
            self._settled.pop(task_run_id, None)

    def settled(self, task_run_id: str) -> Settled | None:
        """Return what became of a child, if it is final. Raises `CancelledError` if nobody will say it."""
        settled = self._settled.get(task_run_id)
        if settled is None:
            self.check()
        return settled

    def when_final(self, task_run_id: str, then: Callable[[], None]) -> None:
        """Call `then` once a child is final."""
        with self._lock:
            if task_run_id not in self._settled and not self._over:
                self._waiting.setdefault(task_run_id, []).append(then)
                return
        then()

    def when_all_final(self, task_run_ids: Iterable[str], then: Callable[[], None]) -> None:
        """Call `then` once all these children are final."""
        self._go_on(iter(task_run_ids), then)

    def _go_on(self, left: Iterator[str], then: Callable[[], None]) -> None:
        with self._lock:
            for task_run_id in left:
                if task_run_id not in self._settled and not self._over:
                    waiting = self._waiting.setdefault(task_run_id, [])
                    waiting.append(partial(self._go_on, left, then))
                    return
        then()

    def _read(self) -> None:
        while not self._link.ended:
            message = self._link.receive(PAUSE)
            if message is not None:
                self._take(message)
            self._send_dropped()
        with self._lock:
            self._over = True
            calls = [call for waiting in self._waiting.values() for call in waiting]
            self._waiting.clear()
            for orders in (*self._orders.values(), *self._answers.values()):
                orders.put(None)
        for call in calls:
            call()
        with _desks_lock:
            _desks.pop(self._link, None)

    def _send_dropped(self) -> None:
        ids = []
        with suppress(Empty):
            while True:
                ids.append(self._dropped.get_nowait())
        if ids:
            self._link.send(HandleDropped(tuple(ids)))

    def _take(self, message: Down) -> None:
        if isinstance(message, Go):
            self._orders[message.task_run_id].put(message)
        elif isinstance(message, FlowAnswered):
            self._answers[message.number].put(message)
        elif isinstance(message, Settled):
            with self._lock:
                self._settled[message.task_run_id] = message
                calls = self._waiting.pop(message.task_run_id, [])
                orders = self._orders.pop(message.task_run_id, None)
            if orders is not None:
                orders.put(None)
            for call in calls:
                call()


_desks: dict[Link, Desk] = {}
_desks_lock = threading.Lock()


def desk_of(link: Link) -> Desk:
    """Return the desk of an attempt's link."""
    with _desks_lock:
        if link not in _desks:
            _desks[link] = Desk(link)
        return _desks[link]
