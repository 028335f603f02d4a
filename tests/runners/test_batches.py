"""Small dispatches share tasks of Dask, and each is still one of its own."""

from __future__ import annotations

import functools
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Scheduler
from msgspec.structs import replace

from dflow.core.events import (
    AttemptRaised,
    AttemptStarted,
    AttemptSucceeded,
    AttemptTimedOut,
    DispatchVoided,
    Outcome,
    ResultLost,
    ResultRecomputed,
    WorkerLost,
)
from dflow.core.records import Cause
from dflow.messages import Placement, Work
from task_runners.dask import clusters
from task_runners.dask.planner import AHEAD
from tests.runners import bodies
from tests.runners.conftest import PROCESSES, RUNNERS
from tests.runners.hosts import FakeHost, patiently, work


@pytest.fixture(params=["dask-in-process", "dask-processes"])
def opened(request: pytest.FixtureRequest, host: FakeHost) -> Iterator[Any]:
    """A runner of each kind that knows batches, at work."""
    runner = RUNNERS[request.param].open(host)
    yield runner
    runner.close()


def learn(opened: Any, host: FakeHost, body: Any, *args: Any, **options: Any) -> None:
    """Let the runner find out how long a body takes."""
    for _ in range(2):
        one = work(opened, body, *args, **options)
        opened.dispatch([one])
        host.end(one)


def tasks_done(dask_scheduler: Scheduler) -> dict[str, int]:
    """Return how many tasks have come to an end so far, by prefix."""
    return {
        str(name): prefix.state_counts["memory"] + prefix.state_counts["erred"]
        for name, prefix in dask_scheduler.task_prefixes.items()
    }


def tasks_under_way(dask_scheduler: Scheduler) -> int:
    """Return how many tasks have not come to an end."""
    return sum(task.state not in ("memory", "erred") for task in dask_scheduler.tasks.values())


class Count:
    """Counts the tasks that Dask runs meanwhile."""

    def __init__(self, opened: Any) -> None:
        self._client = clusters.shared.get(opened._runner).connect()
        self._wait()
        self._before = self._now()

    def _wait(self) -> None:
        under_way = functools.partial(self._client.run_on_scheduler, tasks_under_way)
        patiently(lambda: under_way() == 0, "the end of all tasks")

    def _now(self) -> Counter[str]:
        return Counter(self._client.run_on_scheduler(tasks_done))

    def end(self) -> Counter[str]:
        """Return how many have ended since, by prefix, once all have."""
        self._wait()
        found = self._now()
        found.subtract(self._before)
        self._client.close()
        return +found


def test_many_share_few_tasks(opened: Any, host: FakeHost) -> None:
    """Hundreds of tiny dispatches take few tasks of Dask, and each has its own value, times and worker."""
    learn(opened, host, bodies.add, 1)
    count = Count(opened)
    works = [work(opened, bodies.add, n, 1) for n in range(600)]
    opened.dispatch(works)
    ends = [host.end(one) for one in works]
    assert sum(count.end().values()) < 30
    assert all(isinstance(end, AttemptSucceeded) for end in ends)
    assert [opened.fetch(one.info.key) for one in works] == [n + 1 for n in range(600)]
    assert len({(end.worker, end.started_at) for end in ends}) > 500  # workers may go in step
    assert all(0 < end.seconds < 1 and end.worker for end in ends)


def test_each_says_its_own(opened: Any, host: FakeHost) -> None:
    """Lines and errors of dispatches that share a task belong to each, and come before its end."""
    learn(opened, host, bodies.talk, "hello", log_prints=True)
    works = [
        work(opened, bodies.fail_or_talk, n % 5 == 0, f"text {n}", log_prints=True)
        for n in range(100)
    ]
    learn(opened, host, bodies.fail_or_talk, False, "hello", log_prints=True)
    opened.dispatch(works)
    for n, one in enumerate(works):
        end = host.end(one)
        lines = host.lines(one)
        assert [line.message for line in lines] == [f"text {n}", f"warned: text {n}"]
        assert host.reports.index(lines[-1]) < host.reports.index(end)
        if n % 5 == 0:
            assert isinstance(end, AttemptRaised)
            assert end.error.text == f"text {n}"
        else:
            assert isinstance(end, AttemptSucceeded)


