"""A ledger that is played with: task runs are asked for, a made-up runner reports, futures are dropped."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import Cause, ErrorInfo, Held, Need, Policy, Stage, TaskRun, Upstream
from dflow.engine.claims import Claim, LookUp, Release
from dflow.engine.ledger import Ledger

FLOW = "f"
ERROR = ErrorInfo("ValueError", "no")


@dataclass
class Play:
    """One ledger, what is out with its runner, and what the runner holds. `luck` decides everything.

    If it `lags`, what is asked for is at times taken with what comes next. If it `retires`, what nobody needs
    leaves its memory. Upstreams are only `held` ones, or any.
    """

    luck: random.Random
    follows: bool
    shares_memory: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    events: list[ev.Event] = field(default_factory=list)
    out: dict[tuple[str, int], bool] = field(default_factory=dict)
    timers: list[do.SetTimer] = field(default_factory=list)
    values: set[str] = field(default_factory=set)
    handles: Counter[str] = field(default_factory=Counter)
    asked: list[ev.TaskCreated] = field(default_factory=list)
    past: list[ev.Event] = field(default_factory=list)
    questions: list[LookUp] = field(default_factory=list)
    caches: bool = False
    lags: bool = False
    held: bool = False
    retires: bool = False
    left: dict[str, TaskRun] = field(default_factory=dict)
    now: float = 1000.0

    def __post_init__(self) -> None:
        """Begin a flow run, unless one is taken up."""
        if not self.ledger.table.flow_runs:
            self.apply(
                ev.FlowRunCreated(
                    at=self.now,
                    flow_run_id=FLOW,
                    root_id=FLOW,
                    parent_id=None,
                    flow_name="f",
                    name="f",
                )
            )
            self.apply(ev.FlowRunStarted(at=self.now, flow_run_id=FLOW, generation=1))

    @property
    def runs(self) -> dict[str, TaskRun]:
        """The task runs."""
        return self.ledger.table.task_runs

    def make(self, number: int) -> ev.TaskCreated:
        """Return a new task run with upstreams among those that were asked for before."""
        known = [t for t in self.asked if self.handles[t.task_run_id] > 0 or not self.held]
        candidates = self.luck.sample(known, min(len(known), self.luck.randint(0, 3)))
        needs = (Need.DATA, Need.DATA, Need.WAIT, Need.ALLOW)
        return ev.TaskCreated(
            at=self.now,
            task_run_id=f"t{number}",
            flow_run_id=FLOW,
            parent_id=FLOW,
            task_name=f"task{number % 3}",
            name=f"t{number}",
            upstreams=tuple(Upstream(c.task_run_id, self.luck.choice(needs)) for c in candidates),
            policy=Policy(
                retries=self.luck.choice((0, 0, 1, 2)),
                retry_delays=(self.luck.choice((0.0, 5.0)),),
                max_worker_losses=self.luck.choice((0, 1, 3)),
            ),
        )

    def ask(self, event: ev.TaskCreated, *, handles: bool = True) -> None:
        """Ask for a task run, as a submit does."""
        cached = self.caches and self.luck.random() < 0.5
        claim = Claim(
            1,
            follows=self.follows,
            shares_memory=self.shares_memory,
            cached=frozenset({event.task_run_id} if cached else ()),
        )
        self.handles[event.task_run_id] += handles
        if event not in self.asked:
            self.asked.append(event)
        self.ledger.ask(replace(event, at=self.now), claim, handles)
        if not (self.lags and self.luck.random() < 0.7):
            self.act()

    def ask_map(self, items: list[ev.TaskCreated], limit: int | None) -> None:
        """Ask for task runs together, at most `limit` of them out at once."""
        ids = frozenset(item.task_run_id for item in items)
        claim = Claim(
            1,
            follows=self.follows,
            shares_memory=self.shares_memory,
            max_in_flight=limit,
            cached=ids if self.caches else frozenset(),
        )
        self.asked += [item for item in items if item not in self.asked]
        self.handles.update(item.task_run_id for item in items)
        event = ev.MapCreated(
            at=self.now,
            flow_run_id=FLOW,
            parent_id=FLOW,
            task_name="m",
            items=tuple(ev.MapItem(i.task_run_id, i.name, i.upstreams) for i in items),
            policy=items[0].policy,
        )
        self.ledger.ask(event, claim, handles=True)
        self.act()

    def drop(self, task_run_id: str) -> None:
        """Drop one future."""
        self.handles[task_run_id] -= 1
        self.ledger.drop_handles([task_run_id])
        self.act()

    def check_order(self, order: do.Dispatch) -> None:
        """Assert that what a dispatch follows at the runner is out before it, if that goes but once."""
        for upstream in self.runs[order.run_id].upstreams:
            source = self.runs[upstream.task_run_id]
            if upstream.need is Need.DATA and source.stage is Stage.DISPATCHED:
                again = source.dispatch > 1
                assert again or (source.id, 1) in self.out, "it overtakes what it follows"

    def apply(self, event: ev.Event) -> None:
        """Let something happen."""
        self.past.append(event)
        self.ledger.apply(event)
        self.act()

    def act(self) -> None:
        """Take what has changed, as the tracker does, and do what is to be done."""
        firsts = self.ledger.take_firsts()
        changes = self.ledger.take()
        self.events += changes.events
        for event in changes.events:
            if isinstance(event, ev.AttemptSucceeded):
                self.values.add(event.task_run_id)
        for order in (*firsts, *changes.orders):
            match order:
                case do.Dispatch():
                    assert (order.run_id, order.dispatch) not in self.out, "dispatched twice"
                    self.check_order(order)
                    self.out[order.run_id, order.dispatch] = False
                case do.SetTimer():
                    self.timers.append(order)
                case do.Withdraw():
                    self.withdraw(order)
                case Release():
                    self.release(order.run_id)
                case LookUp():
                    self.questions.append(order)
        if self.retires:
            self.retire()

    def retire(self) -> None:
        """Let go of what may go, which must be needed by nobody."""
        while chosen := self.ledger.retirement.choose():
            for task_run_id in chosen:
                assert not self.needed(task_run_id), f"{task_run_id} is still needed"
                self.left[task_run_id] = self.runs[task_run_id]
            self.ledger.retire(chosen)

    def withdraw(self, order: do.Withdraw) -> None:
        """Give a dispatch back that has not started."""
        key = (order.run_id, order.dispatch)
        if self.out.get(key) is False:
            self.report(key, ev.DispatchVoided, cause=Cause.WITHDRAWN)

    def needed(self, task_run_id: str) -> bool:
        """Tell whether a future, or a task run that has not ended, needs a value."""
        consumers = (
            run.id
            for run in self.runs.values()
            if not run.stage.final
            and run.id in self.ledger.claims
            and any(up.task_run_id == task_run_id for up in run.upstreams)
        )
        return self.handles[task_run_id] > 0 or next(consumers, None) is not None

    def release(self, task_run_id: str) -> None:
        """Let go of a value, which must be there and needed by nobody, or be kept by the journal as well."""
        in_journal = self.runs[task_run_id].held is Held.JOURNAL and not self.shares_memory
        assert in_journal or not self.needed(task_run_id), f"{task_run_id} is still needed"
        self.values.discard(task_run_id)

    # The runner -----------------------------------------------------------------------------------------

    def report(self, key: tuple[str, int], kind: Any, **more: Any) -> None:
        """Report something of a dispatch; an end takes it off the runner."""
        if kind is not ev.AttemptStarted:
            self.out.pop(key, None)
        self.apply(kind(at=self.now, task_run_id=key[0], dispatch=key[1], **more))

    def has_inputs(self, key: tuple[str, int]) -> bool | None:
        """Tell whether a dispatch has what it needs; None if it never will."""
        for upstream in self.runs[key[0]].upstreams:
            source = self.runs[upstream.task_run_id]
            if upstream.need is Need.ALLOW:
                assert source.stage.final, f"{key} did not wait for the end of {source.id}"
            elif upstream.need is Need.WAIT:
                assert source.stage is Stage.COMPLETED, f"{key} did not wait for {source.id}"
            elif source.stage is not Stage.COMPLETED:
                return False if source.stage in (Stage.DISPATCHED, Stage.RUNNING) else None
            elif not self.ledger.obtainable(source):
                return None
        return True

    def go_on(self, key: tuple[str, int]) -> None:
        """Let something become of a dispatch."""
        ready = True if self.out[key] else self.has_inputs(key)
        if ready is False:
            return
        if ready is None:
            self.report(key, ev.DispatchVoided, cause=Cause.UPSTREAM)
            return
        times = {"started_at": self.now, "seconds": 1.0, "worker": "w"}
        match self.luck.choice(
            ("start", "succeed", "keep", "raise", "lose", "free", "void", "double")
        ):
            case "start":
                self.out[key] = True
                self.report(key, ev.AttemptStarted)
            case "succeed":
                self.report(key, ev.AttemptSucceeded, **times)
            case "keep":
                self.report(key, ev.AttemptSucceeded, **times, held=Held.JOURNAL, value=b"v")
            case "raise":
                self.report(key, ev.AttemptRaised, **times, error=ERROR)
            case "lose":
                self.report(key, ev.WorkerLost)
            case "free":
                self.report(key, ev.WorkerLost, cause=Cause.SCALED_DOWN)
            case "void" if not self.out[key]:
                self.report(key, ev.DispatchVoided, cause=Cause.WITHDRAWN)
            case "double":
                self.apply(self.luck.choice(self.past))

    def step(self) -> bool:
        """Let one thing happen, if anything is under way."""
        self.now += 1.0
        choices: list[Any] = [(self.go_on, key) for key in self.out]
        choices += [(self.fire, timer) for timer in self.timers]
        choices += [(self.answer, question) for question in self.questions]
        if not choices:
            self.act()
            return bool(self.out)
        act, subject = self.luck.choice(choices)
        act(subject)
        return True

    def answer(self, question: LookUp) -> None:
        """Find a value in the cache, or not."""
        self.questions.remove(question)
        if self.luck.random() < 0.5:
            self.ledger.look_again(question, self.now)
        elif self.ledger.lookups.answered(question):
            self.apply(ev.CacheHit(at=self.now, task_run_id=question.run_id, value=b"v"))
        self.act()

    def fire(self, timer: do.SetTimer) -> None:
        """Let a retry become due."""
        self.timers.remove(timer)
        self.apply(
            ev.RetryDue(
                at=self.now,
                task_run_id=timer.run_id,
                generation=timer.generation,
                attempt=timer.attempt,
            )
        )

    def finish(self) -> None:
        """Go on until nothing is under way; everything that was asked for must have ended."""
        for _ in range(20_000):
            if not self.step():
                break
        open_ones = [run for run in self.runs.values() if not run.stage.final]
        assert not [run for run in open_ones if run.id in self.ledger.claims], open_ones[:2]
