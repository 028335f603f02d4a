"""Commands between processes, and shares of what is limited."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dflow.ports import Journal
from tests.journal.world import RUN


def test_commands_arrive_in_order_and_once(open_journal: Callable[[], Journal]) -> None:
    """What several senders leave is received the oldest first, and never again."""
    one, two, receiver = open_journal(), open_journal(), open_journal()
    assert receiver.inbox.receive(RUN) == []
    for number in range(20):
        (one if number % 2 else two).inbox.send(RUN, {"number": number, "why": "é", "deep": [{}]})
    received = receiver.inbox.receive(RUN)
    assert received == [{"number": n, "why": "é", "deep": [{}]} for n in range(20)]
    assert receiver.inbox.receive(RUN) == []


def test_commands_reach_their_run_only(journal: Journal) -> None:
    """Each run has an inbox of its own."""
    journal.inbox.send("run-1", {"do": "cancel"})
    assert journal.inbox.receive("run-2") == []
    assert journal.inbox.receive("run-1") == [{"do": "cancel"}]


def test_no_command_is_lost_or_doubled(open_journal: Callable[[], Journal]) -> None:
    """With senders and receivers at once, each command is received by one of them."""
    received: list[int] = []
    sent = threading.Barrier(5)

    def send(first: int) -> None:
        inbox = open_journal().inbox
        for number in range(first, first + 20):
            inbox.send(RUN, {"number": number})
        sent.wait()

    def receive() -> None:
        inbox = open_journal().inbox
        for _ in range(50):
            received.extend(command["number"] for command in inbox.receive(RUN))
        sent.wait()
        received.extend(command["number"] for command in inbox.receive(RUN))

    jobs = [threading.Thread(target=send, args=(first,)) for first in (0, 100, 200)]
    jobs += [threading.Thread(target=receive) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(received) == [*range(20), *range(100, 120), *range(200, 220)]


def test_leases_have_a_limit(open_journal: Callable[[], Journal]) -> None:
    """As many owners as the limit says have a share; one that is given back can be taken."""
    leases, elsewhere = open_journal().leases, open_journal().leases
    assert leases.holders("gpu", 0.0) == []
    assert leases.acquire("gpu", "a", 10.0, at=0.0, limit=2)
    assert elsewhere.acquire("gpu", "b", 10.0, at=0.0, limit=2)
    assert not leases.acquire("gpu", "c", 10.0, at=1.0, limit=2)
    assert list(elsewhere.holders("gpu", 1.0)) == ["a", "b"]
    assert leases.acquire("cpu", "c", 10.0, at=1.0)
    elsewhere.release("gpu", "a")
    elsewhere.release("gpu", "nobody")
    assert leases.acquire("gpu", "c", 10.0, at=1.0, limit=2)
    assert list(leases.holders("gpu", 1.0)) == ["b", "c"]


def test_leases_expire(journal: Journal) -> None:
    """A share that was not renewed is free at its time, and its owner is no holder any more."""
    leases = journal.leases
    leases.release("key", "nobody")
    assert leases.acquire("key", "a", 10.0, at=0.0)
    assert not leases.acquire("key", "b", 10.0, at=9.9)
    assert list(leases.holders("key", 10.0)) == []
    assert leases.acquire("key", "b", 10.0, at=10.0)
    assert list(leases.holders("key", 10.0)) == ["b"]


def test_leases_are_renewed_by_their_owner(journal: Journal) -> None:
    """An owner that acquires again keeps its one share for longer."""
    leases = journal.leases
    assert leases.acquire("key", "a", 10.0, at=0.0)
    assert leases.acquire("key", "a", 10.0, at=8.0)
    assert not leases.acquire("key", "b", 10.0, at=17.0)
    assert list(leases.holders("key", 17.0)) == ["a"]


def test_of_many_owners_as_many_as_the_limit_win(open_journal: Callable[[], Journal]) -> None:
    """However many threads ask at once, no more than the limit get a share."""
    start = threading.Barrier(10)
    won: list[str] = []

    def acquire(owner: str) -> None:
        leases = open_journal().leases
        start.wait()
        if leases.acquire("gpu", owner, 10.0, at=0.0, limit=3):
            won.append(owner)

    threads = [threading.Thread(target=acquire, args=(f"o{n}",)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(open_journal().leases.holders("gpu", 1.0))
    assert len(won) == 3
