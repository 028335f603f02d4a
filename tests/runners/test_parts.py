"""The parts of which runners are made, by themselves, without any cluster."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dflow.attempts.link import FLUSH, Mailbox, Sender, WorkerLink, open_batch
from dflow.attempts.rows import BACK, row_of
from dflow.attempts.slots import Slot
from dflow.core.events import (
    AttemptRaised,
    AttemptStarted,
    AttemptStopped,
    AttemptSucceeded,
    DispatchVoided,
    ResultLost,
    ResultRecomputed,
    WorkerLost,
)
from dflow.core.records import Cause, ErrorInfo, Held, Stored
from dflow.errors import CancelledError, DefinitionError, MissingMainGuard
from dflow.messages import Go, LogEntry, Printed, StartConfirmed
from task_runners import DaskTaskRunner, InlineTaskRunner, ThreadPoolTaskRunner
from task_runners.dask import host, in_process, main_guard
from task_runners.dask.book import RECOVERY, Book
from task_runners.dask.carried import BodyFailed, Carried, TakenBack
from task_runners.dask.ends import INQUEST
from task_runners.dask.parcels import Entry, Parcel
from task_runners.dask.reader import Reader
from task_runners.dask.runner import OwnCluster
from task_runners.dask.sequence import Sequences
from task_runners.pool import Job, Pool
from tests.runners.hosts import patiently

# Descriptions ----------------------------------------------------------------------------------------


def test_equal_runners_are_one() -> None:
    """Runners are told apart by what they ask for, not by how it was written; they can be pickled."""
    assert DaskTaskRunner() == DaskTaskRunner(cluster_kwargs={"processes": True, "n_workers": None})
    assert hash(DaskTaskRunner()) == hash(DaskTaskRunner(cluster_kwargs={}))
    assert in_process() == in_process() != DaskTaskRunner()
    assert DaskTaskRunner(address="tcp://a:1") != DaskTaskRunner(address="tcp://a:2")
    gpus = [DaskTaskRunner(cluster_kwargs={"resources": {"GPU": n}}) for n in (1, 1.0, 2)]
    assert gpus[0] == gpus[1] != gpus[2]
    for runner in (
        DaskTaskRunner(),
        gpus[0],
        in_process(),
        ThreadPoolTaskRunner(2),
        InlineTaskRunner(),
    ):
        assert pickle.loads(pickle.dumps(runner)) == runner


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ThreadPoolTaskRunner(0), "max_workers"),
        (lambda: ThreadPoolTaskRunner("4"), "max_workers"),  # type: ignore[arg-type]
        (lambda: DaskTaskRunner(cluster_kwargs={"threads": 1}), "threads_per_worker"),
        (lambda: DaskTaskRunner(cluster_kwargs={"n_workers": 0}), "n_workers"),
        (lambda: DaskTaskRunner(cluster_kwargs={"processes": 1}), "processes"),
        (lambda: DaskTaskRunner(cluster_kwargs={"memory_limit": []}), "memory_limit"),
        (lambda: DaskTaskRunner(cluster_kwargs={"resources": {"GPU": 0}}), "resources"),
        (lambda: DaskTaskRunner(cluster_kwargs={"resources": "GPU"}), "resources"),
        (lambda: DaskTaskRunner(cluster_kwargs={"idle_seconds": 0}), "idle_seconds"),
        (lambda: DaskTaskRunner(cluster_kwargs={"idle_seconds": "1 min"}), "idle_seconds"),
        (lambda: DaskTaskRunner(""), "address"),
        (lambda: DaskTaskRunner("tcp://a:1", {"n_workers": 1}), "address and cluster_kwargs"),
        (
            lambda: DaskTaskRunner(cluster_kwargs={"processes": False, "memory_limit": "1 GB"}),
            "memory_limit and processes=False",
        ),
    ],
)
def test_wrong_descriptions(make: Callable[[], Any], named: str) -> None:
    """What cannot be is refused when it is written, and the error names the argument."""
    with pytest.raises(DefinitionError, match=named):
        make()


def test_descriptions_of_earlier_records() -> None:
    """A description that was pickled before it had all of its fields has the defaults of the others."""
    made = OwnCluster(n_workers=2)
    earlier = OwnCluster.__new__(OwnCluster)
    earlier.__setstate__([2, None, True, None, False, ()])
    assert earlier == made


def test_descriptions_can_be_recorded() -> None:
    """A description is plain data."""
    assert ThreadPoolTaskRunner(3).describe() == {"kind": "threads", "max_workers": 3}
    assert in_process().describe()["processes"] is False
    gpus = DaskTaskRunner(cluster_kwargs={"resources": {"GPU": 2}})
    assert gpus.describe()["resources"] == {"GPU": 2.0}
    assert DaskTaskRunner("tcp://a:1").describe() == {"kind": "dask", "address": "tcp://a:1"}


# The book --------------------------------------------------------------------------------------------


def entry(number: int, *upstreams: Entry) -> Entry:
    """Return a dispatch."""
    open_ones = tuple(each for each in upstreams if not each.ended)
    key = (f"run{number}", 1)
    return Entry(key, "label", number=number, upstreams=open_ones, ticket=number, sources=upstreams)


def book(*entries: Entry) -> Book:
    """Return a book with these dispatches, each sent alone, under its own number."""
    made = Book()
    for one in entries:
        one.alone = True
        made.enter(one)
    made.planner.plan(0.0)
    for one in entries:
        made.send(Parcel(one.ticket, (f"task-{one.ticket}", one.ticket), [one]))
    return made


def success(one: Entry, value: bytes | None = None, started_at: float = 1.0) -> AttemptSucceeded:
    """Return an outcome with a value."""
    return AttemptSucceeded(
        at=2.0,
        task_run_id=one.key[0],
        dispatch=one.key[1],
        started_at=started_at,
        seconds=1.0,
        worker="w",
        held=Held.RUNNER if value is None else Held.JOURNAL,
        value=value,
    )


def failure(one: Entry) -> AttemptRaised:
    """Return an outcome without one."""
    return AttemptRaised(
        at=2.0,
        task_run_id=one.key[0],
        dispatch=one.key[1],
        started_at=1.0,
        seconds=1.0,
        error=ErrorInfo("ValueError", "no"),
    )


def kinds(made: Book) -> list[type]:
    """Return what was reported, by type."""
    return [type(report) for report in made.news]


def names(made: Book) -> list[str]:
    """Return of which task runs there were reports."""
    return [getattr(report, "task_run_id", "") for report in made.news]


def test_success_waits_for_both_sides() -> None:
    """An outcome is reported once its value can be had, whichever side speaks first."""
    first, second = entry(1), entry(2)
    made = book(first, second)
    made.heard(first.key, success(first))
    made.in_memory(2)
    assert made.news == []
    made.in_memory(1)
    made.heard(second.key, success(second))
    assert kinds(made) == [AttemptSucceeded] * 2


def test_what_is_let_go_of_without_hurry() -> None:
    """A parcel that is done is light, unless a value of it did not come along: a stored one did not."""
    small, failed, large, stored, _ = works = [entry(number) for number in range(1, 6)]
    made = book(*works)
    parcels = [one.parcel for one in works]
    made.heard(small.key, success(small, b"1"))
    made.heard(failed.key, failure(failed))
    made.heard(large.key, success(large))
    there = Stored("memory://", "x", 100_000, "0" * 32, "pickle")
    made.heard(stored.key, replace(success(stored), held=Held.STORED, stored=there))
    for one in works[:-1]:
        made.in_memory(one.ticket)
    light = [bool(parcel and parcel.light) for parcel in parcels]
    assert light == [True, False, False, False, False]


def test_ends_are_in_order() -> None:
    """Nothing ends before what it depends on, whichever way the news of that took: alone or together."""
    large = entry(1)
    small = entry(2, large)
    behind = entry(3, small)
    apart = entry(4, large)
    made = book(apart)
    for one in (large, small, behind):
        made.enter(one)
    made.send(Parcel(9, ("task-9", 9), [large, small, behind]))
    made.heard(apart.key, failure(apart))
    made.rows(
        9,
        "w",
        [
            row_of(n, success(one, value), "w")
            for n, (one, value) in enumerate([(large, None), (small, b"2"), (behind, b"3")])
        ],
    )
    assert made.news == []
    made.in_memory(9)
    ended = [getattr(report, "task_run_id", "") for report in made.news]
    assert (ended[0], ended.index("run2") < ended.index("run3")) == ("run1", True)
    assert sorted(ended) == ["run1", "run2", "run3", "run4"]


def test_a_long_chain_behind_a_large_value() -> None:
    """However many wait for one end, they end one after the other."""
    chain = [entry(1)]
    for number in range(2, 3000):
        chain.append(entry(number, chain[-1]))
    made = Book()
    for one in chain:
        made.enter(one)
    made.send(Parcel(5000, ("task-9", 5000), list(chain)))
    rows = [row_of(n, success(one, b"v" if n else None), "w") for n, one in enumerate(chain)]
    made.rows(5000, "w", rows)
    assert made.news == []
    made.in_memory(5000)
    assert [getattr(report, "task_run_id", "") for report in made.news] == [
        one.key[0] for one in chain
    ]


def test_what_dask_says_is_known_before() -> None:
    """An outcome ends its dispatch at once where the value is known to be there, before that is read."""
    one = entry(1)
    made = book(one)
    made.status = lambda _: "finished"
    made.heard(one.key, success(one))
    assert kinds(made) == [AttemptSucceeded]
    made.in_memory(1)
    assert kinds(made) == [AttemptSucceeded]


def test_news_are_heard_once() -> None:
    """Doubled starts and outcomes, and those of released dispatches, change nothing."""
    one = entry(1)
    made = book(one)
    start = AttemptStarted(at=1.0, task_run_id="run1", dispatch=1, worker="w")
    for _ in range(2):
        made.heard(one.key, start)
        made.heard(one.key, failure(one))
        made.told(one, failure(one))
        made.worker_died(1, "w")
    assert kinds(made) == [AttemptStarted, AttemptRaised]
    assert [parcel.entries for parcel in made.released] == [[one]]


def test_a_second_execution() -> None:
    """Another outcome of a finished dispatch is a value that was computed again."""
    one = entry(1)
    made = book(one)
    made.in_memory(1)
    made.heard(one.key, success(one))
    made.heard(one.key, success(one))
    made.heard(one.key, success(one, started_at=5.0))
    made.heard(one.key, failure(one))
    assert kinds(made) == [AttemptSucceeded, ResultRecomputed]


def test_a_death_with_the_news_under_way() -> None:
    """A body that had returned a small value has succeeded, though its worker died before Dask knew."""
    one, other = entry(1), entry(2)
    made = book(one, other)
    made.heard(one.key, success(one, b"value"))
    made.heard(other.key, success(other))
    made.death("w", "was killed")
    made.worker_died(1, "w")
    made.worker_died(2, "w")
    assert kinds(made) == [AttemptSucceeded, AttemptStarted, WorkerLost]
    assert (one.copy, made.dead(one)) == (b"value", False)


def test_a_death_with_a_parcel() -> None:
    """What was heard of there has begun: it is lost, and charged, if its value is; nothing else is."""
    large, small, behind, running, waiting = (entry(number) for number in range(1, 6))
    behind.sources = (large,)
    made = Book()
    for one in (large, small, behind, running, waiting):
        made.enter(one)
    made.send(Parcel(9, ("task-9", 9), [large, small, behind, running, waiting]))
    told = [(large, None), (small, b"2"), (behind, b"3")]
    made.rows(9, "w", [row_of(n, success(one, value), "w") for n, (one, value) in enumerate(told)])
    made.heard(running.key, AttemptStarted(at=4.0, task_run_id="run4", dispatch=1, worker="w"))
    made.death("w", "was killed")
    made.worker_died(9, "w")
    assert [(type(report), getattr(report, "task_run_id", "")) for report in made.news] == [
        (AttemptSucceeded, "run2"),
        (AttemptStarted, "run4"),
        (AttemptStarted, "run1"),
        (WorkerLost, "run1"),
        (AttemptStarted, "run3"),
        (DispatchVoided, "run3"),
        (WorkerLost, "run4"),
    ]
    assert made.all() == [small, waiting]
    assert (waiting.parcel, waiting.ended) == (None, False)


def test_a_parcel_that_dask_could_not_end() -> None:
    """What had run in it has begun, and is lost; the rest goes again."""
    for fail in (lambda made: made.broken(9, "no"), lambda made: made.upstream_failed(9, "no")):
        large, waiting, other = (entry(number) for number in range(1, 4))
        made = Book()
        for one in (large, waiting, other):
            made.enter(one)
        made.send(Parcel(9, ("task-9", 9), [large, waiting, other]))
        made.rows(9, "w", [row_of(0, success(large), "w")])
        fail(made)
        assert kinds(made) == [AttemptStarted, WorkerLost]
        assert [one.parcel for one in made.all()] == [None, None]


def test_an_inquest_has_an_end() -> None:
    """A loss is reported at once when it is known how the worker died, and soon when it is not."""
    one, other = entry(1), entry(2)
    made = book(one, other)
    made.worker_died(1, "a")
    made.worker_died(2, "b")
    made.death("a", "was killed by signal 9")
    assert [getattr(report, "message", "") for report in made.news] == [
        "Worker a was killed by signal 9."
    ]
    due = made.next_due()
    assert due is not None
    assert made.overdue(due - INQUEST) == []
    assert made.overdue(due) == []
    assert kinds(made) == [WorkerLost, WorkerLost]


def test_an_outcome_that_nobody_told() -> None:
    """A value without an outcome is asked for its outcome, once."""
    one = entry(1)
    made = book(one)
    made.in_memory(1)
    due = made.next_due()
    assert due is not None
    assert [parcel.entries for parcel in made.overdue(due)] == [[one]]
    assert made.overdue(due) == []
    made.outcomes_lost(1)
    assert kinds(made) == [WorkerLost]


def test_an_outcome_that_only_waits_for_another() -> None:
    """One that was told is neither asked for nor lost while that of what it depends on is late."""
    one = entry(1)
    two = entry(2, one)
    made = book(one, two)
    made.in_memory(2)
    made.heard(two.key, success(two))
    made.in_memory(1)
    due = made.next_due()
    assert due is not None
    assert made.overdue(due + RECOVERY) == [one.parcel]
    made.outcomes_lost(2)
    assert made.news == []
    made.heard(one.key, success(one))
    assert names(made) == ["run1", "run2"]
    assert kinds(made) == [AttemptSucceeded] * 2


def test_what_was_told_does_not_go_again() -> None:
    """Of a parcel whose outcomes are lost in part the rest goes again, and what waits behind it does not."""
    one = entry(1)
    two, three = entry(2, one), entry(3)
    made = Book()
    for each in (one, two, three):
        made.enter(each)
    made.send(Parcel(9, ("task-9", 9), [one, two, three]))
    made.in_memory(9)
    made.rows(9, "w", [row_of(1, success(two), "w"), row_of(2, success(three), "w")])
    made.outcomes_lost(9)
    assert names(made) == ["run3"]
    assert (one.parcel, two.parcel) == (None, made.parcel(9))
    made.send(Parcel(10, ("task-10", 10), [one]))
    made.rows(10, "w", [row_of(0, success(one, b"value"), "w")])
    assert names(made) == ["run3", "run1", "run2"]


def test_a_lost_value_takes_what_needs_it() -> None:
    """When a value cannot be computed again it is lost, and its consumer is void."""
    one = entry(1)
    two = entry(2, one)
    made = book(one, two)
    made.in_memory(1)
    made.heard(one.key, success(one))
    made.status = lambda key: "error" if key == ("task-1", 1) else "pending"
    assert made.is_dead_end(2)
    made.upstream_failed(2, "")
    assert kinds(made)[1:] == [ResultLost, DispatchVoided]
    assert made.find(one.key) is None


def test_a_worker_leaves_a_foreign_cluster() -> None:
    """What had started there is lost, with all that waits for it; what had not goes on."""
    one, other = entry(1), entry(2)
    two = entry(3, one)
    three = entry(4, two)
    made = book(one, other, two, three)
    made.heard(one.key, AttemptStarted(at=1.0, task_run_id="run1", dispatch=1, worker="w"))
    made.news.clear()
    made.worker_left([1, 2], "w", expected=True)
    lost, *voided = made.news
    assert isinstance(lost, WorkerLost)
    assert lost.cause is Cause.SCALED_DOWN
    assert [type(report) for report in voided] == [DispatchVoided, DispatchVoided]
    assert made.all() == [other]


def test_a_worker_that_was_told_to_leave() -> None:
    """What it says last counts; then what had begun there is lost at no charge, and the rest goes again."""
    ended, running, large, waiting = (entry(number) for number in range(1, 5))
    made = Book()
    for one in (ended, running, large, waiting):
        made.enter(one)
    made.send(Parcel(9, ("task-9", 9), [ended, running, large, waiting]))
    made.worker_retired([9], "w")
    made.worker_died(9, "w")
    assert made.news == []
    made.heard(running.key, AttemptStarted(at=1.0, task_run_id="run2", dispatch=1, worker="w"))
    told = [(0, ended, b"1"), (2, large, None)]
    made.rows(9, "w", [row_of(n, success(one, value), "w") for n, one, value in told])
    due = made.next_due()
    assert due is not None
    assert made.overdue(due) == []
    assert [(type(report), getattr(report, "task_run_id", "")) for report in made.news] == [
        (AttemptStarted, "run2"),
        (AttemptSucceeded, "run1"),
        (WorkerLost, "run2"),
        (AttemptStarted, "run3"),
        (WorkerLost, "run3"),
    ]
    assert {getattr(report, "cause", Cause.SCALED_DOWN) for report in made.news} == {
        Cause.SCALED_DOWN
    }
    assert (waiting.ended, waiting.parcel, waiting.waits) == (False, None, True)


def test_a_parcel_that_waited_behind_a_slow_body() -> None:
    """Given back as a whole before it began it is let go, and all of it goes again."""
    works = [entry(number) for number in range(1, 4)]
    made = Book()
    for one in works:
        made.enter(one)
    parcel = Parcel(9, ("task-9", 9), works)
    made.send(parcel)
    made.rows(9, "w", [(0, BACK)])
    assert (made.news, made.released) == ([], [parcel])
    assert [one.parcel for one in works] == [None, None, None]


def test_a_parcel_of_an_earlier_driver_that_gives_back() -> None:
    """What it does not run goes again, in one batch, each once."""
    made, works = Book(), [entry(number) for number in range(1, 7)]
    parcel = Parcel(9, ("task-9", 9), works)
    for one in works:
        one.parcel = parcel
    made.adopt(parcel)
    quick = [replace(success(one, b"value"), seconds=0.001) for one in works[:2]]
    made.rows(9, "w", [row_of(place, outcome, "w") for place, outcome in enumerate(quick)])
    made.rows(9, "w", [(3, BACK)])
    assert made.planner.plan(0.0) == [works[3:]]
    assert (any(one.waits for one in works), made.all()) == (False, works)


def test_what_follows_a_parcel_of_an_earlier_driver() -> None:
    """What depends on one that went alone goes at once, on what went as a batch once that has ended."""
    for prefix, follows in (("task-0run", True), ("task-batch-0run", False)):
        made, one = Book(), entry(1)
        parcel = one.parcel = Parcel(9, (prefix, 9), [one])
        made.adopt(parcel)
        made.enter(two := entry(2, one))
        two.alone = True
        assert made.planner.plan(0.0) == ([[two]] if follows else [])


def test_what_a_parcel_errs_of() -> None:
    """One that was taken back is void; what depends on it is void behind it, or waits for it to go again."""
    one = entry(1)
    two = entry(2, one)
    made = book(one, two)
    reader = Reader(made, lambda _: None)
    reader.erred(2, TakenBack(1))
    assert made.news == []
    reader.erred(1, TakenBack(1))
    assert [(type(report), getattr(report, "cause", None)) for report in made.news] == [
        (DispatchVoided, Cause.WITHDRAWN),
        (DispatchVoided, Cause.UPSTREAM),
    ]


def test_the_scheduler_is_lost() -> None:
    """Everything ends, at no charge, and values are gone."""
    one, two = entry(1), entry(2)
    made = book(one, two)
    made.in_memory(1)
    made.heard(one.key, success(one))
    made.scheduler_lost("gone")
    assert kinds(made)[1:] == [ResultLost, WorkerLost]
    assert made.all() == []


def test_what_children_do_goes_on() -> None:
    """What an attempt says of task runs that it runs itself is passed on as it is."""
    one, child = entry(1), entry(2)
    made = book(one)
    made.heard(one.key, failure(child))
    assert made.news == [failure(child)]


# The feed ----------------------------------------------------------------------------------------------


def test_batches_are_put_in_order() -> None:
    """Each batch comes once and in its turn; what is missing is known, and can be given up."""
    made = Sequences()
    assert made.take("a", 1, b"1") == [b"1"]
    assert made.take("a", 1, b"1") == []
    assert made.take("a", 3, b"3") == []
    assert made.take("b", 1, b"x") == [b"x"]
    gaps = [made.gap]
    assert made.take("a", 2, b"2") == [b"2", b"3"]
    assert [*gaps, made.gap] == [True, False]
    made.keep("a", 7, b"7")
    assert made.skip() == (3, [b"7"])
    assert made.take("a", 8, b"8") == [b"8"]


def test_messages_travel_together() -> None:
    """Messages leave in order, in few batches; an outcome waits for nobody when nothing has left before."""
    batches: list[tuple[int, bytes]] = []
    left = threading.Event()

    def carry(number: int, data: bytes) -> None:
        batches.append((number, data))
        left.set()

    sender = Sender(carry)
    for number in range(50):
        sender.send(("run", number), Go("run", number, 1))  # type: ignore[arg-type]
    assert left.wait(5.0)
    sender.close()
    letters = [letter for _, data in batches for letter in open_batch(data)]
    assert [address[1] for address, _ in letters] == list(range(50))
    assert [number for number, _ in batches] == list(range(1, len(batches) + 1))
    assert len(batches) <= 5


def test_large_messages_are_divided() -> None:
    """A batch of several messages keeps to a size; one that cannot be pickled harms no other."""
    batches: list[bytes] = []
    sender = Sender(lambda number, data: batches.append(data))
    for number in range(10):
        sender.send(("x" * 100_000, number), Go("run", number, 1))  # type: ignore[arg-type]
    sender.send(("run", 10), threading.Lock())  # type: ignore[arg-type]
    sender.send(("run", 11), Go("run", 11, 1), urgent=True)  # type: ignore[arg-type]
    patiently(lambda: sum(len(open_batch(data)) for data in batches) == 11, "the arrival of all")
    assert max(map(len, batches)) < 300_000
    sender.close()


def test_it_can_be_waited_for_what_was_said() -> None:
    """Who flushes a sender goes on when all that was said before has left."""
    may_leave, left = threading.Event(), list[Any]()

    def carry(_: int, data: bytes) -> None:
        may_leave.wait(5.0)
        left.extend(message for _, message in open_batch(data))

    sender = Sender(carry)
    sender.send(("run", 1), Printed("last words"))
    ending = threading.Thread(target=sender.flush, args=(5.0,))
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    may_leave.set()
    ending.join(5.0)
    assert left == [Printed("last words")]
    sender.close()


def test_a_message_that_comes_as_the_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent at the moment at which the idle thread would end leaves all the same."""
    monkeypatch.setattr("dflow.attempts.link.IDLE", 0.005)
    left = list[Any]()
    sender = Sender(lambda _, data: left.extend(message for _, message in open_batch(data)))
    for number in range(10):
        sender.send(("run", 1), Printed(f"{number}"), at_once=True)
        sender.flush(5.0)
        with sender._changed:
            threading.Event().wait(0.02)  # its time is over, and it cannot leave yet
            sender.send(("run", 1), Printed("as it ends"), at_once=True)
        sender.flush(2.0)
        assert left[-2:] == [Printed(f"{number}"), Printed("as it ends")]
    sender.close()


