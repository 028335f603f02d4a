"""Who owns the work on a real scheduler: the messages that are not public, the feed, leases, breaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from distributed import Client, LocalCluster

from dflow.core.events import AttemptRaised, AttemptSucceeded, DispatchVoided
from task_runners import DaskTaskRunner
from task_runners.dask import feed, names, placements, station, wire, worker_wire
from task_runners.dask.connection import FORCE
from task_runners.dask.graph import Draft, Graph, Sent
from task_runners.dask.internals import DEATHS
from tests.foreign import foreign_cluster
from tests.runners import bodies
from tests.runners.hosts import FakeHost, patiently, work
from tests.runners.proxy import Proxy


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster that is not ours: its scheduler and one worker are threads of the tests' process."""
    shape = {"n_workers": 1, "threads_per_worker": 2, "processes": False}
    with foreign_cluster(**shape, protocol="tcp://", host="127.0.0.1") as made:
        yield made


@pytest.fixture
def proxy(cluster: LocalCluster) -> Iterator[Proxy]:
    """A way to its scheduler that can be broken."""
    with Proxy(cluster.scheduler_address) as made:
        yield made


@contextmanager
def opening(address: str, host: FakeHost, **options: Any) -> Iterator[Any]:
    """Give a runner at work on the cluster at an address."""
    runner = DaskTaskRunner(address=address, **options)
    made = runner.open(host)
    try:
        yield made
    finally:
        made.close()
        runner.shutdown()


@pytest.fixture
def opened(cluster: LocalCluster, host: FakeHost) -> Iterator[Any]:
    """A runner at work on it."""
    with opening(cluster.scheduler_address, host) as made:
        yield made


@pytest.fixture
def breakable(proxy: Proxy, host: FakeHost) -> Iterator[Any]:
    """A runner at work on it, with a connection that can be broken."""
    with opening(proxy.address, host) as made:
        yield made


def on_scheduler(cluster: LocalCluster, ask: Callable[[Any], Any]) -> Any:
    """Return what a function makes of the scheduler, in its thread."""

    async def asked() -> Any:
        return ask(cluster.scheduler)

    return cluster.sync(asked)


def what_is_left(cluster: LocalCluster) -> tuple[int, list[str], list[str], list[str]]:
    """Return how many tasks the scheduler knows, and what of ours among clients, owners and topics."""

    def count(scheduler: Any) -> Any:
        known = scheduler.plugins.get(feed.Feed.name)
        topics = [
            name
            for name in scheduler._broker._topics
            if name.startswith(names.OWNER) and name != DEATHS
        ]
        clients = [name for name in scheduler.clients if name.startswith(names.OWNER)]
        assert not known or (not known._by_key and not known._by_run) or known.owners
        return len(scheduler.tasks), clients, list(known.owners) if known else [], topics

    found: tuple[int, list[str], list[str], list[str]] = on_scheduler(cluster, count)
    return found


NOTHING: tuple[int, list[str], list[str], list[str]] = (0, [], [], [])


def test_nothing_is_left(cluster: LocalCluster, host: FakeHost) -> None:
    """After a run no task, owner or topic of it is on the scheduler, and none of its keys in the feed."""
    with opening(cluster.scheduler_address, host) as opened:
        works = [work(opened, bodies.large, 100_000) for _ in range(3)]
        shared = [work(opened, bodies.size_of, shared={"data": bytes(100_000)}) for _ in range(3)]
        opened.dispatch([*works, *shared])
        assert all(isinstance(host.end(one), AttemptSucceeded) for one in (*works, *shared))
        tasks, clients, owners, _ = what_is_left(cluster)
        assert (len(clients), len(owners)) == (1, 1)
        opened.release([one.info.key for one in works])
        patiently(lambda: what_is_left(cluster)[0] < tasks, "the release of values")
    assert what_is_left(cluster)[1:3] == ([], [])
    patiently(lambda: what_is_left(cluster) == NOTHING, "the end of everything")


