"""The slot of a body: who waits is counted, and the slot is left and asked for once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from dflow.attempts.slots import Slot


class Seat:
    """Notes what is asked of it; a question is answered when the test says so."""

    def __init__(self, *, free: bool = True) -> None:
        self.free = free
        self.story: list[str] = []
        self.asked = threading.Event()
        self._there = threading.Event()
        self.slot = Slot(self._leave, self._come_back)

    def _leave(self) -> None:
        self.story.append("left")
        self._there.set()

    def _come_back(self) -> Callable[[], object]:
        self.story.append("asked")
        self._there = threading.Event()
        if self.free:
            self._there.set()
        self.asked.set()
        return self._there.wait


def test_the_first_leaves_and_the_last_comes_back() -> None:
    """Of several who wait at once only the first leaves the slot, and only the last takes it again."""
    seat = Seat()
    first, second = seat.slot(), seat.slot()
    with first:
        with second:
            assert seat.story == ["left"]
        assert seat.story == ["left"]
    assert seat.story == ["left", "asked"]


def test_one_after_the_other() -> None:
    """Each wait of a body that waits alone leaves the slot and takes it again, even when it raises."""
    seat = Seat()
    for _ in range(2):
        try:
            with seat.slot():
                raise ValueError
        except ValueError:
            seat.story.append("raised")
    assert seat.story == ["left", "asked", "raised"] * 2


def test_coroutines_of_one_thread() -> None:
    """Coroutines that wait at once share one absence."""
    seat = Seat()

    async def one(turns: int) -> None:
        with seat.slot():
            for _ in range(turns):
                await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(turns) for turns in (5, 1, 3)))

    asyncio.run(all_of_them())
    assert seat.story == ["left", "asked"]


def test_who_begins_to_wait_takes_the_question_back() -> None:
    """A thread that waits for the slot goes on without it as soon as another one of the body waits."""
    seat = Seat(free=False)

    def wait_once() -> None:
        with seat.slot():
            pass

    thread = threading.Thread(target=wait_once)
    thread.start()
    assert seat.asked.wait(5)
    seat.free = True
    with seat.slot():
        thread.join(5)
        assert not thread.is_alive()
    assert seat.story == ["left", "asked", "left", "asked"]
