"""The record of a run: what is appended can be read, and nothing else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings

from dflow.core import events as ev
from dflow.core import machine
from dflow.core.records import Held, Policy
from dflow.core.replay import replay
from dflow.errors import JournalUnavailable, RunNotFound, RunTakenOver
from dflow.ports import Batch, Journal
from dflow.states import FINAL_TYPES, TYPE_OF_NAME
from tests.journal.histories import histories
from tests.journal.world import (
    RUN,
    Driver,
    flow_created,
    life,
    log,
    mapped,
    task_created,
    without_value,
)


def test_events_come_back_in_order_with_numbers_without_gaps(journal: Journal) -> None:
    """Numbers go on from batch to batch, and `append` returns the last one."""
    record, driver = journal.write(RUN, 1), Driver()
    first, second = [flow_created()], life("a")
    assert record.append(driver.batch(first)) == 1
    assert record.append(driver.batch(second)) == 5
    assert record.append(Batch()) == 5
    kept = [without_value(event) for event in first + second]
    assert list(record.events()) == list(enumerate(kept, 1))
    assert list(journal.read(RUN).events(after=3)) == list(enumerate(kept, 1))[3:]
    assert list(record.events(after=5)) == []
    assert list(record.events(after=9)) == []


def test_long_histories_come_back_whole(journal: Journal) -> None:
    """Nothing is lost or doubled where a history is read in pages."""
    record, driver = journal.write(RUN, 1), Driver()
    for start in range(0, 1250, 50):
        numbers = range(start, start + 50)
        lines = [log(str(n), f"t{n % 3}") for n in numbers]
        record.append(driver.batch([event for n in numbers for event in life(f"t{n}")], lines))
    assert [number for number, _ in record.events()] == list(range(1, 5001))
    assert [run.id for run in record.task_runs()] == [f"t{n}" for n in range(1250)]
    assert [entry.message for entry in record.logs()] == [str(n) for n in range(1250)]
    paged = [list(record.task_runs(after, 500)) for after in (0, 500, 1000, 1250, 2000)]
    assert [len(page) for page in paged] == [500, 500, 250, 0, 0]
    assert [run for page in paged for run in page] == list(record.task_runs())
    assert [run.id for run in record.task_runs(after=1248)] == ["t1248", "t1249"]
    of_one = [int(entry.message) for entry in record.logs("t1", after=600)]
    assert of_one == [n for n in range(600, 1250) if n % 3 == 1]


def test_task_runs_come_in_the_order_of_their_creation(journal: Journal) -> None:
    """A later change does not move a task run to the end; several records of one run leave the last."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created(), mapped("z", "y", "x")]))
    record.append(driver.batch(life("b")))
    record.append(driver.batch([ev.CancelRequested(at=9.0, task_run_id="z")]))
    assert [run.id for run in record.task_runs()] == ["z", "y", "x", "b"]
    assert [run.state_name for run in record.task_runs()] == [
        "Cancelled",
        "Pending",
        "Pending",
        "Completed",
    ]
    assert record.task_run("b") == driver.table.task_runs["b"]
    assert record.task_run("nobody") is None
    assert list(record.flow_runs()) == [driver.table.flow_runs[RUN]]


examples = count()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=histories())
def test_the_table_is_what_the_events_replay_to(
    journal: Journal, batches: list[list[ev.Event]]
) -> None:
    """After every append the records equal the replay of the events, and the counts add up."""
    run_id = f"random-{next(examples)}"
    record, driver = journal.write(run_id, 1), Driver()
    for batch in batches:
        record.append(driver.batch(batch))
        told = [event for _, event in record.events() if event is not None]
        table = replay(told)
        assert list(record.task_runs()) == list(table.task_runs.values())
        assert list(record.flow_runs()) == list(table.flow_runs.values())
        states = Counter(run.state_name for run in table.task_runs.values())
        counted = Counter[str]()
        for group in record.counts().values():
            counted.update(group)
        assert counted == states
    assert told == [without_value(event) for batch in batches for event in batch]
    for end in range(len(told) + 1):
        for run in replay(told[:end]).task_runs.values():
            assert run.stage.final == (TYPE_OF_NAME[run.state_name] in FINAL_TYPES)
    record.close()