def test_an_owner_outlives_its_client(cluster: LocalCluster) -> None:
    """A graph that was sent under a name is computed and kept, with nobody connected, until it is let go."""
    owner = names.owner_of("some-run", "somewhere")
    key = ("text-0abc", 5)
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        client.run_on_scheduler(feed.attach, owner, client.id, names.run_of(owner), 600.0)
        message = wire.graph(owner, Graph({key: _task(key)}), {key: 0}, {}, "stimulus-1")
        client.loop.add_callback(lambda: wire.send(client, wire.stream(client), message))
        patiently(lambda: what_is_left(cluster)[0] == 1, "the task")
    patiently(lambda: _driver(cluster, owner) is None, "the end of the driver")
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        patiently(
            lambda: (
                client.run_on_scheduler(feed.catch_up, owner, 0)["stand"] == [(key, "memory", None)]
            ),
            "the value",
        )
        assert client.sync(wire.gather, client, key, set()) == ["done"]
        batches = client.run_on_scheduler(feed.catch_up, owner, 0)["batches"]
        news = [one for batch in batches for one in batch["news"]]
        assert ["graph", "stimulus-1", "OK"] in news
        assert [one for one in news if one[0] == "memory"] == [["memory", 5]]
        client.run_on_scheduler(feed.attach, owner, client.id, names.run_of(owner), 600.0)
        assert client.run_on_scheduler(feed.leave, owner, client.id)
    patiently(lambda: what_is_left(cluster) == NOTHING, "the end of everything")


def test_news_wait_while_there_is_enough_to_do(cluster: LocalCluster) -> None:
    """What becomes of keys is told at once only when so few are left that workers may soon have none."""
    owner = names.owner_of("some-run", "somewhere")
    keys = [("task-0abc", number) for number in range(7)]

    def waits(scheduler: Any) -> list[bool]:
        known = feed.feed_of(scheduler)
        known.attach(owner, "nobody", "some-run", 600.0)
        known.update_graph(scheduler, client=owner, keys=set(keys))
        found = []
        for key in keys:
            known.transition(key, "processing", "memory")
            found.append(known.owners[owner].flush.when() > known._loop.time())
        known.let_go(owner)
        return found

    assert on_scheduler(cluster, waits) == [True, True, False, False, False, False, False]


def _task(key: Any) -> Any:
    """Return a task of Dask."""
    from dask.task_spec import Task

    return Task(key, str, "done")


def _driver(cluster: LocalCluster, owner: str) -> Any:
    return on_scheduler(cluster, lambda scheduler: feed.feed_of(scheduler).owners[owner].driver)


def test_a_lease_expires(cluster: LocalCluster, host: FakeHost) -> None:
    """Work of a driver that has gone is let go after the time that its runner gave; then nothing is left."""
    with opening(cluster.scheduler_address, host, lease_seconds=0.3) as opened:
        one = work(opened, bodies.large, 100_000)
        opened.dispatch([one])
        host.end(one)
        assert len(what_is_left(cluster)[2]) == 1
        opened._connection._client.close()  # without a word
        assert len(what_is_left(cluster)[2]) == 1
        patiently(lambda: what_is_left(cluster) == NOTHING, "the end of the lease")


def test_messages_of_ours_break_no_connection(cluster: LocalCluster, opened: Any) -> None:
    """A message for an owner that nobody knows, or one that makes no sense, is handled without harm."""
    client: Any = opened._connection._client
    for message in (
        wire.released("dflow-nobody", [("x", 1)]),
        {"op": wire.LETTERS, "run": "nobody", "station": "", "number": 1, "data": b""},
        {"op": wire.LETTERS, "nonsense": True},
        {"op": wire.RELEASE, "nonsense": True},
    ):
        stream = wire.stream(client)
        client.sync(_sent, client, message)
        assert client.sync(client.scheduler.identity)
        assert wire.stream(client) is stream
    assert on_scheduler(cluster, lambda scheduler: len(scheduler.workers)) == 1


async def _sent(client: Any, message: Any) -> None:
    """Send a message; the scheduler has handled it when it answers to a later one of the same stream."""
    assert wire.send(client, wire.stream(client), message)
    await client.run_on_scheduler(_nothing)


def _nothing() -> None:
    """Do nothing."""


