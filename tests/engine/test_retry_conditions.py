"""Retry conditions: what they are asked, what their verdict does, and what happens meanwhile."""

from __future__ import annotations

import asyncio
import logging
import re
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from dflow import State, flow, get_run_logger, task
from dflow.attempts.capture import capture
from dflow.core import events as ev
from dflow.core.records import Ending, TaskRun
from dflow.errors import CancelledError, SerializationError, TimedOutError
from dflow.messages import Work
from dflow.testing import START, ScriptedRunner, SeededIds
from tests.engine.world import Running, World, scripted, start

pytestmark = pytest.mark.usefixtures("world")


@task
def work(x: Any = 0) -> Any:
    """Return what came, or raise it."""
    if isinstance(x, BaseException):
        raise x
    return x


@dataclass
class Gate:
    """A condition that says yes or no once the test lets it."""

    verdict: bool = True
    asked: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __call__(self, *_: Any) -> bool:
        """Wait, and answer."""
        self.thread = threading.current_thread()
        self.asked.set()
        assert self.go_on.wait(10)
        return self.verdict

    def answer(self) -> None:
        """Let it answer, and wait until it has been heard."""
        self.go_on.set()
        self.thread.join(10)


@pytest.fixture
def gate() -> Gate:
    """Return a condition that the test lets go."""
    return Gate()


def one(condition: Any, **options: Any) -> Callable[[], Any]:
    """Return the body of a flow that waits for one task run with a condition."""
    made = work.with_options(retry_condition_fn=condition, **({"retries": 3} | options))
    return lambda: made.submit().result()


def inline(body: Callable[[], Any]) -> Any:
    """Run a flow whose tasks run here."""
    return flow(body)()


def attempts(world: World, name: str = "work-0") -> list[Ending]:
    """Return how the attempts of a task run have ended."""
    return [attempt.ending for attempt in world.task_runs()[name].attempts]


