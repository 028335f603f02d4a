"""Hooks of task runs: whom they are told of, when, with what, and that they harm nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

import dflow
from dflow import State, flow, get_run_logger, task
from dflow.core import events as ev
from dflow.core.records import Cause, ErrorInfo, TaskRun
from dflow.engine.tracker import Do
from dflow.errors import CancelledError, CrashedError, MissingResult, NoRunError
from dflow.testing import START, ScriptedRunner
from tests.engine.world import World, start

pytestmark = pytest.mark.usefixtures("world")

KINDS = ("on_running", "on_completion", "on_failure")


@dataclass
class Ear:
    """Hooks that remember what they were told."""

    heard: list[tuple[str, Any, TaskRun, State]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    def hook(self, kind: str, task: Any, task_run: Any, state: State) -> None:
        """Remember."""
        self.heard.append((kind, task, task_run, state))
        if state.is_final():
            self.results.append(state.result(raise_on_failure=False))

    @property
    def all(self) -> dict[str, Any]:
        """The options by which a task tells everything."""
        return {kind: partial(self.hook, kind) for kind in KINDS}

    @property
    def words(self) -> list[tuple[str, str]]:
        """Which hooks were called, for which task run."""
        return [(kind, run.name) for kind, _, run, _ in self.heard]

    @property
    def kinds(self) -> list[str]:
        """Which hooks were called."""
        return [kind for kind, *_ in self.heard]


@pytest.fixture
def ear() -> Ear:
    """Return hooks that remember what they were told."""
    return Ear()


@task
def work(x: Any = 0) -> Any:
    """Return what came, or raise it."""
    if isinstance(x, BaseException):
        raise x
    return x


def run(body: Callable[[], Any], **options: Any) -> Any:
    """Run a flow."""
    return flow(**options)(body)()


WAYS: list[Callable[[Any, Any], Any]] = [
    lambda made, x: made(x),
    lambda made, x: made.submit(x).result(),
    lambda made, x: made.map([x]).result(),
]


@pytest.mark.parametrize("way", WAYS, ids=["call", "submit", "map"])
def test_hooks_hear_of_begin_and_end(ear: Ear, way: Callable[[Any, Any], Any]) -> None:
    """However the task is asked for, with the task, the record and the state, which has the value."""
    told = work.with_options(**ear.all)
    run(lambda: way(told, 5))
    (begin, *_, began), (end, owner, record, ended) = (ear.heard[0], ear.heard[1])
    assert (begin, began.name, began.is_running()) == ("on_running", "Running", True)
    assert began.timestamp is not None
    assert (end, owner) == ("on_completion", told)
    assert (record.name, record.run_count, record.state.name) == ("work-0", 1, "Completed")
    assert (ended.is_completed(), ear.results) == (True, [5])
    assert ended.timestamp == record.state.timestamp
    assert len(ear.heard) == 2


@pytest.mark.parametrize("way", WAYS, ids=["call", "submit", "map"])
def test_a_failure_is_told_with_its_exception(ear: Ear, way: Callable[[Any, Any], Any]) -> None:
    """The very exception, where it was raised in this process, raised or returned by the state."""
    told = work.with_options(**ear.all)
    error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        run(lambda: way(told, error))
    assert ear.kinds == ["on_running", "on_failure"]
    *_, record, state = ear.heard[1]
    assert (record.state.name, state.name, state.is_failed()) == ("Failed", "Failed", True)
    assert state.result(raise_on_failure=False) is error
    with pytest.raises(ValueError, match="no"):
        state.result()


def test_a_state_that_is_not_final_has_no_result(ear: Ear) -> None:
    """Neither that of a run which has begun, nor that of a record."""
    run(work.with_options(**ear.all))
    for state in (ear.heard[0][3], ear.heard[1][2].state):
        with pytest.raises(MissingResult):
            state.result()


def test_hooks_hear_of_what_is_recorded(world: World) -> None:
    """They are called after the commit: the journal says the same."""
    seen: list[tuple[str, str]] = []

    def look(_: Any, record: TaskRun, state: State) -> None:
        kept = world.reader().task_run(record.id)
        seen.append((state.name, "nothing" if kept is None else kept.state_name))

    run(lambda: work.with_options(on_completion=look)(1))
    assert seen == [("Completed", "Completed")]


def test_retries_are_told_attempt_by_attempt(ear: Ear) -> None:
    """Each attempt begins, and the last one ends."""
    left = [1, 2]

    @task(retries=2, **ear.all)
    def flaky() -> str:
        if left:
            raise ValueError(left.pop())
        return "ok"

    assert run(flaky) == "ok"
    assert ear.kinds == ["on_running"] * 3 + ["on_completion"]
    assert [record.run_count for _, _, record, _ in ear.heard] == [1, 2, 3, 3]


def test_begin_and_end_in_one_commit_are_both_told(
    world: World, runner: ScriptedRunner, ear: Ear
) -> None:
    """Every attempt is heard of, also one whose start was never reported, in the order of events."""
    made = work.with_options(retries=2, **ear.all)
    running = start(lambda: made.submit().result(), runner)
    held = threading.Event()
    first = runner.expect(1)[0]
    world.session.tracker.post(Do(lambda _: held.wait(10)))
    runner.start(first)
    runner.fail(first, ValueError("one"))
    held.set()
    runner.fail(runner.expect(2)[1], ValueError("two"))
    third = runner.expect(3)[2]
    runner.start(third)
    runner.start(third)
    runner.succeed(third, 3)
    assert running.result() == 3
    assert ear.kinds == ["on_running"] * 3 + ["on_completion"]


def test_a_crash_is_a_failure(runner: ScriptedRunner, ear: Ear) -> None:
    """Of lost workers hooks hear only in the end."""
    made = work.with_options(max_worker_losses=0, **ear.all)
    running = start(lambda: made.submit().result(), runner)
    lost = runner.expect(1)[0]
    runner.start(lost)
    runner.lose(lost)
    with pytest.raises(CrashedError):
        running.result()
    assert ear.kinds == ["on_running", "on_failure"]
    state = ear.heard[1][3]
    assert (state.name, type(state.result(raise_on_failure=False))) == ("Crashed", CrashedError)


def test_a_timeout_is_a_failure(runner: ScriptedRunner, ear: Ear) -> None:
    """Its state says what kind of one."""
    running = start(lambda: work.with_options(**ear.all).submit().result(), runner)
    late = runner.expect(1)[0]
    run_id, dispatch = late.info.key
    error = ErrorInfo("dflow.errors.TimedOutError", "late")
    runner.report(
        ev.AttemptTimedOut(
            at=START,
            task_run_id=run_id,
            dispatch=dispatch,
            started_at=START,
            seconds=1.0,
            error=error,
        )
    )
    with pytest.raises(Exception, match="late"):
        running.result()
    assert [(kind, state.name) for kind, _, _, state in ear.heard][1:] == [
        ("on_failure", "TimedOut")
    ]


def test_what_never_ran_is_not_told(ear: Ear) -> None:
    """Of an upstream's failure the hooks of that upstream hear, not those of whatever it takes along."""
    told = work.with_options(**ear.all)

    def body() -> None:
        first = told.with_options(name="first").submit(ValueError("root"))
        second = told.with_options(name="second").submit(first)
        told.with_options(name="third").submit(second).wait()

    run(body)
    assert ear.words == [("on_running", "first-0"), ("on_failure", "first-0")]


