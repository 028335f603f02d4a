"""What can be a task, what it is called, and how it is called, on every runner."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dflow
from dflow import Task, current_run, flow, runs, tags, task
from dflow.core.records import Stage, TaskRun
from dflow.errors import DefinitionError, ParameterError, SerializationError
from dflow.ports import TaskRunner
from tests.api.test_flows_and_tasks import record


def latest() -> list[TaskRun]:
    """Return the task runs of the latest run, in the order in which they were asked for."""
    with runs.opened(runs.find("latest")) as reader:
        return list(reader.task_runs())


# What can be a task ------------------------------------------------------------------------------------


@task
def plain(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


@task
async def awaits(x: int, y: int = 1) -> int:
    """Add, on a loop."""
    await asyncio.sleep(0)
    return x + y


@task
def generates(x: int, y: int = 1) -> Iterator[int]:
    """Yield the two, then the sum."""
    yield from (x, y)
    yield x + y


@task
async def generates_async(x: int, y: int = 1) -> AsyncIterator[int]:
    """Yield the same, on a loop."""
    for item in (x, y, x + y):
        await asyncio.sleep(0)
        yield item


def scaled(factor: int, x: int) -> int:
    """Multiply."""
    return factor * x


class Adder:
    """Adds to what it has."""

    def __init__(self, base: int) -> None:
        self.base = base

    @task
    def add(self, x: int) -> int:
        """Add to the base."""
        return self.base + x

    @task
    async def add_async(self, x: int) -> int:
        """Add to the base, on a loop."""
        return self.base + x

    @task
    def up_to(self, x: int) -> Iterator[int]:
        """Count from the base."""
        yield from range(self.base, x)

    @task
    @classmethod
    def named(cls, x: int) -> str:
        """Return the name of the class."""
        return f"{cls.__name__} {x}"

    @task
    @staticmethod
    def alone(x: int) -> int:
        """Return what came."""
        return x

    def __call__(self, x: int) -> int:
        """Add to the base."""
        return self.base + x


class Doubler(Adder):
    """Inherits."""


def test_functions_of_every_kind_are_tasks(runner: TaskRunner) -> None:
    """Plain, coroutine, generator and async generator functions can be submitted and mapped."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        kinds: list[Any] = [plain, awaits, generates, generates_async]
        submitted = [each.submit(1, y=2).result() for each in kinds]
        return [*submitted, *(each.map([1, 2]).result() for each in kinds)]

    items = [[1, 1, 2], [2, 1, 3]]
    assert main() == [3, 3, [1, 2, 3], [1, 2, 3], [2, 3], [2, 3], items, items]
    assert [plain.isasync, awaits.isasync, generates.isasync, generates_async.isasync] == [
        False, True, False, True,
    ]  # fmt: skip
    assert [plain.isgenerator, awaits.isgenerator, generates.isgenerator] == [False, False, True]


def test_methods_are_tasks(runner: TaskRunner) -> None:
    """They are bound to the instance or the class, whether called, submitted or mapped."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        five = Adder(5)
        return [
            [five.add(1), five.add.submit(2).result(), *five.add.map([3, 4]).result()],
            [asyncio.run(five.add_async(1)), five.add_async.submit(2).result()],
            [list(five.up_to(7)), five.up_to.submit(8).result()],
            [Adder.named(1), Doubler(0).named.submit(2).result(), *Adder.named.map([3]).result()],
            [five.alone(1), Adder.alone.submit(2).result(), *five.alone.map([3]).result()],
            [Adder.add(five, 9), Adder.add.submit(five, 8).result()],
            five.add.with_options(name="plus").submit(1).result(),
        ]

    assert main() == [
        [6, 7, 8, 9],
        [6, 7],
        [[5, 6], [5, 6, 7]],
        ["Adder 1", "Doubler 2", "Adder 3"],
        [1, 2, 3],
        [14, 13],
        6,
    ]
    assert {run.stage for run in latest()} == {Stage.COMPLETED}


def test_lambdas_partials_and_objects_are_tasks(runner: TaskRunner) -> None:
    """Their names are 'lambda', that of the function inside, and that of the class."""
    double = task(partial(scaled, 2))
    twice = task(partial(partial(scaled, 2), 3))
    made = [task(lambda x: x + 1), double, task(Adder(7)), twice]

    @flow(task_runner=runner)
    def main() -> list[int]:
        called = [made[0](1), double(1), made[2](1), twice()]
        return [*called, *(each.submit(2).result() for each in made[:3]), twice.submit().result()]

    assert main() == [2, 2, 8, 6, 3, 4, 9, 6]
    assert [each.name for each in made] == ["lambda", "scaled", "Adder", "scaled"]
    assert {run.name for run in latest()} >= {"lambda-0", "Adder-1", "scaled-3"}


def test_what_cannot_be_a_task_is_refused() -> None:
    """The error says why: it is no function, or a parameter has a name that calls use."""
    with pytest.raises(DefinitionError, match="for functions, not for 5"):
        task(5)  # type: ignore[call-overload]  # what is tested
    for name in ("return_state", "wait_for"):
        with pytest.raises(DefinitionError, match=f"parameter '{name}', which dflow uses"):
            task(eval(f"lambda {name}: 1"))


def test_a_task_looks_like_its_function() -> None:
    """Name, doc, signature and module are the function's, and ``fn`` is the plain function."""

    def original(x: int, *, deep: bool = False) -> int:
        """Say it.

        At length.
        """
        return x if deep else -x

    made: Any = task(original)
    assert made.fn is original
    assert made.fn(5, deep=True) == 5
    assert (made.__name__, made.__doc__) == ("original", original.__doc__)
    assert (made.__module__, made.__wrapped__) == (__name__, original)
    assert inspect.signature(made) == inspect.signature(original)
    assert (made.name, made.description) == ("original", "Say it.\n\nAt length.")
    assert Adder(1).add.fn(2) == 3
    assert list(inspect.signature(Adder(1).add).parameters) == ["x"]
    assert isinstance(made, Task)