def test_chains_share_tasks(opened: Any, host: FakeHost) -> None:
    """A chain of hundreds is few tasks of Dask: each dispatch has the value of the one before at hand."""
    learn(opened, host, bodies.add, 1)
    count = Count(opened)
    works = [work(opened, bodies.add, 1)]
    for _ in range(400):
        works.append(work(opened, bodies.add, works[-1], 1))
    opened.dispatch(works)
    host.end(works[-1])
    assert opened.fetch(works[-1].info.key) == 401
    assert sum(count.end().values()) < 60
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)


def test_random_graphs(opened: Any, host: FakeHost) -> None:
    """In random graphs with failures and large values each ends once, as it should, after its upstreams."""
    luck = random.Random(11)
    learn(opened, host, bodies.total, 0, 10)
    for _ in range(3):
        works: list[Work] = []
        totals: dict[str, int | None] = {}
        edges: list[tuple[str, str]] = []
        for _ in range(150):
            ups = luck.sample(works[-20:], min(len(works), luck.randrange(4)))
            below = [totals[up.info.task_run_id] for up in ups]
            own = -1 if luck.random() < 0.05 else 1
            one = work(opened, bodies.total, own, luck.choice([10, 10, 10, 30_000]), *ups)
            sound = own > 0 and None not in below
            totals[one.info.task_run_id] = own + sum(b or 0 for b in below) if sound else None
            edges += [(up.info.task_run_id, one.info.task_run_id) for up in ups]
            works.append(one)
        opened.dispatch(works)
        for one in works:
            end, expected = host.end(one), totals[one.info.task_run_id]
            assert isinstance(end, AttemptSucceeded) is (expected is not None)
            if expected is not None:
                assert opened.fetch(one.info.key)[0] == expected
        assert all(len(host.ends(one)) == 1 for one in works)
        reports: list[Any] = host.reports
        order = {end.task_run_id: n for n, end in enumerate(reports) if is_end(end)}
        assert [pair for pair in edges if order[pair[0]] > order[pair[1]]] == []
        opened.release([one.info.key for one in works])


def is_end(report: Any) -> bool:
    """Tell whether a report is the end of a dispatch."""
    return isinstance(report, Outcome | DispatchVoided | WorkerLost)


def test_large_values_of_a_batch(processes: Any, host: FakeHost) -> None:
    """A value that turned out large stays on its worker, and is fetched and passed on by itself."""
    learn(processes, host, bodies.large, 10)
    works = [work(processes, bodies.large, 50_000 if n % 20 == 7 else 10) for n in range(60)]
    after = [work(processes, bodies.size_of, one) for one in works]
    processes.dispatch([*works, *after])
    for one in works:
        host.end(one)
    large = [one for n, one in enumerate(works) if n % 20 == 7]
    assert any(not processes._book.find(one.info.key).parcel.sole for one in large)
    for one in large:
        assert processes.fetch(one.info.key) == bytes(50_000)
        assert processes.apply(len, one.info.key) == 50_000
    sizes = [host.end(one) and processes.fetch(one.info.key) for one in after]
    assert sizes == [50_000 if n % 20 == 7 else 10 for n in range(60)]


def test_large_values_do_not_meet(processes: Any, host: FakeHost) -> None:
    """Small bodies do not share a task where that would bring many large values together."""
    learn(processes, host, bodies.size_of, b"")
    tops = [work(processes, bodies.large, 700_000) for _ in range(6)]
    processes.dispatch(tops)
    for one in tops:
        host.end(one)
    count = Count(processes)
    bottoms = [work(processes, bodies.size_of, one) for one in tops]
    processes.dispatch(bottoms)
    for one in bottoms:
        host.end(one)
    assert sum(count.end().values()) == len(bottoms)


def test_a_slow_one_holds_nobody_back(opened: Any, host: FakeHost) -> None:
    """One that takes a second among small ones: all others end before it, and its start is told."""
    learn(opened, host, bodies.linger, 0)
    works = [work(opened, bodies.linger, 1.5 if n == 30 else 0) for n in range(200)]
    opened.dispatch(works)
    slow = works.pop(30)
    for one in works:
        assert isinstance(host.end(one), AttemptSucceeded)
    assert host.ends(slow) == []
    started, ended = host.started(slow), host.end(slow)
    assert isinstance(started, AttemptStarted)
    assert isinstance(ended, AttemptSucceeded)
    assert abs(started.at - ended.started_at) < 0.01


