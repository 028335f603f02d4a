"""A driver that may crash between any two steps: what it has shown is recorded, and what is recorded goes on.

Hypothesis drives the real tracker, without its thread, and the real journal. The crash takes all memory with
it, at any point of a round: before the commit, after it, while outcomes are shown, while orders are carried
out. The next driver finds the files as they were at that moment. What is out with the runner is lost with
the driver.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import invariants
from dflow.core.history import unroll
from dflow.core.records import Cause, FlowRun, Held, Need, Policy, Stage, TaskRun, Upstream
from dflow.engine.claims import Claim
from dflow.engine.ledger import Ledger
from dflow.engine.recovery import recover
from dflow.engine.tracker import Asked, Do, Post, Tracker
from dflow.errors import RunTakenOver
from dflow.journal import SqliteJournal
from dflow.messages import LogEntry
from dflow.ports import Batch, Missing, RunJournal
from dflow.testing import FakeClock
from tests.engine.playing import ERROR
from tests.faults.tools import in_memory
from tests.journal.world import RUN, World, entry, flow_created, holder
from tests.records import table_of

Record = TaskRun | FlowRun


REPLACED = "replaced"
POINTS = ("before the commit", "after the commit", "showing", "carrying out", REPLACED)
OFTEN = ("showing", "carrying out")
"""Points that are passed several times in a round."""


@dataclass(frozen=True)
class Life:
    """What becomes of a driver: it takes so many `steps`, and crashes at a point, or is replaced."""

    luck: Random
    steps: int
    point: str
    passes: int


class Crash(BaseException):
    """The driver is gone."""


@dataclass
class Fuse:
    """Where the driver crashes next, if it does: at a point, which is passed `passes` times before."""

    point: str = ""
    passes: int = 0

    def reached(self, point: str) -> None:
        """Crash, if this is where."""
        if point == self.point:
            self.passes -= 1
            if self.passes < 0:
                raise Crash


@dataclass
class Driver:
    """One driver: its tracker and its journal, what it has shown and what it has sent out."""

    record: RunJournal
    clock: FakeClock
    fuse: Fuse = field(default_factory=Fuse)
    shown: list[Record] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    out: list[do.Dispatch] = field(default_factory=list)
    committed: dict[str, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the record up."""
        self.ledger = Ledger(table_of(self.record))
        self.committed = self.memory()
        self.tracker = Tracker(
            self.ledger,
            self,  # type: ignore[arg-type]  # only `append` is used
            self.clock,
            act=self.act,
            echo=lambda logs, events: self.told.extend(entry.message for entry in logs),
            changed=self.changed,
            holds=lambda event: False,
            tell=lambda noted: None,
            luck=lambda: 0.5,
            forget=lambda task_run_ids: None,
        )

    def memory(self) -> dict[str, Record]:
        """Return all records as they are in memory."""
        return {**self.ledger.table.flow_runs, **self.ledger.table.task_runs}

    def append(self, batch: Batch) -> int:
        """Write a batch, and remember what is in memory at that moment."""
        self.fuse.reached("before the commit")
        number = self.record.append(batch)
        self.committed = self.memory()
        self.fuse.reached("after the commit")
        return number

    def changed(self, records: Iterable[Record]) -> None:
        """Show records."""
        for record in records:
            self.shown.append(record)
            self.fuse.reached("showing")

    def act(self, orders: Sequence[do.Command]) -> None:
        """Carry out orders, each of which but a first dispatch must follow from what is recorded.

        What a first dispatch takes must be recorded, too.
        """
        for order in orders:
            self.fuse.reached("carrying out")
            if isinstance(order, do.Dispatch):
                recorded = self.record.task_run(order.run_id)
                if recorded is None:
                    assert order.dispatch == 1
                    self._check_inputs(self.ledger.table.task_runs[order.run_id])
                else:
                    assert recorded.dispatch >= order.dispatch
                self.out.append(order)

    def _check_inputs(self, run: TaskRun) -> None:
        """Assert that the values which a task run takes are recorded, if they are there."""
        for upstream in run.upstreams:
            source = self.ledger.table.task_runs[upstream.task_run_id]
            if source.stage is Stage.COMPLETED:
                assert self.record.task_run(source.id) == source

    def round(self) -> None:
        """Let the tracker take what was posted."""
        self.tracker.post(Do(lambda ledger: None))
        self.tracker._round()