def test_the_decorator_takes_its_options() -> None:
    """Bare, with empty brackets, and with all that it knows; something else is an error."""

    @task()
    def empty() -> int:
        return 1

    @task(
        name="n", description="d", tags=["b", "a"], version="1", task_run_name="r", retries=2,
        retry_delay_seconds=[1, 2], retry_jitter_factor=0.5, retry_condition_fn=lambda *_: True,
        timeout_seconds=5, log_prints=True, resources={"GPU": 1}, priority=2, workers="w",
        max_worker_losses=1, on_running=[], on_completion=None, on_failure=print,
    )  # fmt: skip
    def full() -> int:
        return 2

    assert (empty(), full.fn()) == (1, 2)
    assert (full.name, full.description, full.tags, full.version) == ("n", "d", ("a", "b"), "1")
    with pytest.raises(DefinitionError, match="no option 'retrys'"):
        task(retrys=1)(full.fn)  # type: ignore[call-overload]  # what is tested


def test_with_options_keeps_and_clears(runner: TaskRunner) -> None:
    """What is not named stays, what is named changes, None clears; the original is as it was."""

    @task(name="one", tags=["t"], version="1", description="d", task_run_name="run-{x}", retries=1)
    def origin(x: int) -> tuple[str, tuple[str, ...]]:  # noqa: ARG001  (in the name)
        run = current_run()
        return run.name, run.tags

    changed = origin.with_options(name="two", retries=3)
    cleared = origin.with_options(
        name=None, tags=None, version=None, description=None, task_run_name=None
    )

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [each.submit(1).result() for each in (origin, changed, cleared)]

    assert main() == [("run-1", ("t",)), ("run-1", ("t",)), ("origin-0", ())]
    assert [run.policy.retries for run in latest()] == [1, 3, 1]
    assert (changed.name, changed.version, changed.description) == ("two", "1", "d")
    assert (cleared.name, cleared.version, cleared.description) == ("origin", None, "")
    assert (origin.name, origin.version) == ("one", "1")
    with pytest.raises(DefinitionError, match="nonsense"):
        origin.with_options(nonsense=1)


# Names and tags ----------------------------------------------------------------------------------------


def by_parameters(parameters: dict[str, Any]) -> str:
    """Return a name."""
    return f"with {parameters['x']} and {parameters['y']}"


@task(task_run_name="add {x:03d} to {y}")
def from_template(x: int, y: int = 4) -> tuple[str, str]:  # noqa: ARG001  (in the name)
    """Return the names by which the run is known inside."""
    return current_run().name, dflow.runtime.task_run.name


@task(task_run_name=by_parameters)
def from_callable(x: int, y: int = 4) -> str:  # noqa: ARG001  (in the name)
    """Return the name of the run."""
    return current_run().name


@task(task_run_name=lambda: "fixed")
def from_nothing(_: int) -> str:
    """Return the name of the run."""
    return current_run().name