def test_a_condition_decides_before_each_retry(world: World, runner: ScriptedRunner) -> None:
    """It is told of the task, the task run with this attempt, and the state with the exception."""
    asked: list[tuple[Any, ...]] = []

    def condition(owner: Any, task_run: TaskRun, state: State) -> bool:
        error = state.result(raise_on_failure=False)
        asked.append((owner.name, task_run.run_count, state.name, state.type, error.args))
        return "again" in error.args

    running = start(one(condition), runner)
    runner.fail(runner.expect(1)[0], ValueError("again"))
    runner.fail(runner.expect(2)[1], ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        running.result()
    assert asked == [
        ("work", 1, "Failed", "FAILED", ("again",)),
        ("work", 2, "Failed", "FAILED", ("stop",)),
    ]
    assert attempts(world) == [Ending.RAISED, Ending.RAISED]
    assert world.states() == {"work-0": "Failed"}
    assert [event.retriable for event in world.events(ev.AttemptRaised)] == [True, False]


@pytest.mark.parametrize("way", [lambda t, x: t(x), lambda t, x: t.submit(x).result()])
def test_a_direct_call_asks_too(world: World, way: Callable[[Any, Any], Any]) -> None:
    """The exception in the state is the very one that was raised in this process."""
    error, seen = ValueError("no"), list[Any]()

    def condition(_: Any, __: Any, state: State) -> bool:
        with pytest.raises(ValueError, match="no") as caught:
            state.result()
        seen.append(caught.value)
        return len(seen) < 2

    made = work.with_options(retries=5, retry_condition_fn=condition)
    with pytest.raises(ValueError, match="no"):
        inline(lambda: way(made, error))
    assert seen == [error, error]
    assert seen[0] is error
    assert attempts(world) == [Ending.RAISED, Ending.RAISED]


class Truth:
    """An answer that cannot be read."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


async def later(answer: Any, *_: Any) -> Any:
    """Answer from a coroutine."""
    await asyncio.sleep(0)
    return answer


def raises(*_: Any) -> bool:
    """Fail."""
    raise ZeroDivisionError("in the condition")


def leaves(*_: Any) -> bool:
    """Fail like a process that ends."""
    raise SystemExit("in the condition")


class Falsy:
    """An object that can be called, and is falsy."""

    def __call__(self, *_: Any) -> bool:
        """Say yes."""
        return True

    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("condition", "retried"),
    [
        (lambda *_: True, True),
        (lambda *_: 1, True),
        (lambda *_: None, False),
        (partial(later, True), True),
        (partial(later, False), False),
        (Falsy(), True),
    ],
)
def test_a_condition_may_be_anything_that_can_be_called(
    world: World, condition: Any, retried: bool
) -> None:
    """Functions, async ones, partials, objects; what they return is read as true or false."""
    made = work.with_options(retries=1, retry_condition_fn=condition)
    with pytest.raises(ValueError, match="no"):
        inline(lambda: made(ValueError("no")))
    assert len(attempts(world)) == 1 + retried


@pytest.mark.parametrize("condition", [raises, leaves, partial(later, Truth()), lambda *_: Truth()])
def test_an_error_in_a_condition_means_no(world: World, condition: Any) -> None:
    """It is logged with the run; what the task raised is what the caller gets."""
    made = work.with_options(retries=1, retry_condition_fn=condition)
    with pytest.raises(ValueError, match="of the task"):
        inline(lambda: made(ValueError("of the task")))
    assert attempts(world) == [Ending.RAISED]
    (line,) = world.lines()
    assert "(retry_condition_fn) raised" in line
    assert "in the condition" in line or "ambiguous" in line


def test_conditions_may_log_for_the_run(world: World) -> None:
    """Their lines are those of the task run."""

    def condition(*_: Any) -> bool:
        get_run_logger().info("asked in %s", threading.current_thread().name)
        return False

    made = work.with_options(retries=1, retry_condition_fn=condition)
    with pytest.raises(ValueError, match="no"):
        inline(lambda: made(ValueError("no")))
    (entry,) = world.reader().logs()
    assert (entry.message, entry.attempt) == ("asked in dflow-condition", 1)
    assert entry.task_run_id == world.task_runs()["work-0"].id


def test_nobody_is_asked_when_no_retry_could_follow(world: World, runner: ScriptedRunner) -> None:
    """Without retries left, for an error that is never tried again, for news that is stale."""
    asked: list[int] = []

    def condition(_: Any, task_run: TaskRun, __: Any) -> bool:
        asked.append(task_run.run_count)
        return True

    running = start(one(condition, retries=1), runner)
    first = runner.expect(1)[0]
    runner.fail(first, ValueError("first"))
    last = runner.expect(2)[1]
    runner.fail(first, ValueError("stale"))
    runner.fail(last, ValueError("last"))
    with pytest.raises(ValueError, match="last"):
        running.result()
    running = start(one(condition), runner)
    third = runner.expect(3)[2]
    error = capture(SerializationError("cannot travel"))
    runner.report(failed(third, retriable=False, error=error))
    with pytest.raises(SerializationError):
        running.result()
    assert asked == [1]
    assert attempts(world) == [Ending.RAISED]


def failed(work: Work, kind: type[Any] = ev.AttemptRaised, **more: Any) -> ev.Event:
    """Return the report of a failure."""
    run_id, dispatch = work.info.key
    given = {"error": capture(ValueError("failed")), **more}
    event: ev.Event = kind(
        at=START, task_run_id=run_id, dispatch=dispatch, started_at=START, seconds=1.0, **given
    )
    return event


def test_a_slow_condition_holds_up_its_task_run_only(
    world: World, runner: ScriptedRunner, gate: Gate
) -> None:
    """Others are asked, decided and dispatched meanwhile."""
    slow = work.with_options(name="slow", retries=1, retry_condition_fn=gate)
    quick = work.with_options(name="quick", retries=1, retry_condition_fn=lambda *_: True)
    running = start(lambda: [f.result() for f in (slow.submit(), quick.submit())], runner)
    first, second = runner.expect(2)
    runner.fail(first, ValueError())
    assert gate.asked.wait(10)
    runner.fail(second, ValueError())
    again = runner.expect(3)[2]
    assert again.info.task_run_name == "quick-0"
    runner.succeed(again, "quick")
    world.settle()
    assert world.states()["slow-0"] in ("Running", "Pending")
    gate.go_on.set()
    runner.succeed(runner.expect(4)[3], "slow")
    assert running.result() == ["slow", "quick"]


def test_more_conditions_than_threads_are_all_asked(
    world: World, runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map that fails as a whole is decided item by item, a few at a time."""
    monkeypatch.setattr("dflow.engine.conditions.MOST", 2)
    together, most, lock = list[int](), list[int](), threading.Lock()

    def condition(_: Any, task_run: TaskRun, __: Any) -> bool:
        with lock:
            together.append(1)
            most.append(len(together))
        with lock:
            together.pop()
        return task_run.name.endswith("0")

    made = work.with_options(retries=1, retry_condition_fn=condition)
    running = start(lambda: made.map(range(30)).wait(), runner)
    for each in runner.expect(30):
        runner.fail(each, ValueError())
    for each in runner.expect(33)[30:]:
        runner.succeed(each, 1)
    running.result()
    assert max(most) <= 2
    assert list(world.states().values()).count("Completed") == 3


def test_the_delay_counts_from_the_failure(
    world: World, runner: ScriptedRunner, gate: Gate
) -> None:
    """A verdict that takes its time does not make the wait longer."""
    running = start(one(gate, retry_delay_seconds=100), runner)
    runner.fail(runner.expect(1)[0], ValueError())
    assert gate.asked.wait(10)
    world.clock.advance(90)
    gate.answer()
    world.settle()
    assert world.states() == {"work-0": "AwaitingRetry"}
    world.clock.advance(9)
    world.settle()
    assert len(runner.works) == 1
    world.clock.advance(1)
    runner.succeed(runner.expect(2)[1], 1)
    assert running.result() == 1


def with_timeout(seconds: float, **options: Any) -> Any:
    """Return a task whose attempts have a deadline."""
    made = work.with_options(**options)
    made._policy = replace(made._policy, timeout=seconds)
    return made


@pytest.mark.parametrize("verdict", [True, False])
def test_the_drivers_deadline_asks_too(world: World, runner: ScriptedRunner, verdict: bool) -> None:
    """An attempt that never answers has timed out, and the condition says what follows."""
    states: list[State] = []

    def condition(_: Any, __: Any, state: State) -> bool:
        states.append(state)
        assert isinstance(state.result(raise_on_failure=False), TimedOutError)
        return verdict

    made = with_timeout(5, retries=1, retry_condition_fn=condition)
    running = start(lambda: made.submit().result(), runner)
    silent = runner.expect(1)[0]
    runner.start(silent)
    world.settle()
    world.clock.advance(10)
    if verdict:
        runner.succeed(runner.expect(2)[1], 1)
        assert running.result() == 1
    else:
        with pytest.raises(TimedOutError):
            running.result()
    assert [state.name for state in states] == ["TimedOut"]
    assert attempts(world)[0] is Ending.TIMED_OUT


def test_a_deadline_that_passes_while_a_failure_is_judged_is_late(
    world: World, runner: ScriptedRunner, gate: Gate
) -> None:
    """The attempt had raised before: that is its only outcome."""
    made = with_timeout(5, retries=1, retry_condition_fn=gate)
    running = start(lambda: made.submit().result(), runner)
    first = runner.expect(1)[0]
    runner.start(first)
    runner.fail(first, ValueError("in time"))
    assert gate.asked.wait(10)
    world.clock.advance(10)
    world.settle()
    gate.go_on.set()
    runner.succeed(runner.expect(2)[1], 1)
    assert running.result() == 1
    assert attempts(world) == [Ending.RAISED, Ending.SUCCEEDED]


def test_what_is_reported_while_a_failure_is_judged_is_late(
    world: World, runner: ScriptedRunner, gate: Gate
) -> None:
    """The first outcome counts, whatever else is said of that dispatch before it is recorded."""
    running = start(one(gate, retries=1), runner)
    first = runner.expect(1)[0]
    runner.start(first)
    runner.fail(first, ValueError("first"))
    assert gate.asked.wait(10)
    runner.succeed(first, "late")
    runner.lose(first)
    runner.void(first)
    runner.fail(first, ValueError("doubled"))
    world.settle()
    assert world.states() == {"work-0": "Running"}
    gate.go_on.set()
    runner.succeed(runner.expect(2)[1], "second")
    assert running.result() == "second"
    run = world.task_runs()["work-0"]
    assert (run.raised, run.losses) == (1, 0)


def test_a_cancel_while_a_failure_is_judged_wins(
    world: World, runner: ScriptedRunner, gate: Gate
) -> None:
    """No retry follows, whatever the condition says."""
    running = start(one(gate), runner)
    first = runner.expect(1)[0]
    runner.start(first)
    runner.fail(first, ValueError())
    assert gate.asked.wait(10)
    run_id = first.info.task_run_id
    world.session.tracker.commit(ev.CancelRequested(at=START, task_run_id=run_id))
    assert world.states() == {"work-0": "Cancelling"}
    gate.go_on.set()
    with pytest.raises(CancelledError):
        running.result()
    assert world.states() == {"work-0": "Cancelled"}
    assert len(runner.works) == 1


def test_dependents_wait_for_the_verdict(world: World, gate: Gate) -> None:
    """A runner that follows gives them back when their upstream fails: they go out after its retry."""
    runner = ScriptedRunner(follows=True)
    source = work.with_options(name="source", retries=1, retry_condition_fn=gate)
    running = start(lambda: work.submit(source.submit()).result(), runner)
    first, dependent = runner.expect(2)
    runner.start(first)
    runner.fail(first, ValueError())
    runner.void(dependent)
    assert gate.asked.wait(10)
    world.settle()
    assert len(runner.works) == 2
    gate.go_on.set()
    again = runner.expect(4)[2:]
    assert [w.info.task_run_name for w in again] == ["source-0", "work-0"]
    for each in again:
        runner.succeed(each, 1)
    assert running.result() == 1


def test_a_flow_that_is_stopped_does_not_wait_for_a_verdict(
    world: World, runner: ScriptedRunner, gate: Gate
) -> None:
    """The answer comes too late for anybody; on resume the attempt was lost, at no charge."""
    stop = [True]

    def body() -> Any:
        future = work.with_options(retries=1, retry_condition_fn=gate).submit()
        if stop:
            stop.clear()
            first = runner.expect(1)[0]
            runner.start(first)
            runner.fail(first, ValueError())
            assert gate.asked.wait(10)
            raise KeyboardInterrupt
        return future.result()

    main = scripted(body, runner)
    with suppress(KeyboardInterrupt):
        main()
    gate.go_on.set()
    resumed = Running(main.resume, "latest")
    runner.succeed(runner.expect(2)[1], 7)
    assert resumed.result() == 7
    assert world.task_runs()["work-0"].raised == 0


# Delays ---------------------------------------------------------------------------------------------------


def test_jitter_spreads_retries(world: World, runner: ScriptedRunner) -> None:
    """Task runs that fail together are tried again apart, over the whole share, by the driver's luck."""
    made = work.with_options(retries=1, retry_delay_seconds=100, retry_jitter_factor=0.5)
    running = start(lambda: made.map(range(200)).result(), runner)
    for each in runner.expect(200):
        runner.fail(each, ValueError())
    world.settle()
    waits = [(run.due or 0) - START for run in world.task_runs().values()]
    assert all(50 <= wait <= 150 for wait in waits)
    assert min(waits) < 60
    assert max(waits) > 140
    assert len(set(waits)) == 200
    assert abs(statistics.mean(waits) - 100) < 10
    seeded = SeededIds()
    seeded.run_id()
    drawn = [seeded.luck() for _ in range(200)]
    assert [event.luck for event in world.events(ev.AttemptRaised)] == drawn
    world.clock.advance(150)
    for each in runner.expect(400)[200:]:
        runner.succeed(each, 1)
    assert running.result() == [1] * 200


@pytest.mark.parametrize(
    ("delays", "waits"),
    [
        (7, [7, 7, 7, 7]),
        ([1, 10], [1, 10, 10, 10]),
        (lambda retries: [retries, 2 * retries], [4, 8, 8, 8]),
    ],
)
def test_delays_are_those_that_were_said(
    world: World, runner: ScriptedRunner, delays: Any, waits: list[float]
) -> None:
    """A number, a list whose last value repeats, a function of the number of retries."""
    made = work.with_options(retries=4, retry_delay_seconds=delays)
    running = start(lambda: made.submit().result(), runner)
    for number, wait in enumerate(waits, 1):
        runner.fail(runner.expect(number)[-1], ValueError())
        world.settle()
        assert (world.task_runs()["work-0"].due or 0) - world.clock.now() == wait
        world.clock.advance(wait)
    runner.succeed(runner.expect(5)[-1], 1)
    assert running.result() == 1
    assert attempts(world) == [Ending.RAISED] * 4 + [Ending.SUCCEEDED]


def test_a_silent_attempts_retry_is_spread_too(world: World, runner: ScriptedRunner) -> None:
    """Attempts whose deadline the driver has seen pass do not all come back at the same moment."""
    made = with_timeout(5, retries=1, retry_delay_seconds=100, retry_jitter_factor=0.5)
    running = start(lambda: made.map(range(20)).result(), runner)
    for each in runner.expect(20):
        runner.start(each)
    world.settle()
    world.clock.advance(10)
    world.settle()
    assert len({run.due for run in world.task_runs().values()}) == 20
    world.clock.advance(200)
    for each in runner.expect(40)[20:]:
        runner.succeed(each, 1)
    running.result()


# Flows ----------------------------------------------------------------------------------------------------


class Hurry(logging.Handler):
    """Lets the time go by that a flow says it waits."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.waits: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Read how long it is."""
        said = re.search(r"the flow runs again in ([\d.]+) s", record.getMessage())
        if said:
            self.waits.append(float(said[1]))
            self.world.clock.advance(float(said[1]))


@pytest.fixture
def hurry(world: World) -> Iterator[Hurry]:
    """Return a handler of log lines for which no flow has to wait."""
    handler = Hurry(world)
    logging.getLogger("dflow.runs").addHandler(handler)
    yield handler
    logging.getLogger("dflow.runs").removeHandler(handler)


@pytest.mark.parametrize(
    ("delays", "waits"),
    [(7, [7, 7, 7]), ([1, 10], [1, 10, 10]), (lambda retries: [2 * retries], [6, 6, 6])],
)
def test_a_flow_waits_as_was_said(hurry: Hurry, delays: Any, waits: list[float]) -> None:
    """Delays of flows are given as those of tasks are."""
    tries: list[float] = []

    def main() -> str:
        tries.append(hurry.world.clock.now())
        if len(tries) <= 3:
            raise ValueError(len(tries))
        return "done"

    assert flow(retries=3, retry_delay_seconds=delays)(main)() == "done"
    assert hurry.waits == waits
    assert [b - a for a, b in pairwise(tries)] == waits


def test_a_flow_that_runs_again_keeps_every_attempt(world: World) -> None:
    """What had completed is returned; of what had failed both generations stay in the record."""
    ran: list[str] = []

    def step(name: str) -> str:
        ran.append(name)
        if name == "bad" and ran.count("bad") < 4:
            raise ValueError(f"try {ran.count('bad')}")
        return name

    made = task(retries=1)(step)

    def main() -> list[str]:
        return [made(name) for name in ("good", "bad", "last")]

    assert flow(retries=1)(main)() == ["good", "bad", "last"]
    assert ran == ["good", *["bad"] * 4, "last"]
    good, bad, last = world.task_runs().values()
    assert [(a.generation, a.number, a.ending.value) for a in bad.attempts] == [
        (1, 1, "raised"),
        (1, 2, "raised"),
        (2, 1, "raised"),
        (2, 2, "succeeded"),
    ]
    errors = [attempt.error for attempt in bad.attempts]
    assert [error and error.text for error in errors] == ["try 1", "try 2", "try 3", None]
    assert (good.run_count, good.generation, last.generation) == (1, 1, 1)
    (root,) = world.flow_runs()
    assert (root.run_count, root.state.name) == (2, "Completed")
