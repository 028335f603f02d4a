"""A journal that fails, a driver that was replaced, and what is shown when."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dflow import as_completed, flow, runs, task, wait
from dflow.engine import system, tracker, watch
from dflow.errors import (
    InternalError,
    JournalDamaged,
    JournalError,
    JournalUnavailable,
    RunTakenOver,
)
from dflow.journal import MemoryJournal, SqliteJournal
from dflow.journal.memory import MemoryRunJournal
from dflow.ports import Batch, Journal
from dflow.testing import ScriptedRunner
from tests.engine.world import Running, scripted, start, world_with

Append = Callable[[Batch, Callable[[Batch], int]], int]


class Watched(MemoryJournal):
    """A journal in memory with something in front of each transaction."""

    def __init__(self, append: Append) -> None:
        super().__init__(is_alive=lambda holder: True)
        self._in_front = append

    def write(self, run_id: str, epoch: int) -> MemoryRunJournal:
        """Open a record."""
        opened = super().write(run_id, epoch)
        original, in_front = opened.append, self._in_front
        opened.append = lambda batch: in_front(batch, original)  # type: ignore[method-assign]  # for this record
        return opened


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try to write again soon."""
    monkeypatch.setattr(tracker, "RETRY_WRITE", 0.005)


@task
def work(x: Any = 0) -> Any:
    """Return what came."""
    return x


