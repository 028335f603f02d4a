"""What may be written in ``@flow(...)`` and ``@task(...)``, and what errors say."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from dflow import Flow, Task, exponential_backoff, flow, task
from dflow.core.records import Policy
from dflow.errors import DefinitionError
from dflow.messages import Placement
from tests.engine.world import World

pytestmark = pytest.mark.usefixtures("world")

BOTH = [task, flow]


def body(x: int = 0) -> int:
    """Say what it does.

    At length.
    """
    return x


WRONG: list[tuple[str, Any]] = [
    ("retries", -1), ("retries", 1.5), ("retries", "3"), ("retries", True),
    ("retry_delay_seconds", -1), ("retry_delay_seconds", "1"), ("retry_delay_seconds", []),
    ("retry_delay_seconds", [1, None]), ("retry_delay_seconds", float("nan")),
    ("retry_delay_seconds", float("inf")), ("retry_delay_seconds", lambda n: "soon"),
    ("name", 5), ("name", "x" * 10_001), ("description", 5), ("version", 2),
]  # fmt: skip
OF_TASKS: list[tuple[str, Any]] = [
    ("tags", "abc"), ("tags", 5), ("tags", ["a", 1]), ("max_worker_losses", -1),
    ("max_worker_losses", None.__class__), ("retry_jitter_factor", 2), ("retry_jitter_factor", "x"),
    ("resources", "GPU"), ("resources", {"": 1}), ("resources", {1: 1}), ("resources", {"GPU": 0}),
    ("resources", {"GPU": float("inf")}), ("resources", {"GPU": True}), ("resources", {"GPU": "1"}),
    ("batch", 1), ("batch", "yes"),
    ("priority", 1.5), ("priority", True), ("priority", "high"), ("priority", 1_000_001),
    ("workers", []), ("workers", ""), ("workers", 5), ("workers", ["a", 5]), ("workers", {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize("decorator", BOTH)
@pytest.mark.parametrize(("argument", "value"), WRONG)
def test_a_wrong_option_is_named(decorator: Any, argument: str, value: Any) -> None:
    """The error names the argument and shows the value, at the definition and in ``with_options``."""
    made = decorator(body)
    for define in (
        lambda: decorator(**{argument: value})(body),
        lambda: made.with_options(**{argument: value}),
    ):
        with pytest.raises(DefinitionError, match=f"{argument}="):
            define()


def test_placements_are_kept_and_cleared() -> None:
    """What a task says of places goes with its runs; ``with_options`` keeps it, changes it and clears it."""
    names = iter(["b", "a", "b"])
    made = task(resources={"GPU": 1, "CPU": 0.5}, priority=-1, workers=names, batch=False)(body)
    placement = made._treated()[0].placement
    assert placement == Placement(
        resources=(("CPU", 0.5), ("GPU", 1.0)), priority=-1, workers=("b", "a"), batch=False
    )
    assert made.with_options(retries=1)._treated()[0].placement == placement
    changed = made.with_options(workers="c", resources=None, priority=None, batch=None)
    assert changed._treated()[0].placement == Placement(workers=("c",))


@pytest.mark.parametrize(("argument", "value"), OF_TASKS)
def test_a_wrong_option_of_a_task_is_named(argument: str, value: Any) -> None:
    """So it is for what only tasks have."""
    with pytest.raises(DefinitionError, match=f"{argument}="):
        task(**{argument: value})(body)


def two(run: Any, state: Any) -> None:
    """Take too little."""


def four(owner: Any, run: Any, state: Any, more: Any) -> None:
    """Take too much."""


def yields(*told: Any) -> Iterator[Any]:
    """Be a generator, which does nothing when it is called."""
    yield from told


NO_HOOKS: list[tuple[Any, str]] = [
    (5, "not 5"), ("name", "not"), ([body, "x"], "not"), ([None], "not None"), (two, "'two' takes"),
    (four, r"'four' takes \(owner"), (yields, "'yields' is a generator"), ([print, two], "'two'"),
]  # fmt: skip


@pytest.mark.parametrize("decorator", BOTH)
@pytest.mark.parametrize("argument", ["on_running", "on_completion", "on_failure"])
@pytest.mark.parametrize(("value", "said"), NO_HOOKS)
def test_a_wrong_hook_is_named(decorator: Any, argument: str, value: Any, said: str) -> None:
    """What cannot be called, with three arguments, is refused in options and by decorators."""
    made, kind = decorator(body), decorator.__name__
    wanted = rf"{kind} 'body': {argument}= .*\({kind}, {kind}_run, state\).*"
    for define in (
        lambda: decorator(**{argument: value})(body),
        lambda: made.with_options(**{argument: value}),
    ):
        with pytest.raises(DefinitionError, match=wanted):
            define()
    with pytest.raises(DefinitionError, match=wanted):
        getattr(made, argument)(value)
    assert made.callbacks is None
    if not isinstance(value, str | list):
        with pytest.raises(DefinitionError, match=said):
            getattr(made, argument)(value)


@pytest.mark.parametrize("argument", ["on_cancellation", "on_crashed"])
def test_hooks_of_flows_are_not_those_of_tasks(argument: str) -> None:
    """A flow may have them, a task says that it does not know them."""
    assert flow(body).with_options(**{argument: print}).callbacks is not None
    with pytest.raises(DefinitionError, match=f"no option '{argument}'"):
        task(body).with_options(**{argument: print})


@pytest.mark.parametrize("value", [5, "name", two, four, yields, [four]])
def test_a_wrong_condition_is_named(value: Any) -> None:
    """It is one function of three arguments."""
    with pytest.raises(DefinitionError, match="retry_condition_fn="):
        task(retry_condition_fn=value)(body)


def test_hooks_that_do_not_tell_what_they_take_are_taken() -> None:
    """Some built-in functions have no signature; whether they fit is seen when they are called."""
    hooks: list[Any] = [max, print, lambda *_: None, lambda a, b, c=1, d=2: None]
    assert task(on_completion=hooks)(body)._options.on_completion == tuple(hooks)


def test_a_wrong_name_of_runs_is_named() -> None:
    """So it is for what only flows have."""
    with pytest.raises(DefinitionError, match="flow_run_name="):
        flow(flow_run_name=5)(body)  # type: ignore[call-overload]


@pytest.mark.parametrize("decorator", BOTH)
def test_an_unknown_option_is_named_with_the_known(decorator: Any) -> None:
    """A slip of the pen is seen at once."""
    for define in (lambda: decorator(retires=3), lambda: decorator(body).with_options(retires=3)):
        with pytest.raises(DefinitionError, match=r"no option 'retires'.*retries"):
            define()


def yielding() -> Iterator[int]:
    """Be a generator."""
    yield 1


async def later() -> None:
    """Be a coroutine."""


def reserved(wait_for: int) -> int:
    """Have a parameter that calls use."""
    return wait_for


@pytest.mark.parametrize("decorator", BOTH)
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (reserved, "a parameter 'wait_for'"),
        (lambda return_state: 0, "a parameter 'return_state'"),
        (5, "is for functions, not for 5"),
        ("name", "is for functions, not for 'name'"),
        (max, "'max' does not tell its parameters"),
    ],
)
def test_what_cannot_run_is_refused(decorator: Any, function: Any, said: str) -> None:
    """At the definition, and with what to do."""
    with pytest.raises(DefinitionError, match=said):
        decorator(function)


@pytest.mark.parametrize("decorator", BOTH)
def test_bare_with_brackets_and_with_options(decorator: Any) -> None:
    """All ways of writing it give the same; options may also come with the function."""
    for made in (decorator(body), decorator()(body), decorator(name="n")(body)):
        assert made.fn is body
    assert decorator(body, name="named").name == "named"


def test_a_definition_keeps_what_its_function_says() -> None:
    """Name, docstring and module are those of the function; options come first."""
    made, flowed = task(body), flow(two_words)
    assert (made.name, vars(made)["__name__"], made.__module__) == ("body", "body", __name__)
    assert made.description == "Say what it does.\n\nAt length."
    assert made.__wrapped__ is body  # type: ignore[attr-defined]
    assert (flowed.name, flowed.description) == ("two-words", "")
    assert repr(made) == "<Task 'body'>"
    assert repr(flowed) == "<Flow 'two-words'>"
    named = task(name="other", description="else", tags=["b", "a", "b"], version="2")(body)
    assert (named.name, named.description, named.tags, named.version) == (
        "other",
        "else",
        ("a", "b"),
        "2",
    )


def two_words() -> None:  # noqa: D103  (the point of it)
    pass


FULL: dict[str, Any] = {
    "name": "n",
    "description": "d",
    "version": "v",
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.5,
    "tags": ["t"],
    "log_prints": True,
    "max_worker_losses": 1,
    "on_running": print,
    "on_completion": [print],
    "on_failure": [print, print],
    "retry_condition_fn": print,
}


def test_with_options_keeps_what_it_does_not_change() -> None:
    """Changed is what is named, the original stays as it is."""
    made = task(**FULL)(body)
    other = made.with_options(retries=5)
    assert other.fn is body
    assert (other.name, other.tags, other.version, other.description) == ("n", ("t",), "v", "d")
    policy = made._policy
    assert policy == Policy(2, (1.0, 5.0), 0.5, 1)
    assert other._policy == Policy(5, (1.0, 5.0), 0.5, 1)
    assert made.with_options()._policy == policy


def test_with_options_clears_with_none() -> None:
    """None brings back the default, of each option by itself."""
    cleared = task(**FULL)(body).with_options(**dict.fromkeys(FULL))
    plain = task(body)
    assert (cleared.name, cleared.tags, cleared.version) == (plain.name, plain.tags, plain.version)
    assert (cleared.description, cleared._policy) == (plain.description, plain._policy)
    assert cleared._options == plain._options
    assert cleared.callbacks is plain.callbacks is None


def test_tags_from_a_generator_are_kept() -> None:
    """What can be read only once is read once, and is still there in ``with_options``."""
    made = task(tags=(t for t in "ab"))(body)
    assert made.with_options(retries=1).tags == made.tags == ("a", "b")


@pytest.mark.parametrize(
    ("given", "delays"),
    [
        (0, (0.0,)),
        (None, (0.0,)),
        (3, (3.0,)),
        ([1, 2.5], (1.0, 2.5)),
        ((4,), (4.0,)),
        (exponential_backoff(10), (10.0, 20.0, 40.0)),
        (lambda n: [n], (3.0,)),
    ],
)
def test_delays_may_be_given_in_many_ways(given: Any, delays: tuple[float, ...]) -> None:
    """A number, a list, a function of the number of retries."""
    assert task(retries=3, retry_delay_seconds=given)(body)._policy.retry_delays == delays


@pytest.mark.parametrize("factor", [-1, "2", None, float("nan")])
def test_a_wrong_factor_is_refused(factor: Any) -> None:
    """Backoff takes seconds."""
    with pytest.raises(DefinitionError, match="exponential_backoff"):
        exponential_backoff(factor)


@pytest.mark.parametrize("name", ["", "a" * 10_000, "\0\n", "../..", "🦉 [red]", "\udcff"])
def test_hostile_names_are_harmless(world: World, name: str) -> None:
    """They are recorded and shown as they are."""
    named = task(name=name)(body)
    main = flow(name=name, flow_run_name=name)(lambda: named.submit(named(1)).result())
    assert main() == 1
    assert {run.task_name for run in world.reader(world.session.root.flow_run_id).task_runs()} == {
        name
    }


@task
def tasked(x: int) -> int:
    """Be found in this module."""
    return x


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_task_travels_by_reference(dumps: Callable[[Any], bytes]) -> None:
    """With its options, and with the function of the module itself."""
    again = pickle.loads(dumps(tasked.with_options(retries=7)))
    assert isinstance(again, Task)
    assert again.fn is tasked.fn
    assert again._policy.retries == 7
    assert b"Be found" not in dumps(tasked)


def test_tasks_and_flows_without_a_name_travel_by_value() -> None:
    """What is made in a function is taken along."""
    factor = 3
    made = task(lambda x: factor * x)
    assert pickle.loads(cloudpickle.dumps(made)).fn(2) == 6
    flowed: Any = pickle.loads(cloudpickle.dumps(flow(lambda: factor)))
    assert isinstance(flowed, Flow)
    assert flowed.fn() == 3


@pytest.mark.parametrize("runner", ["no-such", 5, object(), int])
def test_an_unknown_runner_is_said(runner: Any) -> None:
    """When the first task is submitted, with the names that there are."""
    with pytest.raises(DefinitionError, match=r"runner.*threads"):
        flow(task_runner=runner)(lambda: tasked.submit(1))()
    assert flow(task_runner=runner)(lambda: tasked(1))() == 1