@task
def names_inside(x: int) -> list[Any]:
    """Ask for named runs in a task."""
    return [from_template.submit(plain.submit(x)).result()[0], from_callable(x)]


def test_task_runs_are_named_by_rules(runner: TaskRunner) -> None:
    """By a template or a callable, with values of futures too: in the body, in the journal."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        two = plain.submit(1)
        return [
            from_template.submit(5).result(),
            from_template.submit(two, y=two).result(),
            from_template(two),  # type: ignore[call-overload]  # a future for an int
            from_callable.submit(two).result(),
            from_callable(6, 7),
            from_nothing.submit(two).result(),
            *from_callable.map([1, two]).result(),
            names_inside.submit(8).result(),
        ]

    assert main() == [
        ("add 005 to 4",) * 2, ("add 002 to 2",) * 2, ("add 002 to 4",) * 2,
        "with 2 and 4", "with 6 and 7", "fixed", "with 1 and 4", "with 2 and 4",
        ["add 009 to 4", "with 8 and 4"],
    ]  # fmt: skip
    assert {run.name for run in latest()} == {
        "plain-0", "add 005 to 4", "add 002 to 2", "add 002 to 4", "with 2 and 4", "with 6 and 7",
        "fixed", "with 1 and 4", "names_inside-0", "add 009 to 4", "with 8 and 4",
    }  # fmt: skip


def test_a_name_that_waits_for_a_value_is_made_when_the_body_begins(runner: TaskRunner) -> None:
    """Before that the run has its number."""

    @flow(task_runner=runner)
    def main() -> str:
        future = from_callable.submit(plain.submit(1))
        assert future.name == "from_callable-0"
        return future.result()

    assert main() == "with 2 and 4"


@task(tags=["own"])
def tagged(_: int = 0) -> tuple[str, ...]:
    """Return the tags."""
    return current_run().tags


@task
def tags_inside() -> list[Any]:
    """Ask for runs in a task, with more tags around them."""
    with tags("inner"):
        return [tagged(), tagged.submit().result(), current_run().tags]


def test_tags_around_calls(runner: TaskRunner) -> None:
    """They join those of the task, and go along to what the task asks for on its worker."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        with tags("around", "own"):
            found = [tagged(), tagged.submit().result(), tagged.map([1]).result()]
            found.append(tags_inside.submit().result())
        return [*found, tagged.submit().result()]

    inside = ("around", "inner", "own")
    assert main() == [
        ("around", "own"), ("around", "own"), [("around", "own")],
        [inside, inside, ("around", "own")], ("own",),
    ]  # fmt: skip
    assert sorted(run.tags for run in latest()) == sorted(
        [*[("around", "own")] * 4, inside, inside, ("own",)]
    )


# Calls -------------------------------------------------------------------------------------------------


@task
def thread() -> int:
    """Return the thread."""
    return threading.get_ident()


@task
def fail(text: str) -> None:
    """Raise."""
    raise KeyError(text)


def test_a_direct_call_runs_here_and_is_recorded(runner: TaskRunner) -> None:
    """In the caller's thread; its value or its exception comes back, its run is in the journal."""
    error = KeyError("the very one")

    @task
    def raises() -> None:
        raise error

    @flow(task_runner=runner)
    def main() -> int:
        with pytest.raises(KeyError) as caught:
            raises()
        assert caught.value is error
        return thread()

    assert main() == threading.get_ident()
    found, _ = record()
    assert [(run.name, run.stage) for run in found.values()] == [
        ("raises-0", Stage.FAILED),
        ("thread-0", Stage.COMPLETED),
    ]