def test_nothing_is_shown_while_the_journal_cannot_be_written(
    runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """No outcome, no next dispatch; it says so; when it can be written again the run goes on."""
    full, refused = threading.Event(), threading.Semaphore(0)

    def append(batch: Batch, original: Callable[[Batch], int]) -> int:
        if full.is_set():
            refused.release()
            raise JournalUnavailable("the disk is full")
        return original(batch)

    with world_with(Watched(append)) as world:
        ends: list[str] = []

        def main() -> Any:
            future = work.submit(1)
            future.add_done_callback(lambda f: ends.append(f.state.name))
            return work.submit(future).result()

        flow = start(main, runner)
        first = runner.expect(1)[0]
        full.set()
        runner.succeed(first, 1)
        for _ in range(5):
            assert refused.acquire(timeout=10)
        assert world.session.tracker.shown[first.info.task_run_id].state_name == "Pending"
        assert (len(runner.works), ends, flow.done()) == (1, [], False)
        assert "its journal cannot be written: the disk is full" in caplog.text
        full.clear()
        runner.succeed(runner.expect(2)[1], 2)
        assert flow.result() == 2
        assert "The journal can be written again" in caplog.text
        assert len([r for r in caplog.records if "cannot be written" in r.message]) == 1


class Disk:
    """A disk that is full at times, which `guarded` writes find out."""

    def __init__(self) -> None:
        self.full = False

    def guarded(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """Return what writes where there is space."""

        def guard(*args: Any) -> Any:
            if self.full:
                raise JournalUnavailable("the disk is full")
            return write(*args)

        return guard

    def append(self, batch: Batch, original: Callable[[Batch], int]) -> int:
        """Stand in front of a transaction."""
        return int(self.guarded(original)(batch))


@pytest.mark.parametrize("where", ["in the flow", "in a task", "in a subflow"])
def test_ctrl_c_ends_a_run_that_is_held_up(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """It does not wait for the journal and says what is not recorded; with space the run goes on."""
    disk, ran = Disk(), list[str]()

    def interrupted(here: str) -> str:
        ran.append(here)
        if where == here and ran.count(here) == 1:
            disk.full = True
            raise KeyboardInterrupt
        return here

    in_task, in_subflow = task(interrupted), flow(interrupted)

    @flow
    def main() -> list[str]:
        said = [work("kept"), in_task("in a task"), in_subflow("in a subflow")]
        return [*said, interrupted("in the flow")]

    journal = Watched(disk.append)
    with world_with(journal) as world:
        journal.catalog.release = disk.guarded(journal.catalog.release)  # type: ignore[method-assign]  # for this one
        with pytest.raises(KeyboardInterrupt):
            main()
        assert "The run is held up" in caplog.text
        assert (
            "What has ended since its journal could not be written is not recorded" in caplog.text
        )
        assert "The list of runs is out of date: the disk is full" in caplog.text
        disk.full = False
        assert main.resume("latest") == ["kept", "in a task", "in a subflow", "in the flow"]
        assert ran.count(where) == 2
        assert set(world.states().values()) == {"Completed"}


def test_a_full_disk_behind_the_end_of_a_run_takes_nothing_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The flow gives its value; lists know of its end, and are told of it before the next run begins."""
    disk = Disk()
    journal = MemoryJournal(is_alive=lambda holder: not disk.full)
    catalog = journal.catalog
    catalog.end = disk.guarded(catalog.end)  # type: ignore[method-assign]  # for this one

    def full() -> int:
        disk.full = True
        return 5

    with world_with(journal):
        assert flow(full)() == 5
        assert "The list of runs is out of date" in caplog.text
        assert catalog.find("latest").state_name == "Pending"
        assert runs.find("latest").state_name == "Completed"
        disk.full = False
        first = catalog.find("latest").id
        flow(lambda: 1)()
        assert catalog.find(first).state_name == "Completed"
        assert catalog.find(first).holder is None


def test_a_run_that_was_taken_over_behind_its_end_gives_its_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its record was complete before."""
    journal = MemoryJournal(is_alive=lambda holder: False)

    def taken_over() -> int:
        entry = journal.catalog.find("latest")
        journal.catalog.claim(entry.id, system.holder(), 0.0)
        return 5

    with world_with(journal):
        assert flow(taken_over)() == 5
    assert "taken over by another driver" in caplog.text


def test_a_session_of_work_outside_of_flows_ends_on_a_full_disk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A program does not hang at its end; what it was shown is recorded."""
    disk = Disk()
    with world_with(Watched(disk.append)):
        assert work(1) == 1
        disk.full = True
    assert "The end of this session is not recorded: the disk is full" in caplog.text


def test_signs_of_life_are_given_again_when_they_can_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a full disk nor a damaged catalog ends the thread that gives them, or the run."""
    monkeypatch.setattr(watch, "PERIOD", 0.002)
    errors: list[JournalError] = [JournalUnavailable("it is full"), JournalDamaged("it is damaged")]
    given = threading.Event()
    journal = MemoryJournal(is_alive=lambda holder: True)

    def heartbeat(*_: Any) -> None:
        if errors:
            raise errors.pop(0)
        given.set()

    monkeypatch.setattr(journal.catalog, "heartbeat", heartbeat)
    with world_with(journal):
        assert flow(lambda: given.wait(10))()
    assert "No sign of life could be given: it is full" in caplog.text
    assert "No sign of life could be given: it is damaged" in caplog.text


def test_a_second_driver_ends_the_first(runner: ScriptedRunner) -> None:
    """The one that was taken over stops with that error, whatever it waits for, and writes nothing."""
    journal = MemoryJournal(is_alive=lambda holder: False)
    with world_with(journal) as world:
        flow = start(lambda: work.submit(1).result(), runner)
        first = runner.expect(1)[0]
        entry = journal.catalog.find("latest")
        epoch = journal.catalog.claim(entry.id, system.holder(), world.clock.now())
        journal.write(entry.id, epoch)
        before = len(list(journal.read(entry.id).events()))
        runner.succeed(first, 1)
        with pytest.raises(RunTakenOver, match="taken over by another driver"):
            flow.result()
        assert len(list(journal.read(entry.id).events())) == before
        assert journal.catalog.find("latest").epoch == epoch


def waiting() -> Any:
    """Wait for a task run."""
    return work.submit().result()


WAITS: dict[str, Callable[[], Any]] = {
    "result": waiting,
    "call": lambda: work(work.submit()),
    "wait": lambda: wait([work.submit(), work.submit()]),
    "as completed": lambda: list(as_completed([work.submit()])),
    "map": lambda: work.map([1, 2]).result(),
    "return state": lambda: work.submit(return_state=True),
    "end of the flow": lambda: (work.submit(), None)[1],
    "states": lambda: work.submit().wait(),
    "subflow": flow(waiting),
}


@pytest.mark.parametrize("kind", WAITS)
@pytest.mark.parametrize("error", [RuntimeError("a bug"), RunTakenOver("taken over")])
def test_a_tracker_that_fails_wakes_everybody(
    runner: ScriptedRunner, kind: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug becomes an `InternalError`, and no wait of any kind hangs, not even one that swallows it."""
    broken = threading.Event()

    def append(batch: Batch, original: Callable[[Batch], int]) -> int:
        if broken.is_set():
            raise error
        return original(batch)

    def stubborn() -> None:
        try:
            WAITS[kind]()
        except InternalError:
            WAITS[kind]()

    with world_with(Watched(append)):
        flow = start(stubborn, runner)
        first = runner.expect(1)[0]
        broken.set()
        runner.start(first)
        expected = InternalError if isinstance(error, RuntimeError) else RunTakenOver
        with caplog.at_level(logging.CRITICAL, "dflow.engine"), pytest.raises(expected):
            flow.result()


def test_an_outcome_is_durable_before_it_is_shown(runner: ScriptedRunner) -> None:
    """At the moment of writing nobody has seen it: not a waiter, not a runner with the next attempt."""
    seen: list[tuple[list[str], list[str], int, bool]] = []
    sessions: list[Any] = []

    def append(batch: Batch, original: Callable[[Batch], int]) -> int:
        shown = sessions[-1].tracker.shown if sessions else {}
        written = [f"{run.state_name} {run.dispatch}" for run in batch.task_runs]
        visible = [shown[r.id].state_name for r in batch.task_runs if r.id in shown]
        seen.append((written, visible, len(runner.works), running[0].done() if running else False))
        return original(batch)

    with world_with(Watched(append)) as world:
        sessions, running = world.sessions, list[Running]()
        main = scripted(lambda: work.with_options(retries=1).submit(1).result(), runner)
        running.append(Running(main))
        runner.start(runner.expect(1)[0])
        world.settle()
        runner.fail(runner.works[0], ValueError())
        runner.succeed(runner.expect(2)[1], 5)
        assert running[0].result() == 5
    steps = {written[0]: (visible, works) for written, visible, works, _ in seen if written}
    assert steps["Running 1"] in (
        (["Pending"], 1),
        ([], 1),
    )  # its creation may be of the same transaction
    assert steps["Pending 2"] == (["Running"], 1)
    assert steps["Completed 2"] == (["Pending"], 2)
    assert not any(done for _, _, _, done in seen)


def test_the_end_is_durable_before_the_flow_returns() -> None:
    """When a flow has given its value its record says Completed, in the journal and in the catalog."""
    written: list[str] = []

    def append(batch: Batch, original: Callable[[Batch], int]) -> int:
        number = original(batch)
        written.extend(run.state_name for run in batch.flow_runs)
        return number

    with world_with(Watched(append)) as world:
        assert flow(lambda: 1)() == 1
        assert written[-2:] == ["Running", "Completed"]
        assert written[:-2] in ([], ["Pending"])  # its creation may be of the same transaction
        assert world.journal.catalog.find("latest").state_name == "Completed"
        assert world.journal.catalog.find("latest").holder is None


@pytest.fixture
def sqlite(tmp_path: Any) -> Journal:
    """Return a journal in files."""
    return SqliteJournal(tmp_path / "home", is_alive=lambda holder: True)


def test_a_journal_in_files_holds_the_same(sqlite: Journal) -> None:
    """A flow with retries, failures, a map, a subflow and a resume leaves a sound record in SQLite too."""
    tries: list[int] = []

    @task
    def flaky(x: int) -> int:
        tries.append(x)
        if tries.count(x) == 1 and x % 2:
            raise ValueError("odd \udcff\0 🦉")
        return x

    @flow
    def inner(x: int) -> int:
        return sum(flaky.with_options(retries=1).map(range(x)).result())

    @flow
    def main() -> int:
        value = inner(5)
        assert flaky.submit(work.submit(77)).state.is_failed() or tries.count(77) == 2
        if tries.count(77) == 1:
            raise KeyboardInterrupt
        return value

    with world_with(sqlite) as world:
        with pytest.raises(KeyboardInterrupt):
            main()
        assert main.resume("latest") == 10
        assert {run.state_name for run in world.flow_runs()} == {"Completed"}
        assert len(tries) == 7 + 2
    sqlite.close()


def test_a_threaded_flow_holds_the_same(sqlite: Journal) -> None:
    """Bodies in threads, fan-out and fan-in, over files: the sum is right and the record sound."""

    @task
    def add(values: list[int]) -> int:
        return sum(values)

    @flow(task_runner="threads")
    def main() -> int:
        layer = work.map(range(50))
        more = [add.submit(layer[n : n + 5]) for n in range(0, 50, 5)]
        return add.submit(more).result()

    with world_with(sqlite):
        assert main() == sum(range(50))
    sqlite.close()