def test_a_lost_upstream_is_told(runner: ScriptedRunner, ear: Ear) -> None:
    """Nobody else would say it: the upstream itself has completed."""

    def body() -> Any:
        source = work.submit("large")
        source.wait()
        return work.with_options(**ear.all).submit(source).result()

    running = start(body, runner)
    first = runner.expect(1)[0]
    runner.succeed(first, "large", kept=False)
    second = runner.expect(2)[1]
    run_id, dispatch = first.info.key
    runner.report(ev.ResultLost(at=START, task_run_id=run_id, dispatch=dispatch))
    runner.void(second)
    with pytest.raises(dflow.errors.UpstreamLostError):
        running.result()
    assert ear.kinds == ["on_failure"]


def test_a_cancelled_task_run_is_not_told(world: World, runner: ScriptedRunner, ear: Ear) -> None:
    """Tasks have no hook for it."""
    running = start(lambda: work.with_options(**ear.all).submit().result(), runner)
    run_id = runner.expect(1)[0].info.task_run_id
    world.session.tracker.commit(ev.CancelRequested(at=START, task_run_id=run_id))
    runner.void(runner.works[0], Cause.WITHDRAWN)
    with pytest.raises(CancelledError):
        running.result()
    assert ear.heard == []


def test_a_slow_hook_holds_up_neither_run_nor_order(world: World) -> None:
    """The flow goes on meanwhile; at its end it has waited for all hooks, which came one by one."""
    heard: list[str] = []
    go_on = threading.Event()

    def slow(_: Any, record: TaskRun, __: State) -> None:
        assert go_on.wait(10)
        heard.append(record.name)

    @flow
    def main() -> None:
        told = work.with_options(on_completion=slow)
        assert told.map(range(3)).result() == [0, 1, 2]
        assert told(3) == 3
        assert heard == []
        go_on.set()

    main()
    assert heard == ["work-0", "work-1", "work-2", "work-3"]
    assert set(world.states().values()) == {"Completed"}


