"""What can be a flow, and what can be said of it, on every runner."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

import dflow
from dflow import Flow, current_run, flow, get_run_logger, task
from dflow.errors import DefinitionError, ParameterError
from dflow.ports import TaskRunner
from task_runners import InlineTaskRunner, ThreadPoolTaskRunner
from tests.api.shared_flows import add, fail, seen, upto

# Names --------------------------------------------------------------------------------------------------


def test_the_names_are_there() -> None:
    """What scripts import can be imported, from the places where they look for it."""
    for name in (
        "flow task Flow Task State StateType TaskFuture wait as_completed unmapped allow_failure quote "
        "opaque tags get_run_logger current_run get_run_context exponential_backoff resume shutdown"
    ).split():
        assert getattr(dflow, name) is not None
    states = importlib.import_module("dflow.states")
    for name in (
        "StateType State Pending Running Completed Failed Crashed Cancelled Cancelling Scheduled Retrying "
        "AwaitingRetry Cached TimedOut UpstreamFailed Paused"
    ).split():
        made = getattr(states, name)
        if name not in ("StateType", "State"):
            assert made(message="m").name == name
            assert made(message="m").message == "m"
    for module in ("futures", "runtime", "errors", "testing", "runs"):
        importlib.import_module(f"dflow.{module}")
    for name in ("DaskTaskRunner", "ThreadPoolTaskRunner", "InlineTaskRunner"):
        assert hasattr(importlib.import_module("task_runners"), name)


# Forms --------------------------------------------------------------------------------------------------


class Scaler:
    """Flows in a class."""

    factor = 2

    @flow
    def scale(self, x: int) -> int:
        """Multiply in the parent's runner."""
        return add.submit(x).result() * self.factor

    @flow
    async def scale_async(self, x: int) -> int:
        """Multiply."""
        return await add.submit(x) * self.factor

    @flow
    @classmethod
    def scale_by_class(cls, x: int) -> int:
        """Multiply."""
        return add.submit(x).result() * cls.factor

    @flow
    @staticmethod
    def scale_alone(x: int) -> int:
        """Multiply."""
        return add.submit(x).result() * 2

    @staticmethod
    @flow
    def scale_outside(x: int) -> int:
        """Multiply."""
        return add.submit(x).result() * 2


def plain(x: int, y: int = 1) -> int:
    """Add in a task."""
    return add.submit(x, y).result()


def test_functions_of_every_form_make_flows(runner: TaskRunner) -> None:
    """Functions, methods, static and class methods, lambdas, partials, objects are called as such."""

    class Called:
        def __call__(self, x: int) -> int:
            return plain(x)

    forms: dict[str, Flow[..., Any]] = {
        "plain": flow(plain),
        "with-options": flow(name="with-options")(plain),
        "scale": Scaler().scale,
        "scale-by-class": Scaler.scale_by_class,
        "scale-alone": Scaler().scale_alone,
        "scale-outside": Scaler.scale_outside,
        "lambda": flow(name="lambda")(cast("Callable[[int], int]", lambda x: x + 1)),
        "partial": flow(name="partial")(partial(plain, y=1)),
        "Called": flow(Called()),
    }
    results = flow(task_runner=runner)(lambda: [form(1) for form in forms.values()])()
    assert results == [2, 2, 4, 4, 4, 4, 2, 2, 2]
    assert [run.flow_name for run in seen().flows[1:]] == list(forms)
    for name, form in forms.items():
        assert form.with_options(task_runner=runner)(1) == results[list(forms).index(name)]
        assert seen().root.flow_name == form.name == name


def test_async_flows_are_awaited(runner: TaskRunner) -> None:
    """Functions and methods alike: a call gives a coroutine."""
    import asyncio  # lazy: for this one

    @flow(task_runner=runner)
    async def main(x: int) -> int:
        return await Scaler().scale_async(x) + await Scaler().scale_async(x=x)

    assert asyncio.run(main(1)) == 8
    assert [run.state_name for run in seen().flows] == ["Completed"] * 3


def test_a_flow_is_named_after_its_function() -> None:
    """With dashes, unless a name is given; description and version are kept; `fn` is the plain function."""

    @flow(version="2")
    def train_the_model(x: int) -> int:
        """Train it."""
        return x + 1

    assert (train_the_model.name, train_the_model.description) == ("train-the-model", "Train it.")
    assert train_the_model.version == "2"
    assert train_the_model.fn(1) == 2
    named = train_the_model.with_options(name="other_name", description="Another.")
    assert (named.name, named.description, named.version) == ("other_name", "Another.", "2")
    assert Scaler().scale.name == "scale"
    assert Scaler().scale.fn.__self__.factor == 2  # type: ignore[attr-defined]