def test_prints_are_bounded_beside_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of line has an allowance of its own, in lines and in characters; the rest is counted."""
    monkeypatch.setattr("dflow.attempts.link.MAX_LINES", 3)
    monkeypatch.setattr("dflow.attempts.link.MAX_CHARS", 10)
    left = list[Any]()
    sender = Sender(lambda _, data: left.extend(message for _, message in open_batch(data)))
    link = WorkerLink(("run", 1), sender, Mailbox, print, print)
    entry = LogEntry(1.0, "f", "run", 1, 20, "dflow.run", "log")
    for text in ("12345", "123456", "1234", "1", "2"):
        link.send(Printed(text))
    for _ in range(5):
        link.send(entry)
    link.finish(AttemptStopped(at=1.0, task_run_id="run", dispatch=1, started_at=0.0, seconds=1.0))
    sender.flush(5.0)
    sender.close()
    said = [message.text for message in left if isinstance(message, Printed)]
    assert said[:3] == ["12345", "1234", "1"]
    assert said[3].startswith("… 2 more printed lines were dropped")
    logged = [message.message for message in left if isinstance(message, LogEntry)]
    assert logged[:3] == ["log"] * 3
    assert logged[3].startswith("2 more lines were dropped")


AT_THE_END = """
from dflow.attempts.link import Sender

