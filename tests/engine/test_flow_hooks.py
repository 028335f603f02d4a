"""Hooks of flow runs, and hooks of task runs that a worker far away has asked for."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cloudpickle
import pytest

from dflow import State, flow, get_run_logger, task
from dflow.core.records import TaskRun
from dflow.engine import homes
from dflow.errors import CancelledError, SerializationError
from dflow.messages import Callbacks
from dflow.states import StateType
from tests.engine.far import FarRunner
from tests.engine.world import World

pytestmark = pytest.mark.usefixtures("world")

FLOW_KINDS = ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")


@dataclass
class Ear:
    """Hooks that remember what they were told."""

    heard: list[tuple[str, Any, Any, State]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    def hook(self, kind: str, flow: Any, flow_run: Any, state: State) -> None:
        """Remember."""
        self.heard.append((kind, flow, flow_run, state))
        if state.is_final():
            self.results.append(state.result(raise_on_failure=False))

    @property
    def all(self) -> dict[str, Any]:
        """The options by which a flow tells everything."""
        return {kind: partial(self.hook, kind) for kind in FLOW_KINDS}

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


def raising(error: BaseException) -> Callable[[], Any]:
    """Return a body that raises."""

    def body() -> Any:
        raise error

    return body


def test_a_flow_tells_of_its_begin_and_its_end(ear: Ear) -> None:
    """With the flow, its record and the state, in the thread that runs the body."""
    threads: list[threading.Thread] = []
    hooks = [lambda *_: threads.append(threading.current_thread()), ear.all["on_completion"]]
    main = flow(name="main", **(ear.all | {"on_completion": hooks}))(lambda: work(3))
    assert main() == 3
    (begin, owner, _, began), (end, _, record, ended) = ear.heard
    assert (begin, end, owner) == ("on_running", "on_completion", main)
    assert (began.name, ended.name, ear.results) == ("Running", "Completed", [3])
    assert record.parameters == {}
    assert (record.flow_name, record.run_count, record.state.name) == ("main", 1, "Completed")
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize(
    ("body", "kind", "name"),
    [
        (raising(ValueError("no")), "on_failure", "Failed"),
        (lambda: work.submit(ValueError("no")), "on_failure", "Failed"),
        (lambda: State(StateType.CRASHED, "Crashed"), "on_crashed", "Crashed"),
        (lambda: State(StateType.CANCELLED, "Cancelled"), "on_cancellation", "Cancelled"),
        (lambda: State(StateType.FAILED, "TimedOut"), "on_failure", "TimedOut"),
    ],
)
def test_each_end_has_its_hook(ear: Ear, body: Callable[[], Any], kind: str, name: str) -> None:
    """However the flow came to it; the state has what the call raises."""
    state = flow(**ear.all)(body)(return_state=True)  # not of the body
    assert state.name == name
    assert ear.kinds == ["on_running", kind]
    assert ear.heard[1][3].name == name
    assert type(ear.results[0]) is type(state.result(raise_on_failure=False))


def test_a_flow_that_runs_again_tells_of_each_begin_and_of_one_end(ear: Ear) -> None:
    """Until its last retry it has not failed; the record counts how often it has begun."""
    with pytest.raises(ValueError, match="no"):
        flow(retries=2, **ear.all)(raising(ValueError("no")))()
    assert ear.kinds == ["on_running"] * 3 + ["on_failure"]
    assert [run.run_count for _, _, run, _ in ear.heard] == [1, 2, 3, 3]


def test_an_interrupted_flow_has_not_ended(ear: Ear) -> None:
    """Nobody is told of Ctrl-C; the resumed run tells of its begin and its end."""
    stop = [True]

    @flow(**ear.all)
    def main() -> int:
        if stop:
            stop.clear()
            raise KeyboardInterrupt
        return 1

    with pytest.raises(KeyboardInterrupt):
        main()
    assert ear.kinds == ["on_running"]
    assert main.resume("latest") == 1
    assert ear.kinds == ["on_running", "on_running", "on_completion"]


def test_a_flow_hears_after_the_record_and_after_the_hooks_of_its_tasks(world: World) -> None:
    """In this order: task runs, their hooks, the end of the flow run, its hooks."""
    heard: list[tuple[str, str]] = []
    go_on = threading.Event()

    def of_task(_: Any, *__: Any) -> None:
        assert go_on.wait(10)
        heard.append(("task", world.flow_runs()[0].state_name))

    def of_flow(*_: Any) -> None:
        heard.append(("flow", world.flow_runs()[0].state_name))

    @flow(on_completion=of_flow)
    def main() -> None:
        work.with_options(on_completion=of_task)()
        go_on.set()

    main()
    assert heard == [("task", "Running"), ("flow", "Completed")]


def test_subflows_tell_too_but_not_when_they_are_kept(ear: Ear) -> None:
    """A subflow that had completed is returned on resume: nothing happens then."""
    stop = [True]
    inner = flow(name="inner", **ear.all)(lambda: 5)

    @flow
    def main() -> int:
        value = inner()
        if stop:
            stop.clear()
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        main()
    assert ear.kinds == ["on_running", "on_completion"]
    assert main.resume("latest") == 5
    assert ear.kinds == ["on_running", "on_completion"]


def test_an_error_in_a_hook_of_a_flow_harms_nothing(world: World, ear: Ear) -> None:
    """It is logged with the flow run; hooks may log too, and belong to no run."""
    values: list[Any] = []

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("in a hook")

    def other(*_: Any) -> None:
        get_run_logger().info("said in a hook")
        values.append(flow(lambda: 7)())

    hooks = [broken, other, ear.all["on_completion"]]
    main = flow(name="main", on_running=broken, on_completion=hooks)(lambda: 1)
    assert main() == 1
    assert ear.kinds == ["on_completion"]
    assert values == [7]
    (entry,) = [entry for entry in world.journal.catalog.list() if entry.flow_name == "main"]
    logged = list(world.journal.read(entry.id).logs())
    assert ["in a hook" in line.message for line in logged] == [True] * 3
    assert {(line.flow_run_id, line.task_run_id) for line in logged} == {(entry.id, None)}


@pytest.mark.parametrize("kind", ["on_running", "on_completion"])
def test_ctrl_c_in_a_hook_of_a_flow_is_the_users(world: World, kind: str) -> None:
    """It ends the call; what was recorded before it stays so."""
    options: Any = {kind: raising_hook(KeyboardInterrupt())}
    with pytest.raises(KeyboardInterrupt):
        flow(**options)(lambda: 1)()
    state = world.flow_runs()[0].state_name
    assert state == ("Interrupted" if kind == "on_running" else "Completed")


def raising_hook(error: BaseException) -> Callable[..., None]:
    """Return a hook that raises."""

    def hook(*_: Any) -> None:
        raise error

    return hook


@pytest.mark.parametrize("running", [False, True], ids=["no loop", "a running loop"])
def test_hooks_of_flows_may_be_async(ear: Ear, running: bool) -> None:
    """They run on a loop of their own, also where the flow is called under one."""

    @flow
    def main() -> int:
        return 1

    @main.on_completion
    async def later(*told: Any) -> None:
        await asyncio.sleep(0)
        ear.hook("async", *told)

    async def call() -> int:
        return main()

    assert (asyncio.run(call()) if running else main()) == 1
    assert ear.kinds == ["async"]


def test_decorators_of_flows_add_and_options_replace(ear: Ear) -> None:
    """As those of tasks do; `with_options` keeps what was added, unless it names it."""
    main = flow(lambda: 1)
    for kind in FLOW_KINDS:
        getattr(main, kind)(partial(ear.hook, kind))
    variants = [main, main.with_options(name="other"), main.with_options(on_running=None)]
    for variant in variants:
        variant()
    assert ear.kinds == ["on_running", "on_completion"] * 2 + ["on_completion"]


# From a worker far away -----------------------------------------------------------------------------------

HEARD: list[tuple[str, str, str]] = []
TRIES: list[Any] = []
OWNERS: list[Any] = []
BEGUN = threading.Event()


@pytest.fixture(autouse=True)
def forget() -> None:
    """Forget what earlier tests have heard."""
    HEARD.clear()
    TRIES.clear()
    OWNERS.clear()
    BEGUN.clear()


@pytest.fixture
def far() -> FarRunner:
    """Return a runner that is far away."""
    return FarRunner()


def hear(owner: Any, record: TaskRun, state: State) -> None:
    """Remember, by reference."""
    HEARD.append((owner.name, record.name, state.name))
    OWNERS.append(owner)
    BEGUN.set()


@task(on_running=hear, on_completion=[hear], on_failure=hear)
def told(x: Any = 0) -> Any:
    """Return what came, or raise it."""
    TRIES.append(x)
    if isinstance(x, BaseException):
        raise x
    return x


INSIDE: dict[str, Callable[[], Any]] = {
    "call": lambda: told(1),
    "submit": lambda: told.submit(1).result(),
    "map": lambda: told.map([1]).result(),
    "with_options": lambda: told.with_options(retries=1).submit(1).result(),
}


@pytest.mark.parametrize("way", list(INSIDE))
def test_tasks_called_on_a_worker_are_told_in_the_driver(far: FarRunner, way: str) -> None:
    """By call, submit and map, with the task that the driver has; one with other options is made anew."""
    outer = task(INSIDE[way])
    flow(task_runner=far)(lambda: outer.submit().result())()
    assert HEARD == [("told", "told-0", "Running"), ("told", "told-0", "Completed")]
    assert (OWNERS[0] is told) == (way != "with_options")


def test_a_condition_decides_about_calls_on_a_worker(world: World, far: FarRunner) -> None:
    """Direct ones and submitted ones."""
    made = told.with_options(retries=5, retry_condition_fn=lambda _, run, __: run.run_count < 3)

    @task
    def outer() -> list[str]:
        errors: list[str] = []
        for call in (lambda: made(ValueError("a")), lambda: made.submit(ValueError("b")).result()):
            try:
                call()
            except ValueError as error:
                errors.append(str(error))
        return errors

    assert flow(task_runner=far)(lambda: outer.submit().result())() == ["a", "b"]
    assert [str(error) for error in TRIES] == ["a", "a", "a", "b", "b", "b"]
    assert [run.run_count for run in world.task_runs().values()] == [1, 3, 3]


def test_a_task_comes_home_as_itself(far: FarRunner) -> None:
    """A local task travels by value; its hooks in the driver are those of the program, not copies."""
    heard: list[Any] = []

    @task
    def inner() -> int:
        return 4

    inner.on_completion(lambda owner, *_: heard.append(owner))
    outer = task(lambda: inner.submit().result())
    assert flow(task_runner=far)(lambda: outer.submit().result())() == 4
    assert heard == [inner]


def test_elsewhere_a_task_by_value_is_a_copy_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that globals that have changed at home do so there; sent back from there it is known again."""
    made = task(lambda: 1)
    data = cloudpickle.dumps(made)
    with monkeypatch.context() as away:
        away.setattr(homes, "_at_home", {})
        copy, other = pickle.loads(data), pickle.loads(data)
        assert copy is not made
        assert copy is not other
        assert copy.name == made.name
        back = cloudpickle.dumps(copy)
    assert pickle.loads(back) is made
    assert pickle.loads(data) is made