@pytest.mark.parametrize("name", ["inline", "threads", "dask-in-process"])
def test_tasks_outside_of_a_flow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called, submitted and mapped, of every kind, they are recorded in one session run."""
    dflow.shutdown()
    monkeypatch.setenv("DFLOW_TASK_RUNNER", name)
    assert plain(1) == 2
    assert asyncio.run(awaits(1)) == 2
    assert list(generates(1)) == [1, 1, 2]
    assert plain.submit(plain.submit(1)).result() == 3
    assert plain.map([1, 2]).result() == [2, 3]
    with pytest.raises(KeyError, match="k"):
        fail("k")
    dflow.shutdown()
    found, _ = record()
    assert len(found) == 8
    assert {run.stage for run in found.values()} == {Stage.COMPLETED, Stage.FAILED}


def test_return_state_everywhere(runner: TaskRunner) -> None:
    """Calls, submits and maps of every kind give final states, which give values or exceptions."""

    async def native() -> list[Any]:
        return [
            await awaits(1, return_state=True),
            await generates_async(1, return_state=True),
            awaits.submit(1, return_state=True),
        ]

    @flow(task_runner=runner)
    def main() -> list[Any]:
        states: list[Any] = [
            plain(1, return_state=True),
            plain.submit(1, return_state=True),
            *plain.map([1, 2], return_state=True),
            generates(1, return_state=True),
            *asyncio.run(native()),
        ]
        assert {state.name for state in states} == {"Completed"}
        assert all(state.is_final() and state.is_completed() for state in states)
        failed: list[Any] = [
            fail("a", return_state=True),
            fail.submit("b", return_state=True),
            *fail.map(["c"], return_state=True),
        ]
        assert {state.name for state in failed} == {"Failed"}
        assert [state.result(raise_on_failure=False).args[0] for state in failed] == ["a", "b", "c"]
        for state in failed:
            with pytest.raises(KeyError):
                state.result()
        return [state.result() for state in states]

    assert main() == [2, 2, 2, 3, [1, 1, 2], 2, [1, 1, 2], 2]


@task
def touch(path: str, *, after: str = "") -> bool:
    """Leave a file; tell whether another one was there."""
    Path(path).touch()
    return not after or Path(after).exists()


@task
async def touch_async(path: str, *, after: str) -> bool:
    """Do the same on a loop."""
    return touch.fn(path, after=after)


def test_wait_for_everywhere(runner: TaskRunner, tmp_path: Path) -> None:
    """Calls, submits and maps go after what they name, and not at all if it failed."""
    first, other = str(tmp_path / "first"), str(tmp_path / "other")

    @flow(task_runner=runner)
    def main() -> list[Any]:
        before = touch.submit(first)
        bad = fail.submit("k")
        found = [
            touch(other, after=first, wait_for=[before]),
            touch.submit(other, after=first, wait_for=before).result(),
            *touch.map([other], after=dflow.unmapped(first), wait_for=[before]).result(),
            asyncio.run(touch_async(other, after=first, wait_for=[before])),
            list(generates(1, wait_for=[before])),
        ]
        for path in ("a", "b", "c"):
            assert not (tmp_path / path).exists()
        never: list[Any] = [
            touch(str(tmp_path / "a"), wait_for=[bad], return_state=True),
            touch.submit(str(tmp_path / "b"), wait_for=[bad], return_state=True),
            *touch.map([str(tmp_path / "c")], wait_for=[bad], return_state=True),
        ]
        assert {state.name for state in never} == {"UpstreamFailed"}
        with pytest.raises(KeyError, match="k"):
            touch(str(tmp_path / "a"), wait_for=[bad])
        return found

    assert main() == [True, True, True, True, [1, 1, 2]]
    assert {path.name for path in tmp_path.iterdir()} >= {"first", "other"}
    assert not any((tmp_path / name).exists() for name in "abc")


def test_arguments_that_do_not_fit_are_refused(runner: TaskRunner) -> None:
    """At the call, the submit and the map, as a TypeError too; nothing is recorded."""

    @flow(task_runner=runner)
    def main() -> None:
        for wrong in (
            partial(plain, z=1),
            plain.submit,
            partial(plain.map, [1], z=[2]),
        ):
            with pytest.raises(ParameterError, match="'plain'") as caught:
                wrong()
            assert isinstance(caught.value, TypeError)

    main()
    assert latest() == []


@task
def submits_a_lock() -> str:
    """Submit what cannot travel, from a worker."""
    try:
        plain.submit({"deep": threading.Lock()})
    except SerializationError as error:
        return str(error)
    return ""


def test_what_cannot_travel_is_named_at_submit(processes: TaskRunner) -> None:
    """In submits and maps, of the driver and of workers: parameter, path and type; none is recorded."""

    @flow(task_runner=processes)
    def main() -> str:
        for wrong in (
            lambda: plain.submit(1, y=[{"a": threading.Lock()}]),
            lambda: plain.map([1, 2], y=dflow.unmapped([{"a": threading.Lock()}])),
        ):
            with pytest.raises(SerializationError, match=r"'y'\[0\]\['a'\].*lock"):
                wrong()
        return submits_a_lock.submit().result()

    assert "'x'['deep']" in main()
    assert [run.name for run in latest()] == ["submits_a_lock-0"]