def test_with_options_keeps_and_clears(runner: TaskRunner) -> None:
    """What is not named stays, None clears, the flow itself is as it was; unknown options are named."""
    ends: list[str] = []
    tries: list[int] = []

    @flow(
        task_runner=runner,
        name="kept",
        retries=1,
        flow_run_name="run-{x}",
        on_failure=lambda _, __, state: ends.append(state.name),
    )
    def main(x: int) -> None:
        tries.append(x)
        raise ValueError("no")

    for changed, times, told, name in (
        (main.with_options(version="3"), 2, ["Failed"], "run-1"),
        (main.with_options(retries=None), 1, ["Failed"], "run-1"),
        (main.with_options(on_failure=None, flow_run_name=None), 2, [], None),
        (main, 2, ["Failed"], "run-1"),
    ):
        tries.clear()
        ends.clear()
        assert changed(1, return_state=True).name == "Failed"
        assert (len(tries), ends, changed.name) == (times, told, "kept")
        assert name is None or seen().root.name == name
    with pytest.raises(DefinitionError, match=r"flow 'kept' has no option 'retry'"):
        main.with_options(retry=1)


def test_reserved_parameters_are_refused() -> None:
    """`return_state` and `wait_for` belong to the calls."""
    for body in (lambda return_state: None, lambda wait_for: None):
        with pytest.raises(DefinitionError, match=r"return_state|wait_for"):
            flow(name="main")(body)


# Names of runs --------------------------------------------------------------------------------------------


def test_runs_are_named_by_a_rule(runner: TaskRunner) -> None:
    """A template over the parameters with their defaults, or a function, of roots and of subflows."""

    def from_run(parameters: dict[str, Any]) -> str:
        return f"called-{parameters['x']}-{parameters['y']}"

    def body(x: int, y: str = "b") -> tuple[str, int, str]:
        return current_run().flow_run_name, x, y

    rules: dict[Any, str] = {
        "fixed": "fixed",
        "{x:03d}-{y}": "007-b",
        from_run: "called-7-b",
        (lambda: "nothing"): "nothing",
    }
    for rule, name in rules.items():
        named = flow(flow_run_name=rule)(body)
        assert named.with_options(task_runner=runner)(7) == (name, 7, "b")
        assert seen().root.name == name
        assert flow(task_runner=runner)(lambda named=named: named(x=7))() == (name, 7, "b")


@pytest.mark.parametrize("rule", ["sum-{x}", lambda parameters: f"sum-{parameters['x']}"])
def test_names_are_made_of_values(runner: TaskRunner, rule: Any) -> None:
    """Where a parameter is a future, the name has its value."""

    def body(x: int) -> tuple[str, int]:
        return current_run().flow_run_name, x

    named: Any = flow(flow_run_name=rule, name="named")(body)

    @flow(task_runner=runner)
    def main() -> Any:
        started = named.start(add.submit(2))
        assert started.result(timeout=60) == ("sum-3", 3)
        assert started.name == "sum-3"
        with pytest.raises(KeyError, match="upstream"):
            named(fail.submit("upstream"))
        return named(add.submit(1))

    assert main() == ("sum-2", 2)
    names = [run.name for run in seen().named("named")]
    assert names == ["sum-3", "named-1", "sum-2"]


def test_a_name_that_takes_what_is_not_there_is_refused() -> None:
    """When the flow is defined, not when it runs."""
    with pytest.raises(DefinitionError, match="wrong"):
        flow(flow_run_name="{wrong}")(lambda x: x)


# Arguments --------------------------------------------------------------------------------------------------


def test_parameters_are_validated(runner: TaskRunner) -> None:
    """They are converted as annotations say, of roots and subflows, also values of futures."""

    def body(x: int, many: list[float]) -> Any:
        return x, many

    typed: Any = flow(body)
    assert typed.with_options(task_runner=runner)("5", ["1.5"]) == (5, [1.5])
    text = task(lambda: "5")
    inside = flow(task_runner=runner)(lambda: typed(text.submit(), [upto.submit(1).result()[0]]))
    assert inside() == (5, [0.0])
    loose = typed.with_options(task_runner=runner, validate_parameters=False)
    assert loose("5", "many") == ("5", "many")