def test_counts_are_by_flow_run_and_task(journal: Journal) -> None:
    """Task runs are counted by flow run, task name and state."""
    record, driver = journal.write(RUN, 1), Driver()
    assert record.counts() == {}
    record.append(driver.batch([flow_created(), mapped("x", "y"), *life("a")]))
    record.append(driver.batch([ev.CancelRequested(at=9.0, task_run_id="x")]))
    assert record.counts() == {
        (RUN, "score"): {"Cancelled": 1, "Pending": 1},
        (RUN, "prepare"): {"Completed": 1},
    }


def test_values_are_kept_apart(journal: Journal) -> None:
    """A value is given by its run's id, as the bytes that came, and is no part of the events."""
    record, driver = journal.write(RUN, 1), Driver()
    returned = ev.FlowRunReturned(
        at=9.0, flow_run_id=RUN, state_name="Completed", held=Held.JOURNAL, value=b"\x00 flow"
    )
    begun = [flow_created(), ev.FlowRunStarted(at=1.0, flow_run_id=RUN, generation=1)]
    record.append(driver.batch([*begun, *life("a", b"not a pickle"), *life("b", None), returned]))
    reader = journal.read(RUN)
    assert reader.value("a") == b"not a pickle"
    assert reader.value(RUN) == b"\x00 flow"
    assert reader.value("b") is None
    assert reader.value("nobody") is None
    assert all(getattr(event, "value", None) is None for _, event in reader.events())


def test_a_value_is_that_of_the_last_outcome(journal: Journal) -> None:
    """A later outcome replaces the value of an earlier one, also when it carries none."""
    record, reader, driver = journal.write(RUN, 1), journal.read(RUN), Driver()
    record.append(driver.batch([flow_created(), task_created("a")]))
    for generation, value in enumerate([b"one", b"two", None], start=2):
        record.append(
            driver.batch([ev.CacheHit(at=1.0, task_run_id="a", held=Held.JOURNAL, value=value)])
        )
        again = ev.Reopened(at=1.0, task_run_id="a", generation=generation, policy=Policy())
        assert reader.value("a") == record.value("a") == value
        record.append(driver.batch([ev.Outdated(at=1.0, task_run_id="a"), again]))
        assert reader.value("a") == record.value("a") == value
    assert record.task_run("a") == driver.table.task_runs["a"]
    assert reader.value("a") is record.value("a") is None


def test_many_values_are_read_together(journal: Journal) -> None:
    """Those of many runs, whether their records are saved or behind; who has none is left out."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created()]))
    names = [f"run-{number}" for number in range(1100)]
    hits = {}
    for name in names:
        value = name.encode() if name[-1] != "7" else None
        hits[name] = ev.CacheHit(at=1.0, task_run_id=name, held=Held.JOURNAL, value=value)
    for some in (names[:900], names[900:]):
        record.append(driver.batch([task_created(name) for name in some]))
        record.append(driver.batch([hits[name] for name in some]))
        record.catch_up()
    expected = {name: hit.value for name, hit in hits.items() if hit.value is not None}
    assert record.values(["nobody", *names]) == expected
    assert record.values([]) == {}


class FromTheFuture(ev.TaskEvent, frozen=True, kw_only=True):
    """A kind of event that this version does not know."""

    level: int = 3


def test_unknown_kinds_are_kept_and_skipped(journal: Journal) -> None:
    """An event of an unknown kind keeps its number and comes back as None."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created()]))
    record.append(Batch([FromTheFuture(at=1.0, task_run_id="a")]))
    record.append(driver.batch(life("a")))
    told = list(record.events())
    assert [number for number, _ in told] == [1, 2, 3, 4, 5, 6]
    assert [number for number, event in told if event is None] == [2]


def test_log_lines_are_filtered(journal: Journal) -> None:
    """Lines are numbered in their order, and given after a number and for one task run."""
    record = journal.write(RUN, 1)
    lines = [log("one", "a"), log("two"), log("three \udce9", "a"), log("four", "b")]
    record.append(Batch(logs=lines[:2]))
    record.append(Batch(logs=lines[2:]))
    told = list(journal.read(RUN).logs())
    assert told[:2] == [replace(lines[0], number=1), replace(lines[1], number=2)]
    assert [entry.number for entry in told] == [1, 2, 3, 4]
    assert [entry.number for entry in record.logs("a")] == [1, 3]
    assert [entry.number for entry in record.logs("a", after=1)] == [3]
    assert [entry.number for entry in record.logs(after=3)] == [4]
    assert list(record.logs("nobody")) == []


