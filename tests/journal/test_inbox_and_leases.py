"""Commands between processes, and shares of what is limited."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dflow.ports import Journal
from tests.journal.world import RUN, World, holder


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
    elsewhere.release_each(["gpu"], "a")
    elsewhere.release_each(["gpu"], "nobody")
    assert leases.acquire("gpu", "c", 10.0, at=1.0, limit=2)
    assert list(leases.holders("gpu", 1.0)) == ["b", "c"]


def test_leases_expire(journal: Journal) -> None:
    """A share that was not renewed is free at its time, and its owner is no holder any more."""
    leases = journal.leases
    leases.release_each(["key"], "nobody")
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


def test_the_share_of_a_dead_process_is_free_at_once(journal: Journal, world: World) -> None:
    """Who is known to be dead holds nothing; who cannot be seen from here does, until the share expires."""
    leases = journal.leases
    here, far = holder(pid=1), holder(pid=2, host="elsewhere")
    assert leases.acquire("key", "a", 100.0, at=0.0, holder=here)
    assert leases.acquire("far", "b", 100.0, at=0.0, holder=far)
    assert not leases.acquire("key", "c", 100.0, at=1.0, holder=holder(pid=3))
    world.dead |= {1, 2}
    assert list(leases.holders("key", 1.0)) == []
    assert leases.acquire("key", "c", 100.0, at=1.0, holder=holder(pid=3))
    assert list(leases.holders("key", 1.0)) == ["c"]
    assert list(leases.holders("far", 1.0)) == ["b"]
    assert not leases.acquire("far", "c", 100.0, at=99.0, holder=holder(pid=3))
    assert leases.acquire("far", "c", 100.0, at=100.0, holder=holder(pid=3))


def test_only_as_many_shares_as_the_dead_had_are_free(journal: Journal, world: World) -> None:
    """With a limit, the living and those without a process keep theirs beside those of the dead."""
    leases = journal.leases
    assert leases.acquire("gpu", "dead", 100.0, at=0.0, limit=3, holder=holder(pid=1))
    assert leases.acquire("gpu", "alive", 100.0, at=0.0, limit=3, holder=holder(pid=2))
    assert leases.acquire("gpu", "nobody", 100.0, at=0.0, limit=3)
    world.dead.add(1)
    assert leases.acquire("gpu", "first", 100.0, at=1.0, limit=3, holder=holder(pid=3))
    assert not leases.acquire("gpu", "second", 100.0, at=1.0, limit=3, holder=holder(pid=3))
    assert list(leases.holders("gpu", 1.0)) == ["alive", "first", "nobody"]


def test_a_share_that_was_renewed_depends_on_who_renewed_it(journal: Journal, world: World) -> None:
    """A run that another process took over keeps its share: it is no longer that of the dead one."""
    leases = journal.leases
    assert leases.acquire("key", "run", 10.0, at=0.0, holder=holder(pid=1))
    world.dead.add(1)
    assert leases.acquire("key", "run", 10.0, at=1.0, holder=holder(pid=2))
    assert not leases.acquire("key", "other", 10.0, at=2.0)


def test_many_keys_are_taken_at_once(open_journal: Callable[[], Journal], world: World) -> None:
    """Of many keys those that can be had are taken; all of an owner's are renewed and given back at once."""
    leases, elsewhere = open_journal().leases, open_journal().leases
    assert leases.acquire_each([], "a", 10.0, at=0.0) == frozenset()
    assert elsewhere.acquire_each(["k2", "k4"], "b", 10.0, at=0.0, holder=holder(1)) == {"k2", "k4"}
    keys = [f"k{n}" for n in range(6)]
    assert leases.acquire_each(keys, "a", 10.0, at=0.0) == {"k0", "k1", "k3", "k5"}
    leases.renew("a", 10.0, at=8.0)
    leases.renew("a", 1000.0, at=18.0)  # too late: they have expired
    leases.renew("nobody", 10.0, at=8.0)
    assert [list(leases.holders(key, 17.0)) for key in keys] == [["a"], ["a"], [], ["a"], [], ["a"]]
    assert list(leases.holders("k0", 18.0)) == []
    world.dead.add(1)
    assert leases.acquire_each(keys, "c", 10.0, at=9.0) == {"k2", "k4"}
    leases.release_all("a")
    leases.release_all("nobody")
    assert elsewhere.acquire_each(keys, "c", 10.0, at=9.0) == frozenset(keys)


def test_many_keys_are_given_back_at_once(open_journal: Callable[[], Journal]) -> None:
    """Those that are named, if the owner has them; nobody else's."""
    leases, elsewhere = open_journal().leases, open_journal().leases
    leases.release_each(["k0"], "a")
    leases.acquire_each(["k0", "k1", "k2"], "a", 10.0, at=0.0)
    elsewhere.acquire("k3", "b", 10.0, at=0.0)
    leases.release_each(["k0", "k2", "k3", "nothing"], "a")
    held = [list(elsewhere.holders(f"k{n}", 1.0)) for n in range(4)]
    assert held == [[], ["a"], [], ["b"]]


def test_keys_and_owners_may_be_any_text(journal: Journal) -> None:
    """Keys that users make up are kept apart, whatever is in them."""
    keys = ["", "a\0b", "\udce9", "%_", "'; DROP TABLE leases", "ключ" * 1000]
    assert journal.leases.acquire_each(keys, "\udcff", 10.0, at=0.0) == frozenset(keys)
    assert journal.leases.acquire_each(keys, "b", 10.0, at=1.0) == frozenset()
    journal.leases.release_all("\udcff")
    assert journal.leases.acquire_each(keys, "b", 10.0, at=1.0) == frozenset(keys)