def test_long_ones_never_share(opened: Any, host: FakeHost) -> None:
    """Dispatches that take their time each have a task of Dask of their own."""
    count = Count(opened)
    works = [work(opened, bodies.linger, 0.15) for _ in range(16)]
    opened.dispatch(works)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)
    assert count.end() == {"linger": 16}


def test_who_asks_shares(opened: Any, host: FakeHost) -> None:
    """With batch=True longer ones share too, and with batch=False not even the smallest do."""
    for body, batch, most in ((bodies.linger, True, 8), (bodies.add, False, 20)):
        arguments = (0.06,) if batch else (1,)
        learn(opened, host, body, *arguments)
        count = Count(opened)
        placement = Placement(batch=batch)
        works = [replace(work(opened, body, *arguments), placement=placement) for _ in range(20)]
        opened.dispatch(works)
        assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)
        done = sum(count.end().values())
        assert done <= most if batch else done == most, done


def test_withdrawn_in_the_middle(opened: Any, host: FakeHost, tmp_path: Path) -> None:
    """What has not begun is void, wherever it waits, and never runs; what has goes on to its end."""
    (tmp_path / "there").touch()
    learn(opened, host, bodies.touch_and_wait, str(tmp_path / "x"), str(tmp_path / "there"))
    go = tmp_path / "go"
    works = [
        work(opened, bodies.touch_and_wait, str(tmp_path / f"begun{n}"), str(go)) for n in range(60)
    ]
    opened.dispatch(works)
    patiently(lambda: len(list(tmp_path.glob("begun*"))) >= 2, "the first starts")
    opened.withdraw([one.info.key for one in works])
    host.wait(lambda: sum(bool(host.ends(one)) for one in works) >= 55, "the withdrawal")
    go.touch()
    for n, one in enumerate(works):
        end: Any = host.end(one)
        begun = (tmp_path / f"begun{n}").exists()
        assert isinstance(end, AttemptSucceeded if begun else DispatchVoided)
        assert begun or getattr(end, "cause", None) is Cause.WITHDRAWN