def test_hooks_are_called_in_one_thread_beside_the_tracker() -> None:
    """Which is there only if somebody is to be told."""
    names: list[str] = []

    def hook(*_: Any) -> None:
        names.append(threading.current_thread().name)

    def others() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "dflow-hooks"]

    @flow
    def main() -> list[str]:
        work()
        work.with_options(on_failure=hook)()
        before = others()
        work.with_options(on_running=hook, on_completion=[hook, hook]).submit().result()
        return before

    assert main() == []
    assert names == ["dflow-hooks"] * 3


@dataclass
class Falsy:
    """An object that can be called, and is falsy."""

    ear: Ear

    def __call__(self, *told: Any) -> None:
        """Remember."""
        self.ear.hook("object", *told)

    def __bool__(self) -> bool:
        return False


def test_hooks_may_be_anything_that_can_be_called(ear: Ear) -> None:
    """Functions, async ones, partials, methods, objects; one or several, called in their order."""

    async def later(*told: Any) -> None:
        await asyncio.sleep(0)
        ear.hook("async", *told)

    async def named(kind: str, *told: Any) -> None:
        ear.hook(kind, *told)

    hooks = [later, partial(named, "async partial"), Falsy(ear), partial(ear.hook, "partial")]
    run(work.with_options(on_completion=iter(hooks)))
    run(work.with_options(on_completion=Falsy(ear)))
    assert ear.kinds == ["async", "async partial", "object", "partial", "object"]


def test_decorators_add_hooks_to_the_task_itself(ear: Ear) -> None:
    """They return the function; `with_options` keeps them, unless it names them."""
    told = work.with_options(on_completion=partial(ear.hook, "option"))

    @told.on_completion
    def first(*said: Any) -> None:
        ear.hook("decorator", *said)

    @told.on_running
    async def second(*said: Any) -> None:
        ear.hook("async decorator", *said)

    assert callable(first)
    assert asyncio.iscoroutinefunction(second)
    everything = ["async decorator", "option", "decorator"]
    for variant, kinds in (
        (told, everything),
        (told.with_options(retries=1), everything),
        (told.with_options(on_completion=None), ["async decorator"]),
        (told.with_options(on_completion=first, on_running=[]), ["decorator"]),
        (work, []),
    ):
        ear.heard.clear()
        run(variant)
        assert ear.kinds == kinds


@pytest.mark.parametrize("error", [ValueError("in a hook"), SystemExit("in a hook")])
def test_an_error_in_a_hook_harms_nothing(world: World, ear: Ear, error: BaseException) -> None:
    """It is logged with the run, with its traceback, and the next hook is called."""

    def broken(*_: Any) -> None:
        raise error

    async def broken_too(*_: Any) -> None:
        raise error

    hooks = [broken, broken_too, partial(ear.hook, "next")]
    assert run(lambda: work.with_options(on_completion=hooks)(1)) == 1
    assert ear.kinds == ["next"]
    assert set(world.states().values()) == {"Completed"}
    lines = [entry for entry in world.reader().logs() if entry.logger == "dflow.hooks"]
    assert [line.level for line in lines] == [logging.ERROR] * 2
    assert all("in a hook" in line.message and "Traceback" in line.message for line in lines)
    assert "broken' (on_completion) raised" in lines[0].message
    assert lines[0].task_run_id == world.task_runs()["work-0"].id


def test_hooks_may_log_for_the_run(world: World) -> None:
    """Their lines are those of the run that they are told of."""

    def hook(_: Any, record: TaskRun, state: State) -> None:
        get_run_logger().warning("%s is %s", record.name, state.name)

    run(lambda: work.with_options(on_completion=hook)(1))
    (line,) = [entry for entry in world.reader().logs() if "is Completed" in entry.message]
    assert line.task_run_id == world.task_runs()["work-0"].id