def test_a_graph_that_is_refused(
    cluster: LocalCluster, opened: Any, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dispatches of a graph that the scheduler cannot take fail, and say so; the next graph is taken."""
    monkeypatch.setattr(placements, "on_graph", lambda *_: {"retries": "many"})
    one = work(opened, bodies.add, 1)
    opened.dispatch([one])
    end = host.end(one)
    assert isinstance(end, AttemptRaised)
    assert "could not take a graph" in end.error.text
    monkeypatch.undo()
    again = work(opened, bodies.add, 1)
    opened.dispatch([again])
    assert isinstance(host.end(again), AttemptSucceeded)
    opened.release([again.info.key])
    patiently(lambda: what_is_left(cluster)[0] == 0, "the end of what was taken in part")


def test_a_graph_on_its_way_is_not_lost(
    opened: Any, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another graph is refused, one that is just being submitted is not taken for gone."""
    way = opened._connection._way
    line, held = type(way._line), list[Any]()
    in_loop = line.in_loop

    def later(self: Any, function: Any, *args: Any) -> None:
        if function == way._send:
            held.append((self, function, *args))
        else:
            in_loop(self, function, *args)

    monkeypatch.setattr(line, "in_loop", later)
    one = work(opened, bodies.add, 1)
    opened.dispatch([one])
    key = opened._book.find(one.info.key).parcel.dask_key
    assert held
    way._client.sync(way._find_lost, Sent({}, ()), "error")
    assert way.status(key) == "pending"
    in_loop(*held.pop())
    assert isinstance(host.end(one), AttemptSucceeded)


def test_a_graph_without_its_upstreams(cluster: LocalCluster, opened: Any, host: FakeHost) -> None:
    """A dispatch that depends on a value which has gone meanwhile comes back void."""
    first = work(opened, bodies.large, 100_000)
    opened.dispatch([first])
    host.end(first)
    connection = opened._connection
    connection._client.run_on_scheduler(feed.release_others, connection._way.owner, ())
    patiently(lambda: what_is_left(cluster)[0] == 0, "the loss of the value")
    after = work(opened, bodies.size_of, first)
    opened.dispatch([after])
    assert isinstance(host.end(after), DispatchVoided)


def test_a_connection_breaks(breakable: Any, proxy: Proxy, host: FakeHost, tmp_path: Any) -> None:
    """A driver whose connection breaks and comes back goes on: nothing runs twice, nothing is lost."""
    go = tmp_path / "go"
    kept = work(breakable, bodies.large, 100_000)
    breakable.dispatch([kept])
    host.end(kept)
    waiting = [
        work(breakable, bodies.touch_and_wait, str(tmp_path / f"begun{n}"), str(go))
        for n in range(2)
    ]
    queued = [work(breakable, bodies.add, n) for n in range(20)]
    breakable.dispatch([*waiting, *queued])
    for one in waiting:
        host.started(one)
    stream = wire.stream(breakable._connection._client)
    proxy.cut()
    go.touch()
    late = work(breakable, bodies.size_of, kept)
    breakable.dispatch([late])  # while nobody hears it
    patiently((tmp_path / "begun0").exists, "the bodies")
    proxy.mend()
    for one in (*waiting, *queued, late):
        assert isinstance(host.end(one), AttemptSucceeded)
    again = wire.stream(breakable._connection._client)
    assert again is not stream
    assert again.recent_message_log.maxlen == wire.REMEMBERED
    assert len(breakable.fetch(kept.info.key)) == 100_000
    assert all(len(host.ends(one)) == 1 for one in (kept, *waiting, *queued, late))


def test_what_is_missed_is_asked_for(opened: Any, host: FakeHost) -> None:
    """A batch that does not arrive is fetched from the feed once a later one has come."""
    way = opened._connection._way
    heard = way._on_batch
    dropped: list[Any] = []

    def deaf(event: Any) -> None:
        if dropped:
            heard(event)
        else:
            dropped.append(event)

    way._client._event_handlers[names.feed_topic(way.owner)] = deaf
    works = [work(opened, bodies.add, n) for n in range(3)]
    for one in works:
        opened.dispatch([one])
    for one in works:
        assert isinstance(host.end(one), AttemptSucceeded)
    assert len(dropped) == 1


@pytest.mark.parametrize("reachable", [True, False])
def test_values_come_from_workers_themselves(
    reachable: bool, cluster: LocalCluster, opened: Any, host: FakeHost
) -> None:
    """A large value is fetched from its worker; through the scheduler only where that cannot be reached."""
    one = work(opened, bodies.large, 1_000_000)
    opened.dispatch([one])
    host.end(one)
    way = opened._connection._way
    if not reachable:
        way._fetched._unreachable.update(_workers(cluster))
    before = _gathered(cluster)
    assert len(opened.fetch(one.info.key)) == 1_000_000
    assert (_gathered(cluster) > before) is not reachable


def _workers(cluster: LocalCluster) -> list[str]:
    found: list[str] = on_scheduler(cluster, lambda scheduler: list(scheduler.workers))
    return found


def _gathered(cluster: LocalCluster) -> int:
    """Return how often the scheduler has gathered values."""
    events = on_scheduler(cluster, lambda scheduler: scheduler.get_events("all"))
    return sum(event.get("action") == "gather" for _, event in events)


def test_a_worker_that_cannot_be_reached_is_not_asked_again(
    cluster: LocalCluster, opened: Any
) -> None:
    """A worker that does not answer is noted as unreachable, so that nobody waits for it twice."""
    unreachable: set[str] = set()
    client = opened._connection._client
    assert not client.sync(wire._answers, client, "tcp://127.0.0.1:9", unreachable)
    assert unreachable == {"tcp://127.0.0.1:9"}
    (worker,) = _workers(cluster)
    assert client.sync(wire._answers, client, worker, unreachable)


def test_stations_made_at_once_share_a_farewell(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that come to a worker together make one of it; last words are for a worker that closes."""
    torn: list[Any] = []
    said: list[Any] = []
    teardown = station.Farewell.teardown

    async def noted(self: Any, worker: Any) -> None:
        torn.append(self)
        await teardown(self, worker)

    monkeypatch.setattr(station.Farewell, "teardown", noted)
    monkeypatch.setattr(station, "last_words", lambda: said.append(True))
    client = opened._connection._client
    client.run(_two_stations)
    (there,) = client.run(_farewells).values()
    assert (len(there), torn) == (1, [])
    client.run(_take_away)
    assert (len(torn), said) == (1, [])
    for run in ("one", "two"):
        client.run(station.close, run)


def _two_stations(dask_worker: Any) -> None:
    """Make two stations in one turn of the loop, on a worker that has had none yet."""
    dask_worker.plugins.pop(station.Farewell.name, None)
    station.station("one", dask_worker)
    station.station("two", dask_worker)


def _farewells(dask_worker: Any) -> list[str]:
    return [name for name in dask_worker.plugins if name == station.Farewell.name]


async def _take_away(dask_worker: Any) -> None:
    await dask_worker.plugin_remove(name=station.Farewell.name)
    worker_wire.plug_in(dask_worker, station.Farewell())


@pytest.mark.parametrize("forced", [True, False], ids=["asked-for", "found-out"])
def test_the_plain_way(
    forced: bool,
    cluster: LocalCluster,
    host: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where distributed lacks something, or if asked for, the public interface alone is used, and works."""
    caplog.set_level(logging.INFO, "dflow.runners")
    if forced:
        monkeypatch.setenv(FORCE, "plain")
    else:
        unknown = (Client, "no_such_thing", frozenset({"x"}), False)
        monkeypatch.setattr(wire, "_TAKEN", (*wire._TAKEN, unknown))
    with opening(cluster.scheduler_address, host) as opened:
        assert type(opened._connection._way).__name__ == "Plain"
        one = work(opened, bodies.add, 1, 2)
        opened.dispatch([one])
        assert isinstance(host.end(one), AttemptSucceeded)
    assert ("Client.no_such_thing" in caplog.text) is not forced
    assert what_is_left(cluster)[1:3] == ([], [])


def test_distributed_is_as_it_must_be() -> None:
    """All that the owned way relies on is there in the distributed that is installed."""
    assert wire.missing() == []


def test_what_is_missing_is_found() -> None:
    """A method that is gone, lacks a parameter, or wants one that nobody gives, is told."""

    class Other:
        def gone(self, x: int) -> None: ...

        def more(self, x: int, y: int) -> None: ...

    assert wire._takes(Other.gone, frozenset({"x"}), True)
    assert not wire._takes(Other.gone, frozenset({"x", "y"}), True)
    assert not wire._takes(Other.more, frozenset({"x"}), True)
    assert wire._takes(Other.more, frozenset({"x"}), False)
    assert not wire._takes(None, frozenset(), False)


def test_a_draft_is_a_graph() -> None:
    """A graph of ours is taken as it is: Dask does not hash it."""
    assert isinstance(Draft().graph, Graph)