class Last:
    def __del__(self, send=Sender(print).send):
        send(("run", 1), None)

last = Last()
last.itself = last
"""


def test_nothing_is_sent_at_the_end_of_the_interpreter() -> None:
    """What is collected then may have something to say: it does not hold up the end of the process."""
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END], timeout=20, check=False, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_mailbox_that_closes() -> None:
    """Those who wait for messages or for their start are let go."""
    box = Mailbox()
    link = WorkerLink(("run", 1), Sender(lambda number, data: None), lambda: box, print, print)
    assert link.receive(FLUSH) is None
    box.put(StartConfirmed(("run", 1)))
    link.confirm_start()
    box.put(Go("child", 1, 1))
    assert link.receive() == Go("child", 1, 1)
    closed = Mailbox()
    threading.Timer(FLUSH, closed.close).start()
    late = WorkerLink(("run", 2), Sender(lambda number, data: None), lambda: closed, print, print)
    assert late.receive() is None
    with pytest.raises(CancelledError):
        late.confirm_start()


# Values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [4, 5])
def test_carried_values(protocol: int) -> None:
    """A value travels with its outcome by every protocol, and is passed on without being unpickled."""
    numpy = pytest.importorskip("numpy")
    carried = Carried(success(entry(1)), numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)))
    buffers: list[Any] = []
    extra = {"buffer_callback": buffers.append} if protocol == 5 else {}
    for _ in range(2):
        buffers.clear()
        data = pickle.dumps(carried, protocol, **extra)  # type: ignore[arg-type]
        carried = pickle.loads(data, buffers=buffers)
    assert carried.value.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert len(buffers) == (protocol == 5)
    assert pickle.loads(carried.outcome) == success(entry(1))


def test_failures_travel_small() -> None:
    """What makes dependents err is small, whatever the exception was, and still says what happened."""
    big = ErrorInfo("ValueError", "no", traceback="x" * 30_000, blob=bytes(1_000_000))
    one = failure(entry(1))
    error = BodyFailed.of(("run1", 1), replace(one, error=big))
    again = pickle.loads(pickle.dumps(error))
    assert len(pickle.dumps(error)) < 10_000
    assert (again.key, again.outcome.error.text, again.outcome.error.blob) == (
        ("run1", 1),
        "no",
        None,
    )


# Threads -----------------------------------------------------------------------------------------------


def test_a_pool_keeps_its_bound() -> None:
    """No more jobs run at once than allowed, however many wait in between; idle threads end."""
    pool = Pool(2)
    lock = threading.Lock()
    running, most, done = 0, 0, threading.Semaphore(0)

    def job(slot: Slot) -> None:
        nonlocal running, most
        for _ in range(3):
            with lock:
                running += 1
                most = max(most, running)
            threading.Event().wait(0.001)
            with lock:
                running -= 1
            with slot():
                threading.Event().wait(0.001)
        done.release()

    for _ in range(40):
        pool.submit(Job(job))
    assert all(done.acquire(timeout=10) for _ in range(40))
    assert most == 2
    pool.close()
    patiently(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("dflow-thread")],
        "the end of its threads",
    )


# Scripts -----------------------------------------------------------------------------------------------


def module(**attributes: Any) -> Any:
    """Return a main module."""
    made = types.ModuleType("__main__")
    vars(made).update(attributes)
    return made


def test_what_workers_load(tmp_path: Path) -> None:
    """The host shows multiprocessing just what the driver's script would have shown it."""
    path = str(tmp_path / "script.py")
    spec = ModuleSpec("pkg.mod", None)
    for main, path_shown, name_shown in (
        (module(__file__=path), path, None),
        (module(__file__=path, __spec__=spec), None, "pkg.mod"),
        (module(), None, None),
        (module(__file__=str(tmp_path / "pytest")), None, None),
        (module(__file__=path, __spec__=ModuleSpec("pytest.__main__", None)), None, None),
    ):
        found = main_guard.script_of(main)
        shown = host.stand_in(None if found is None else {"path": found.path, "name": found.name})
        assert getattr(shown, "__file__", None) == path_shown
        assert getattr(shown.__spec__, "name", None) == name_shown


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("start()", False),
        ('if __name__ == "__main__":\n    start()', True),
        ('if "__main__" == __name__ and True:\n    for _ in "x":\n        start()', True),
        ('if __name__ == "__main__":\n    pass\nstart()', False),
        ("def run():\n    start()\nrun()", False),
        ("try:\n    if __name__ == '__main__':\n        start()\nfinally:\n    pass", True),
    ],
)
def test_main_guards(
    source: str, guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a line inside a block for the main module is one that workers do not run again."""
    path = tmp_path / "script.py"
    path.write_text(source)
    main = module(__file__=str(path), start=main_guard.check)
    monkeypatch.setitem(sys.modules, "__main__", main)
    code = compile(source, str(path), "exec")
    if guarded:
        exec(code, vars(main))
    else:
        with pytest.raises(MissingMainGuard, match=r"script\.py"):
            exec(code, vars(main))


def test_a_runner_that_was_never_opened_ends_without_dask() -> None:
    """A program that is stopped while it loads Dask does not load it once more to end."""
    program = (
        "import sys; from task_runners import DaskTaskRunner; DaskTaskRunner().shutdown(); "
        "print('distributed' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"