def test_hooks_belong_to_no_run() -> None:
    """They may call flows, which are runs of their own; a task in a hook is refused."""
    results: list[Any] = []

    @flow
    def cleaning() -> int:
        return work(3) + 1  # type: ignore[no-any-return]

    def hook(*_: Any) -> None:
        results.append(cleaning())
        with pytest.raises(NoRunError):
            work(4)
        results.append("refused")

    run(lambda: work.with_options(on_completion=hook)(1))
    assert results == [4, "refused"]


@pytest.mark.parametrize("value", [b"x" * 50_000, threading.Lock()], ids=["large", "lock"])
def test_the_value_of_a_direct_call_can_be_had(ear: Ear, value: Any) -> None:
    """Also one that is kept nowhere."""
    run(lambda: work.with_options(**ear.all)(value) is value)
    assert ear.results[0] is value


def test_a_value_is_not_let_go_before_hooks_have_seen_it(
    world: World, runner: ScriptedRunner
) -> None:
    """A future that is dropped does not take it away from them; after them it goes."""
    seen: list[Any] = []
    go_on = threading.Event()

    def hook(_: Any, __: Any, state: State) -> None:
        assert go_on.wait(10)
        seen.append(state.result())

    def body() -> None:
        work.with_options(on_completion=hook).submit("dropped")

    running = start(body, runner)
    first = runner.expect(1)[0]
    runner.succeed(first, "large", kept=False)
    world.settle()
    assert runner.released == []
    go_on.set()
    running.result()
    assert seen == ["large"]
    assert runner.released == [first.info.key]


def test_each_generation_is_told(ear: Ear) -> None:
    """A flow that runs again repeats what had failed, and of what had completed nothing is said again."""
    tries: list[int] = []
    told = work.with_options(**ear.all)

    @task(name="again", **ear.all)
    def again() -> None:
        if len(tries) == 1:
            raise ValueError

    def main() -> None:
        tries.append(1)
        told("kept")
        again()

    run(main, retries=1)
    assert ear.words == [
        ("on_running", "work-0"),
        ("on_completion", "work-0"),
        ("on_running", "again-0"),
        ("on_failure", "again-0"),
        ("on_running", "again-0"),
        ("on_completion", "again-0"),
    ]
    assert ear.heard[-1][2].run_count == 2


def test_resume_tells_what_happens_now(ear: Ear) -> None:
    """Not what an earlier driver has done."""
    stop = [True]
    told = work.with_options(**ear.all)

    @flow
    def main() -> Any:
        first = told(1)
        if stop:
            stop.clear()
            raise KeyboardInterrupt
        return first + told(2)

    with pytest.raises(KeyboardInterrupt):
        main()
    assert ear.words == [("on_running", "work-0"), ("on_completion", "work-0")]
    ear.heard.clear()
    assert main.resume("latest") == 3
    assert ear.words == [("on_running", "work-1"), ("on_completion", "work-1")]


def main_thread_waits_in() -> list[str]:
    """Return the functions in which the main thread waits for an event, the innermost first."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    names = [frame.f_code.co_name]
    while frame.f_back is not None:
        frame = frame.f_back
        names.append(frame.f_code.co_name)
    return names[names.index("wait") :] if "wait" in names else []


def test_ctrl_c_ends_the_wait_for_a_hook_that_hangs(world: World) -> None:
    """The flow run is interrupted, and its end does not wait for that hook again."""
    never, over = threading.Event(), list[bool]()

    def hangs(*_: Any) -> None:
        while "drain" not in main_thread_waits_in():
            assert not never.wait(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        over.append(never.wait(30))

    @flow
    def main() -> None:
        work.with_options(on_completion=hangs)()

    with pytest.raises(KeyboardInterrupt):
        main()
    assert over == []
    assert world.flow_runs()[0].state_name == "Interrupted"
    never.set()


def test_hooks_outside_of_flows_have_run_at_the_end(ear: Ear) -> None:
    """The session of such work waits for them when it ends."""
    go_on = threading.Event()
    told = work.with_options(on_running=lambda *_: go_on.wait(10), on_completion=ear.all[KINDS[1]])
    assert told(1) == 1
    assert ear.heard == []
    go_on.set()
    dflow.shutdown()
    assert ear.words == [("on_completion", "work-0")]


def test_what_is_added_later_is_told_of_later_runs(ear: Ear) -> None:
    """A task that had nobody to tell when it was called tells nobody of that run."""
    fresh = work.with_options()

    @flow
    def main() -> None:
        fresh("before")
        fresh.on_completion(partial(ear.hook, "added"))
        fresh("after")

    main()
    assert ear.words == [("added", "work-1")]