def test_a_call_gives_what_was_there_when_it_was_made(journal: Journal) -> None:
    """What is appended after a call is no part of its answer, however late that is read."""
    record, driver = journal.write(RUN, 1), Driver()
    record.append(driver.batch([flow_created(), *life("a")], [log("one")]))
    reader = journal.read(RUN)
    events, task_runs, logs = reader.events(), reader.task_runs(), reader.logs()
    record.append(driver.batch(life("b"), [log("two")]))
    assert len(list(events)) == 5
    assert [run.id for run in task_runs] == ["a"]
    assert [entry.message for entry in logs] == ["one"]
    assert len(list(reader.events())) == 9


def test_a_late_write_is_refused_whatever_was_written_since(
    open_journal: Callable[[], Journal],
) -> None:
    """An earlier driver is told that it was replaced, and not that what others wrote is damaged."""
    early = open_journal().write(RUN, 1)
    early.append(Batch([flow_created()], logs=[log("one")]))
    late = open_journal().write(RUN, 2)
    late.append(
        Batch([task_created("a")], [machine.create(task_created("a"))[0]], logs=[log("two")])
    )
    for batch in (Batch([task_created("b")]), Batch(logs=[log("late")])):
        with pytest.raises(RunTakenOver):
            early.append(batch)
    assert len(list(late.events())) == len(list(late.logs())) == 2


def test_a_later_epoch_ends_the_earlier_ones(open_journal: Callable[[], Journal]) -> None:
    """A late write of an earlier epoch is refused, and nothing of it is stored."""
    early, driver = open_journal().write(RUN, 1), Driver()
    early.append(driver.batch([flow_created()]))
    late = open_journal().write(RUN, 2)
    with pytest.raises(RunTakenOver, match=RUN):
        early.append(Driver().batch(life("late"), [log("late")]))
    with pytest.raises(RunTakenOver):
        early.append(Batch())
    with pytest.raises(RunTakenOver):
        open_journal().write(RUN, 1)
    assert late.append(driver.batch(life("a"))) == 5
    reader = open_journal().read(RUN)
    assert [run.id for run in reader.task_runs()] == ["a"]
    assert reader.value("late") is None
    assert list(reader.logs()) == []


def test_a_record_is_taken_up_where_it_was_left(open_journal: Callable[[], Journal]) -> None:
    """A record that was closed is there again, and its numbers go on."""
    driver = Driver()
    record = open_journal().write(RUN, 1)
    record.append(driver.batch([flow_created(), *life("a")]))
    record.close()
    again = open_journal().write(RUN, 2)
    assert again.append(driver.batch(life("b"))) == 9
    assert [run.id for run in again.task_runs()] == ["a", "b"]
    assert again.value("a") == b"value"


def test_what_is_closed_cannot_be_used(journal: Journal) -> None:
    """After `close`, which may come twice, every call is refused in words."""
    record = journal.write(RUN, 1)
    reader = journal.read(RUN)
    for closed in (record, reader):
        closed.close()
        closed.close()
        with pytest.raises(JournalUnavailable, match="closed"):
            list(closed.events())
        with pytest.raises(JournalUnavailable, match="closed"):
            closed.task_run("a")
    with pytest.raises(JournalUnavailable, match="closed"):
        record.append(Batch())


def test_a_run_without_a_record_is_not_found(journal: Journal) -> None:
    """To read a run of which nothing was recorded is an error that names it."""
    for run_id in ("nobody", "../nobody", ""):
        with pytest.raises(RunNotFound, match=r"nobody|''"):
            journal.read(run_id)


def test_readers_see_one_state_while_it_is_written(open_journal: Callable[[], Journal]) -> None:
    """Each answer of a reader beside a writer is a state that was committed, and none goes back."""
    record, driver = open_journal().write(RUN, 1), Driver()
    record.append(driver.batch([flow_created()]))
    batches = [driver.batch(life(f"t{n}")) for n in range(60)]

    def write() -> None:
        for batch in batches:
            record.append(batch)

    writer = threading.Thread(target=write)
    reader = open_journal().read(RUN)
    writer.start()
    seen = [0]
    while seen[-1] < len(batches):
        seen.append(sum(sum(states.values()) for states in reader.counts().values()))
        told = [run.state_name for run in reader.task_runs()]
        assert told == ["Completed"] * len(told)
        assert (len(list(reader.events())) - 1) % 4 == 0
        if not writer.is_alive() and seen[-1] < len(batches):
            seen.append(sum(sum(states.values()) for states in reader.counts().values()))
            assert seen[-1] == len(batches)
    writer.join()
    assert seen == sorted(seen)