class Story:
    """A run that is driven by one driver after the other."""

    def __init__(self, folder: Path) -> None:
        """Begin the run."""
        self.folder = folder
        self.clock = FakeClock()
        self.world = World()
        self.homes = 0
        self.journal = SqliteJournal(self.folder / "0", is_alive=self.world)
        self.journal.catalog.create(entry())
        self.asked: list[ev.TaskCreated] = []
        self.said = 0
        self.reports: list[ev.Event] = []
        self.generation = 0
        self.dead: list[Driver] = []
        self.take_up()
        self.driver.tracker.post(flow_created())
        self.start()

    def take_up(self) -> None:
        """Be the next driver."""
        pid = self.homes + 1
        epoch = self.journal.catalog.claim(RUN, holder(pid), self.clock.now())
        self.driver = Driver(self.journal.write(RUN, epoch), self.clock)
        assert self.driver.record.missing() == Missing()
        self.world.dead.add(pid)

    def start(self) -> None:
        """Begin the body of the flow."""
        self.generation += 1
        self.driver.tracker.post(
            ev.FlowRunStarted(at=self.clock.now(), flow_run_id=RUN, generation=self.generation)
        )
        self.driver.round()

    def post(self, *posts: Post) -> None:
        """Tell the tracker something; it is taken in the next round."""
        self.driver.tracker.post(*posts)

    # What happens ---------------------------------------------------------------------------------

    def work(self, luck: Random, count: int) -> None:
        """Let many things happen; some of them wait for the next round at the end."""
        steps = [self.ask, self.report, self.report, self.report, self.go_on, self.go_on]
        steps += [self.ask_again, self.report_late, self.cancel, self.say, self.wait]
        for _ in range(count):
            luck.choice(steps)(luck)
        for _ in range(luck.randrange(4)):
            luck.choice([self.report, self.report_late, self.say])(luck)

    def ask(self, luck: Random) -> None:
        """Ask for a new task run."""
        sources = luck.sample(self.asked, min(len(self.asked), luck.randrange(3)))
        needs = [Need.DATA, Need.WAIT, Need.ALLOW]
        name = f"t{len(self.asked)}"
        event = ev.TaskCreated(
            at=self.clock.now(),
            task_run_id=name,
            flow_run_id=RUN,
            parent_id=RUN,
            task_name="task",
            name=name,
            upstreams=tuple(Upstream(s.task_run_id, luck.choice(needs)) for s in sources),
            policy=Policy(
                retries=luck.randrange(3),
                retry_delays=(luck.choice([0.0, 5.0]),),
                max_worker_losses=1,
            ),
        )
        self.asked.append(event)
        self._ask(event)

    def ask_again(self, luck: Random) -> None:
        """Ask for one that was asked for before, perhaps of another driver."""
        if self.asked:
            self._ask(luck.choice(self.asked))

    def _ask(self, event: ev.TaskCreated) -> None:
        # As a flow does: upstreams are asked for before those that need them.
        for upstream in event.upstreams:
            if upstream.task_run_id not in self.driver.ledger.claims:
                self._ask(next(e for e in self.asked if e.task_run_id == upstream.task_run_id))
        self.post(Asked(event, Claim(1, shares_memory=False), True, lambda: None))
        self.driver.round()

    def report(self, luck: Random) -> None:
        """Let something become of a dispatch that is out."""
        if not self.driver.out:
            return
        order = luck.choice(self.driver.out[-5:])
        key: dict[str, Any] = {"task_run_id": order.run_id, "dispatch": order.dispatch}
        key["at"] = self.clock.now()
        ended: dict[str, Any] = {"started_at": self.clock.now(), "seconds": 1.0}
        kept: dict[str, Any] = {"held": Held.JOURNAL, "value": luck.randbytes(5)}
        event = luck.choice(
            [
                ev.AttemptStarted(**key),
                ev.AttemptStarted(**key),
                ev.AttemptSucceeded(**key, **ended, **kept),
                ev.AttemptSucceeded(**key, **ended, held=Held.RUNNER),
                ev.AttemptRaised(**key, **ended, error=ERROR),
                ev.WorkerLost(**key),
                ev.DispatchVoided(**key, cause=Cause.WITHDRAWN),
            ]
        )
        self.reports.append(event)
        self.post(event)

    def report_late(self, luck: Random) -> None:
        """Let news come twice, or to another driver than the one that it was meant for."""
        if self.reports:
            self.post(luck.choice(self.reports))

    def cancel(self, luck: Random) -> None:
        """Cancel a task run, now and then."""
        if self.asked and luck.random() < 0.3:
            run_id = luck.choice(self.asked).task_run_id
            self.post(ev.CancelRequested(at=self.clock.now(), task_run_id=run_id))

    def say(self, _: Random) -> None:
        """Log a line."""
        self.said += 1
        self.post(LogEntry(self.clock.now(), RUN, None, 1, 20, "dflow", f"line {self.said}"))

    def wait(self, luck: Random) -> None:
        """Let time go by."""
        self.clock.advance(luck.choice([1.0, 6.0, 11.0]))

    def go_on(self, _: Random) -> None:
        """Let the tracker take what was posted."""
        self.driver.round()

    # Crashes ----------------------------------------------------------------------------------------

    def crash(self, point: str, passes: int) -> None:
        """Crash in the next round, or after it, and let another driver take the run up."""
        passes = passes if point in OFTEN else 0
        self.driver.fuse = Fuse(point, passes)
        with suppress(Crash):
            self.driver.round()
        self._bury()
        self.check()
        self.take_up()
        now = self.clock.now()
        self.post(Do(lambda ledger: recover(ledger, now)))
        self.driver.round()
        self.start()

    def _bury(self) -> None:
        """Leave the files as they are at this moment to the next driver, in another place."""
        self.homes += 1
        home = self.folder / str(self.homes)
        shutil.copytree(self.folder / str(self.homes - 1), home)
        self.dead.append(self.driver)
        self.before, self.journal = self.journal, SqliteJournal(home, is_alive=self.world)
        self.before.close()

    def come_late(self) -> None:
        """Let a driver that was replaced, and does not know it, write: it is refused, and shows nothing."""
        epoch = self.driver_epoch() + 1
        pid = 1000 + epoch
        self.world.dead.add(1 + self.homes)
        assert self.journal.catalog.claim(RUN, holder(pid), self.clock.now()) == epoch
        late, shown = self.driver, len(self.driver.shown)
        self.driver = Driver(self.journal.write(RUN, epoch), self.clock)
        self.world.dead.add(pid)
        late.tracker.post(LogEntry(self.clock.now(), RUN, None, 1, 20, "dflow", "late"))
        late.tracker.post(ev.CancelRequested(at=self.clock.now(), task_run_id="t0"))
        with pytest.raises(RunTakenOver):
            late.round()
        assert len(late.shown) == shown
        self.dead.append(late)
        now = self.clock.now()
        self.post(Do(lambda ledger: recover(ledger, now)))
        self.driver.round()
        self.start()

    def driver_epoch(self) -> int:
        """Return the present epoch."""
        return self.journal.catalog.find(RUN).epoch

    # What must hold -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Hold the record against what the last driver had in memory, and what all have shown."""
        reader = self.journal.read(RUN)
        numbered = list(reader.events())
        events = [event for _, event in numbered if event is not None]
        table = table_of(reader)
        assert reader.missing() == Missing()
        assert invariants.numbers_without_gaps(numbered) == []
        assert invariants.check(events, table) == []
        recorded: dict[str, Record] = {**table.flow_runs, **table.task_runs}
        assert recorded == self.dead[-1].committed
        assert list(table.task_runs) == [i for i in self.dead[-1].committed if i in table.task_runs]
        changes, _ = unroll(events)
        passed: dict[str, list[Record]] = {}
        for change in changes:
            passed.setdefault(change.after.id, []).append(change.after)
        for driver in self.dead:
            for record in [*driver.shown, *driver.tracker.shown.values()]:
                assert record in passed[record.id], f"{record} was shown, and is not recorded"
        lines = [entry.message for entry in reader.logs()]
        assert len(set(lines)) == len(lines)
        assert {line for driver in self.dead for line in driver.told} <= set(lines)
        assert "late" not in lines
        for run in table.task_runs.values():
            if run.held is Held.JOURNAL:
                assert reader.value(run.id) is not None
        reader.close()


lives = st.builds(
    Life,
    st.builds(Random, st.integers(0, 2**32)),
    st.integers(0, 60),
    st.sampled_from(POINTS),
    st.integers(0, 3),
)


@given(st.lists(lives, min_size=1, max_size=5))
@settings(max_examples=40)
def test_what_was_shown_is_recorded_and_goes_on(drivers: list[Life]) -> None:
    """After each crash the record is what memory was at its commit, and holds all that was shown."""
    with TemporaryDirectory(dir=in_memory()) as folder:
        story = Story(Path(folder))
        for life in drivers:
            story.work(life.luck, life.steps)
            if life.point == REPLACED:
                story.come_late()
            else:
                story.crash(life.point, life.passes)
        story.journal.close()