def test_a_killed_worker(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """A worker is killed in the middle of a batch: nobody is charged, what had ended does not run again."""
    log = tmp_path / "log"
    learn(processes, host, bodies.note, str(log), "first")
    works = [work(processes, bodies.note, str(log), f"n{n}") for n in range(1000)]
    processes.dispatch(works)
    host.wait(lambda: len(host.ends(works[0])) == 1, "the first end")
    ended = {end.task_run_id for end in list(host.reports) if isinstance(end, AttemptSucceeded)}
    os.kill(int(log.read_text().splitlines()[-1].split()[0]), signal.SIGKILL)
    others = [one for one in works if not isinstance(host.end(one), AttemptSucceeded)]
    for (
        one
    ) in others:  # the last that was left of its batch: its driver sends it again, at no charge
        assert [type(report) for report in host.about(one)] == [WorkerLost]
    assert len(others) <= AHEAD
    runs = Counter(line.split()[1] for line in log.read_text().splitlines())
    again = {one.info.task_run_id for n, one in enumerate(works) if runs[f"n{n}"] > 1}
    assert not again & ended


def test_a_value_that_dies_with_its_parcel(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """A body that had ended, and whose value went with its worker, is an attempt that was lost."""
    log = str(tmp_path / "log")
    learn(processes, host, bodies.large_or_die, log, "first")
    calls = [("large", 50_000, False), ("dies", 10, True), *[("small", 10, False)] * 8]
    works = [shared(work(processes, bodies.large_or_die, log, *call)) for call in calls]
    processes.dispatch(works)
    large, dies, *others = works
    assert isinstance(host.end(large), WorkerLost)
    assert host.started(large).worker == host.started(dies).worker
    assert isinstance(host.end(dies), WorkerLost)
    for one in others:  # one that waited alone on the worker that died ends at no charge
        assert isinstance(host.end(one), AttemptSucceeded) or not host.about(one)[:-1]
    assert texts(log)["large"] == 1


def texts(log: str) -> Counter[str]:
    """Return how often each text was noted."""
    return Counter(line.split()[1] for line in Path(log).read_text().splitlines())


def shared(one: Work) -> Work:
    """Return a work that may share a parcel however long it takes."""
    return replace(one, placement=Placement(batch=True))


def kill_holder(log: str, text: str) -> None:
    """Kill the process that has noted a text last."""
    lines = [line.split() for line in Path(log).read_text().splitlines()]
    os.kill(int({text: pid for pid, text in lines}[text]), signal.SIGKILL)


def test_a_lost_value_alone_is_made_again(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """Of a parcel whose worker has died bodies run again for values that lie there, and no other ones."""
    log = str(tmp_path / "log")
    learn(processes, host, bodies.note, log, "first")
    learn(processes, host, bodies.large_or_die, log, "first")
    name = shared(work(processes, bodies.note, log, "large"))
    large = shared(work(processes, bodies.large_or_die, log, name, 50_000))
    calls = [work(processes, bodies.large_or_die, log, f"n{n}") for n in range(20)]
    works = [name, large, *map(shared, calls)]
    processes.dispatch(works)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)
    parcel = processes._book.find(large.info.key).parcel
    together = {entry.key for entry in parcel.entries}
    assert name.info.key in together
    assert len(together) > 2
    processes.release([one.info.key for one in works if one is not large])
    kill_holder(log, "large")
    host.wait(lambda: any(isinstance(each, ResultRecomputed) for each in host.about(large)))
    assert processes.fetch(large.info.key) == bytes(50_000)
    assert processes.apply(len, large.info.key) == 50_000
    ran = texts(log)
    assert ran.pop("large") == 4  # twice each: it takes the value of the other one
    assert {text for text, times in ran.items() if times > 1} == {"first"}


def test_a_lost_value_that_cannot_be_made_again(
    processes: Any, host: FakeHost, tmp_path: Path
) -> None:
    """It is reported lost, and what needs it is void; an attempt that had ended well stays so."""
    for n in range(2):
        learn_one = work(processes, bodies.once, str(tmp_path / f"first{n}"))
        processes.dispatch([learn_one])
        host.end(learn_one)
    works = [shared(work(processes, bodies.once, str(tmp_path / f"n{n}"))) for n in range(8)]
    processes.dispatch(works)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)
    entry = processes._book.find(works[1].info.key)
    assert not entry.parcel.sole
    pid, _ = processes.fetch(works[1].info.key)
    os.kill(pid, signal.SIGKILL)
    patiently(lambda: processes._book.dead(entry), "the failure of the recompute")
    after = work(processes, bodies.size_of, works[1])
    processes.dispatch([after])
    void = host.end(after)
    assert isinstance(void, DispatchVoided)
    assert void.cause is Cause.UPSTREAM
    assert [type(each) for each in host.about(works[1])] == [AttemptSucceeded, ResultLost]


def test_poison_among_others(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """One that ends its process is found out: whoever shared a task with it goes again."""
    log = tmp_path / "log"
    learn(processes, host, bodies.note, str(log), "first")
    works = [work(processes, bodies.note, str(log), f"n{n}", n == 77) for n in range(200)]
    processes.dispatch(works)
    poison = works.pop(77)
    assert isinstance(host.end(poison), WorkerLost)
    for one in works:  # one that waited alone on a worker that died ends at no charge
        assert isinstance(host.end(one), AttemptSucceeded) or not host.about(one)[:-1]
    assert sum(isinstance(host.end(one), WorkerLost) for one in works) <= 4
    runs = Counter(line.split()[1] for line in log.read_text().splitlines())
    assert runs["n77"] <= 6


def test_what_ends_a_body_ends_one(opened: Any, host: FakeHost) -> None:
    """A deadline, sys.exit and KeyboardInterrupt in one of a batch are its own."""
    learn(opened, host, bodies.linger, 0, timeout=0.2)
    learn(opened, host, bodies.leave_or_not, "")
    late = [work(opened, bodies.linger, 5 if n == 10 else 0, timeout=0.2) for n in range(30)]
    leaving = [
        work(opened, bodies.leave_or_not, {10: "exit", 20: "interrupt"}.get(n, ""))
        for n in range(30)
    ]
    opened.dispatch([*late, *leaving])
    for n, one in enumerate(late):
        assert isinstance(host.end(one), AttemptTimedOut if n == 10 else AttemptSucceeded)
    for n, one in enumerate(leaving):
        assert isinstance(host.end(one), AttemptRaised if n in (10, 20) else AttemptSucceeded)


def test_one_that_waits_gives_the_rest_back(opened: Any, host: FakeHost, tmp_path: Path) -> None:
    """When one gives its slot back, those behind it do not wait for what it waits for."""
    learn(opened, host, bodies.wait_in_slot_if, "")
    works = [
        work(opened, bodies.wait_in_slot_if, str(tmp_path / "go") if n in (3, 4) else "")
        for n in range(60)
    ]
    opened.dispatch(works)
    waiting = [works[3], works[4]]
    for one in works:
        if one not in waiting:
            assert isinstance(host.end(one), AttemptSucceeded)
    assert not any(host.ends(one) for one in waiting)
    (tmp_path / "go").touch()
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in waiting)


def test_one_that_came_back_holds_nobody_up(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """Behind one that has waited, and works on, nobody stands: what Dask sends there runs elsewhere, once."""
    log, files = str(tmp_path / "log"), [tmp_path / name for name in ("wait", "back", "hold")]
    learn(processes, host, bodies.note, log, "first")
    holding = work(processes, bodies.wait_and_hold, *map(str, files))
    processes.dispatch([holding])
    host.started(holding)
    files[0].touch()
    patiently(files[1].exists, "the coming back")
    works = [work(processes, bodies.note, log, f"n{n}") for n in range(300)]
    processes.dispatch(works)
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in works)
    assert host.ends(holding) == []
    files[2].touch()
    assert isinstance(host.end(holding), AttemptSucceeded)
    assert {times for text, times in texts(log).items() if text != "first"} == {1}


def test_a_batch_of_one_is_given_back(processes: Any, host: FakeHost, tmp_path: Path) -> None:
    """What is small waits behind no body that takes its time, though it shares its task with nobody."""
    log, go = str(tmp_path / "log"), tmp_path / "go"
    learn(processes, host, bodies.note, log, "first")
    slow = [
        work(processes, bodies.touch_and_wait, str(tmp_path / f"b{n}"), str(go)) for n in (1, 2)
    ]
    processes.dispatch(slow)
    for one in slow:
        host.started(one)
    small = work(processes, bodies.note, log, "small")
    processes.dispatch([small])
    sent = processes._book.find(small.info.key).parcel
    assert sent.sole
    patiently(lambda: sent.ticket not in processes._book._parcels, "the giving back")
    assert not host.about(small)
    go.touch()
    assert all(isinstance(host.end(one), AttemptSucceeded) for one in (*slow, small))
    assert texts(log)["small"] == 1


def test_functions_live_on_workers(processes: Any, host: FakeHost) -> None:
    """A function that goes by value is one and the same on a worker, with all its caches."""
    made: list[int] = []

    @functools.lru_cache(maxsize=7)
    def dear(number: int) -> int:
        made.append(number)
        return len(made)

    def cheap(number: int) -> tuple[int, int, Any]:
        return os.getpid(), dear(number % 2), dear.cache_parameters()["maxsize"]

    works = [work(processes, cheap, n) for n in range(100)]
    processes.dispatch(works)
    found = [host.end(one) and processes.fetch(one.info.key) for one in works]
    assert {count for _, count, _ in found} <= {1, 2}
    assert {size for *_, size in found} == {7}
    assert len({pid for pid, *_ in found}) <= 2


def test_the_scheduler_reads_nothing_of_users(
    processes: Any, host: FakeHost, tmp_path: Path
) -> None:
    """Arguments, shared ones too, and values are unpickled by workers, each shared one once in a process."""
    log = tmp_path / "log"
    telling = bodies.Telling(str(log))
    shared = {"telling": bodies.Telling(str(tmp_path / "shared")), "data": bytes(100_000)}
    works = [work(processes, bodies.same, telling, shared=shared) for _ in range(40)]
    processes.dispatch(works)
    pids = {host.end(one) and processes.fetch(one.info.key) for one in works}
    assert set(map(int, log.read_text().split())) == pids
    unpickled = list(map(int, (tmp_path / "shared").read_text().split()))
    assert sorted(unpickled) == sorted(pids)
    cluster: Any = clusters.shared.get(PROCESSES)
    assert cluster.host_pid not in pids
    assert os.getpid() not in pids