def test_a_parameter_that_does_not_fit_is_a_failed_run(runner: TaskRunner) -> None:
    """Its record names the field, nothing has run, and it is not tried again."""
    ran: list[int] = []

    def body(x: int, deep: dict[str, list[int]]) -> None:
        ran.append(x + len(deep))

    typed: Any = flow(retries=3, name="typed")(body)
    root = typed.with_options(task_runner=runner)
    with pytest.raises(ParameterError, match=r"'deep\.a\[1\]'"):
        root(1, {"a": [1, "no"]})
    run = seen().root
    assert (run.state_name, run.generation, ran) == ("Failed", 1, [])
    assert "'deep.a[1]'" in run.message

    @flow(task_runner=runner)
    def main() -> str:
        with pytest.raises(ParameterError, match="'x'"):
            typed("no", {})
        return "caught"

    assert main() == "caught"
    inside = seen().named("typed")[0]
    assert (inside.state_name, inside.generation) == ("Failed", 1)
    assert "'x'" in inside.message


def test_calls_take_return_state_and_wait_for(runner: TaskRunner) -> None:
    """A subflow waits for futures without their values; one that failed makes it fail, and nothing runs."""
    ran: list[str] = []
    body = flow(name="body")(ran.append)

    @flow(task_runner=runner)
    def main() -> list[str]:
        good = body("good", wait_for=[add.submit(1)], return_state=True)
        bad = body("bad", wait_for=[fail.submit("upstream")], return_state=True)
        with pytest.raises(KeyError, match="upstream"):
            body("worse", wait_for=fail.submit("upstream"))
        return [good.name, bad.name]

    assert main() == ["Completed", "Failed"]
    assert ran == ["good"]


def test_futures_among_arguments_become_values(runner: TaskRunner) -> None:
    """At any depth, and one that failed makes the subflow fail with its exception."""
    body = flow(name="body")(lambda given: given)

    @flow(task_runner=runner)
    def main() -> Any:
        with pytest.raises(KeyError, match="upstream"):
            body([fail.submit("upstream")])
        return body({"a": [add.submit(1), 5], "b": add.map([1, 2])})

    assert main() == {"a": [2, 5], "b": [2, 3]}
    assert [run.state_name for run in seen().named("body")] == ["Failed", "Completed"]


# Runners, prints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    ["inline", "threads", InlineTaskRunner, ThreadPoolTaskRunner(max_workers=1), "instance"],
    ids=str,
)
def test_a_runner_is_an_instance_a_class_or_a_name(runner: TaskRunner, chosen: Any) -> None:
    """All of them run the tasks; another word is refused with those that are known."""
    given = runner if chosen == "instance" else chosen
    assert flow(task_runner=given)(lambda: add.submit(1).result())() == 2
    with pytest.raises(DefinitionError, match="no-such-runner"):
        flow(task_runner="no-such-runner")(lambda: add.submit(1).result())()


def test_a_subflow_uses_the_runner_around_it(runner: TaskRunner) -> None:
    """Unless it names one of its own; its own subflows use that then."""

    @task
    def where() -> str:
        return f"{current_run().worker}"

    inner = flow(name="inner")(lambda: where.submit().result())
    outer = flow(name="outer")(lambda: (where.submit().result(), inner()))

    @flow(task_runner=runner)
    def main() -> Any:
        own = outer.with_options(task_runner="inline")
        return where.submit().result(), outer(), own(), where.submit().result()

    first, (second, third), own, last = main()
    kind = first.split("-")[0].split(":")[0]
    for place in (second, third, last):
        assert place.split("-")[0].split(":")[0] == kind
    here = flow(task_runner="inline")(lambda: where.submit().result())()
    assert own == (here, here)


def test_log_prints_goes_down(runner: TaskRunner, capsys: pytest.CaptureFixture[str]) -> None:
    """A flow's prints become log lines, and those of subflows and tasks that do not say otherwise."""

    def say(text: str) -> None:
        print("said", text)

    speak = task(say)
    silent = task(log_prints=False)(say)

    @flow
    def sub(text: str) -> None:
        print("sub", text)
        speak.submit(text).result()

    quiet = sub.with_options(log_prints=False)

    @flow(task_runner=runner, log_prints=True)
    def main() -> None:
        print("main")
        speak("here")
        silent.submit("not logged").result()
        sub("one")
        quiet("two")
        get_run_logger().info("end")

    main()
    assert seen().lines == ["main", "said here", "sub one", "said one", "end"]
    assert {"said not logged", "sub two", "said two"} <= set(capsys.readouterr().out.splitlines())