def test_hooks_that_cannot_travel_are_refused_where_they_are_asked_for(far: FarRunner) -> None:
    """On the worker, with what to do."""

    @task
    def outer() -> str:
        lock = threading.Lock()
        with pytest.raises(SerializationError, match=r"hooks .* of task 'told' cannot travel"):
            told.with_options(on_completion=lambda *_: lock.acquire()).submit()
        return "refused"

    assert flow(task_runner=far)(lambda: outer.submit().result())() == "refused"


def vanish() -> Any:
    """Fail to be loaded."""
    raise ImportError("not in this process")


class Vanishing:
    """Cannot be loaded where it arrives."""

    name = "vanishing"

    def __reduce__(self) -> Any:
        return vanish, ()


def test_a_task_that_cannot_be_loaded_has_no_hooks_and_no_retries(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once; what a condition should have decided about is not tried again."""
    kinds = frozenset({"on_running", "on_failure", "retry_condition_fn"})
    lost = told.with_options(retries=3)
    monkeypatch.setattr(lost, "callbacks", Callbacks(Vanishing(), kinds))

    def body() -> None:
        call: Any = lost
        for name in "ab":
            assert call(ValueError(name), return_state=True).is_failed()

    outer = task(body)
    flow(task_runner=FarRunner(pickles=False))(lambda: outer.submit().result())()
    assert [run.run_count for run in world.task_runs().values()] == [1, 1, 1]
    assert caplog.text.count("cannot be loaded here") == 1
    assert HEARD == []


def test_a_cancelled_child_of_a_worker_is_told_to_nobody(far: FarRunner) -> None:
    """A task run on a worker whose flow ends is cancelled: there is no hook for that."""

    @task
    def outer() -> None:
        told.with_options(retries=1, retry_delay_seconds=3600).submit(ValueError()).wait()

    @flow(task_runner=far)
    def main() -> None:
        outer.submit()
        assert BEGUN.wait(10)
        raise CancelledError("enough")

    with pytest.raises(CancelledError):
        main()
    assert HEARD == [("told", "told-0", "Running")]
