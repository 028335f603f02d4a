"""What may stand in the arguments of a call besides values: annotations, futures, states."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from dflow import State, allow_failure, flow, opaque, quote, task, unmapped
from dflow.core.records import Held
from dflow.engine.identity import Children
from dflow.errors import (
    CancelledError,
    CrashedError,
    MissingResult,
    ParameterError,
    SerializationError,
)
from dflow.messages import Ref
from dflow.testing import ScriptedRunner
from tests.attempts.shapes import Box, Guarded, Model
from tests.engine.far import FarRunner
from tests.engine.world import World, named, start

pytestmark = pytest.mark.usefixtures("world")


@task
def step(x: Any = 0) -> Any:
    """Return what came."""
    return x


@task
def failing(x: Any = 0) -> Any:
    """Fail."""
    raise ValueError(f"bad {x}")


class Stubborn(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@task
def stubborn() -> None:
    """Fail with what cannot travel."""
    raise Stubborn("cannot travel")


@task
def describe(x: Any) -> str:
    """Return what came, in words."""
    return repr(x)


def run(body: Callable[[], Any], **options: Any) -> Any:
    """Run a body as a flow."""
    return flow(**options)(body)()


# allow_failure ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [describe, lambda x: describe.submit(x).result()])
def test_a_failure_is_given_in_the_place_of_the_value(call: Callable[[Any], str]) -> None:
    """Of one future, of those in containers and lists of them; a value that is there is given itself."""

    def body() -> Any:
        good, bad = step.submit(1), failing.submit(2)
        return [
            call(allow_failure(bad)),
            call(allow_failure(good)),
            call(allow_failure([good, {"a": bad}])),
            call([allow_failure(bad), good]),
            call(allow_failure(failing.map([3, 4]))),
            call(unmapped(allow_failure(bad))),
            call(allow_failure(unmapped(bad))),
            call(allow_failure(opaque(bad))),
            call(allow_failure(bad.state)),
            call({"a": allow_failure([bad.state, good.state])}),
        ]

    bad = "ValueError('bad 2')"
    assert run(body) == [
        bad,
        "1",
        f"[1, {{'a': {bad}}}]",
        f"[{bad}, 1]",
        "[ValueError('bad 3'), ValueError('bad 4')]",
        bad,
        bad,
        bad,
        bad,
        f"{{'a': [{bad}, 1]}}",
    ]


def test_what_failed_upstream_of_a_failure_is_told() -> None:
    """The exception is that of the root, with a note that names the chain."""

    @task
    def notes(error: Any) -> list[str]:
        return list(error.__notes__)

    assert run(lambda: notes(allow_failure(step.submit(failing.submit())))) == [
        "'step-0' did not run. Something upstream failed: step-0 ← failing-0"
    ]


def test_it_waits_for_the_end(runner: ScriptedRunner, world: World) -> None:
    """The task run goes when the other has ended, and gets an exception for every way to fail."""
    rash = step.with_options(max_worker_losses=0)

    def body() -> Any:
        sources = [rash.submit("crashed"), rash.submit("cancelled"), rash.submit("failed")]
        return [step.submit(allow_failure(source)) for source in sources]

    running = start(body, runner)
    crashed, cancelled, failed = runner.expect(3)
    world.settle()
    assert len(runner.works) == 3
    runner.start(crashed)
    runner.lose(crashed)
    got = [runner.expect(4)[3]]
    runner.fail(failed, KeyError("k"))
    got.append(runner.expect(5)[4])
    world.session.in_tracker(
        lambda ledger: ledger.closing.give_up([cancelled.info.task_run_id], 1.0)
    )
    got.append(runner.expect(6)[5])
    given = [next(iter(work.inputs.values())).value.exception() for work in got]  # type: ignore[union-attr]
    assert [type(error) for error in given] == [CrashedError, KeyError, CancelledError]
    assert "'step-0' has ended as Crashed" in str(given[0])
    for work in got:
        runner.succeed(work, 1)
    assert running.result() == [1, 1, 1]


def test_the_value_of_what_completed_is_where_it_was_made(runner: ScriptedRunner) -> None:
    """It does not pass through the driver."""
    running = start(lambda: step.submit(allow_failure(step.submit(1))).result(), runner)
    first = runner.expect(1)[0]
    runner.succeed(first, "large", kept=False)
    second = runner.expect(2)[1]
    ((name, given),) = second.inputs.items()
    assert name == first.info.task_run_id
    assert given.key == first.info.key  # type: ignore[union-attr]
    runner.succeed(second, 2)
    assert running.result() == 2


def test_a_value_that_is_needed_must_come() -> None:
    """Allowed in one place and needed in another, a failure is one."""
    with pytest.raises(ValueError, match="bad"):
        run(lambda: (lambda bad: step([allow_failure(bad), bad]))(failing.submit()))


def test_calls_that_allow_failure_are_not_those_that_do_not() -> None:
    """Their task runs are told apart in every pass, in whatever order they are asked for."""
    plain, allowing = (Children("p").identify("a", Ref("x", may)) for may in (False, True))
    assert plain[0] != allowing[0]


@pytest.mark.parametrize("call", [step, lambda x, **more: step.submit(x, **more).result()])
def test_wait_for_what_may_fail(call: Callable[..., Any]) -> None:
    """Its end is waited for."""

    def body() -> Any:
        bad = failing.submit()
        assert call(1, wait_for=[allow_failure(bad)]) == 1
        assert call(1, wait_for=allow_failure([bad, bad.state])) == 1
        with pytest.raises(ValueError, match="bad"):
            call(1, wait_for=[bad])
        with pytest.raises(ValueError, match="bad"):
            call(1, wait_for=[bad.state])
        return call(2, wait_for=[step.submit(1).state, step.map([])])

    assert run(body) == 2


def test_a_subflow_gets_values_and_failures() -> None:
    """Arguments of flows are resolved as those of tasks are."""

    @flow
    def inner(x: Any) -> str:
        return repr(x)

    def body() -> Any:
        good, bad = step.submit(1), failing.submit()
        hidden = [good]
        return [
            inner([good, allow_failure(bad), good.state]),
            inner(allow_failure([bad])),
            inner(quote(hidden)) == repr(hidden),
            inner(unmapped(good)),
            inner(1, wait_for=[allow_failure(bad), good.state]),
        ]

    expected = "[1, ValueError('bad 0'), 1]"
    assert run(body) == [expected, "[ValueError('bad 0')]", True, "1", "1"]


def test_a_failure_of_another_run_is_given_too() -> None:
    """Futures of work outside of flows, in a list and alone, with an exception that cannot travel."""
    kept = [stubborn.submit(), step.submit(5)]

    def body() -> Any:
        return describe.submit(allow_failure(kept)).result(), describe(allow_failure(kept[0]))

    assert run(body) == ("[Stubborn('cannot travel'), 5]", "Stubborn('cannot travel')")
    far, _ = run(body, task_runner=FarRunner())
    assert far.startswith("[TaskFailedError(\"'stubborn-0' raised")
    assert far.endswith(", 5]")
    with pytest.raises(Stubborn):
        run(lambda: describe(kept[0]))


@task
def nested_far() -> list[str]:
    """Let children fail, and give their failures to others."""
    bad, worse, good = failing.submit(1), stubborn.submit(), step.submit(2)
    return [
        describe(allow_failure([bad, worse, good])),
        describe.submit(allow_failure(bad)).result(),
        describe.submit(allow_failure(worse)).result()[:15],
        *describe.map(allow_failure([bad, good])).result(),
        describe(1, wait_for=[allow_failure(bad), good]),
        describe(allow_failure(bad.state)),
    ]


def test_failures_among_nested_task_runs_far_away() -> None:
    """On a worker, called directly and submitted, whether the exceptions can be pickled or not."""
    found = run(lambda: nested_far.submit().result(), task_runner=FarRunner())
    assert found[0].startswith("[ValueError('bad 1'), TaskFailedError(")
    assert found[0].endswith(", 2]")
    assert found[1:] == [
        "ValueError('bad 1')",
        "TaskFailedError",
        "ValueError('bad 1')",
        "2",
        "1",
        "ValueError('bad 1')",
    ]


def test_a_lost_value_is_given_as_such(runner: ScriptedRunner, world: World) -> None:
    """What has completed and is gone does not stop one that allows it."""
    kept: list[Any] = []

    def body() -> Any:
        kept.append(step.submit(1))
        kept[0].wait()
        return step.submit(allow_failure(kept[0])).result()

    running = start(body, runner)
    first = runner.expect(1)[0]
    runner.succeed(first, "large", kept=False)
    second = runner.expect(2)[1]
    runner.report(lost(first))
    runner.void(second)
    third = runner.expect(3)[2]
    (given,) = third.inputs.values()
    assert isinstance(given.value.exception(), MissingResult)  # type: ignore[union-attr]
    runner.succeed(third, 3)
    assert running.result() == 3
    assert world.task_runs()["step-0"].held is Held.LOST


def lost(work: Any) -> Any:
    """Return the news that a value is gone."""
    from dflow.core.events import ResultLost

    run_id, dispatch = work.info.key
    return ResultLost(at=1.0, task_run_id=run_id, dispatch=dispatch)


def test_after_a_resume_failures_are_given_again() -> None:
    """What failed runs again, and what it is given to sees the new exception."""
    tries: list[str] = []

    @task
    def fails_each_time() -> None:
        tries.append("x")
        raise ValueError(f"try {len(tries)}")

    @task
    def taker(error: Any) -> str:
        if len(tries) == 1:
            raise KeyboardInterrupt
        return str(error)

    @flow
    def main() -> str:
        return taker(allow_failure(fails_each_time.submit()))

    with pytest.raises(KeyboardInterrupt):
        main()
    assert main.resume("latest") == "try 2"


# quote and opaque -------------------------------------------------------------------------------------


def test_what_is_quoted_is_not_looked_into() -> None:
    """The task gets the very object, with the futures in it, however deep the quote stands."""

    def body() -> None:
        future = step.submit(1)
        hidden = [future]
        hidden.append(hidden)  # type: ignore[arg-type]
        for call in (step, lambda x: step.submit(x).result()):
            assert call(quote(hidden)) is hidden
            assert call({"a": [quote(hidden)], "b": future})["a"][0] is hidden
            assert call(opaque(hidden)) is hidden
            assert call(quote(quote(unmapped(hidden)))) is hidden
            assert call(allow_failure(quote(hidden))) is hidden
            assert call(quote(future)) is future

    run(body)


def test_what_is_opaque_is_resolved_itself() -> None:
    """A future or a state becomes its value, which is not searched; a failure is one."""

    def body() -> None:
        future = step.submit([1])
        for call in (step, lambda x: step.submit(x).result()):
            assert call(opaque(future)) == [1]
            assert call([opaque(future.state)]) == [[1]]
            assert call(opaque([future])) == [future]
            with pytest.raises(ValueError, match="bad"):
                call(opaque(failing.submit()))

    run(body)


def test_annotations_are_constant_in_maps() -> None:
    """Quoted, opaque and unmapped arguments are the same for each item; items may be annotated."""

    @task
    def pair(x: Any, y: Any) -> Any:
        return x, y

    def body() -> None:
        future, bad = step.submit([7]), failing.submit()
        hidden = [future]
        assert pair.map([1, 2], quote(hidden)).result() == [(1, hidden), (2, hidden)]
        assert pair.map([1], opaque(hidden)).result() == [(1, hidden)]
        assert pair.map([1], opaque(future)).result() == [(1, [7])]
        assert pair.map([1], unmapped(quote(hidden))).result() == [(1, hidden)]
        ((_, error),) = pair.map([1], unmapped(allow_failure(bad))).result()
        assert isinstance(error, ValueError)
        mixed = pair.map(allow_failure([bad, future]), [quote(hidden), 2]).result()
        assert repr(mixed[0][0]) == "ValueError('bad 0')"
        assert mixed[0][1] is hidden
        assert mixed[1] == ([7], 2)

    run(body)


def test_a_quoted_future_cannot_travel() -> None:
    """Elsewhere it would be nothing; the error names the argument."""
    with pytest.raises(SerializationError, match=r"argument 'x'\[0\] of task 'step' cannot travel"):
        run(lambda: step.submit(quote([step.submit(1)])), task_runner=FarRunner())


def test_annotations_show_what_they_hold() -> None:
    """They can be looked into."""
    assert repr(allow_failure([1])) == "allow_failure([1])"
    assert [kind(5).value for kind in (allow_failure, quote, opaque, unmapped)] == [5] * 4


# States -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [step, lambda x: step.submit(x).result()])
def test_states_stand_for_their_values(call: Callable[[Any], Any]) -> None:
    """A failed one raises at the call, one that is not final says so."""

    def body() -> Any:
        state = step.submit(4, return_state=True)
        with pytest.raises(ValueError, match="bad"):
            call([failing.submit(return_state=True)])
        with pytest.raises(MissingResult, match="has no result"):
            call(State(state.type.PENDING, "Pending"))
        return call([state, {"a": state}]), step.map(
            step.submit([1, 2], return_state=True)
        ).result()

    assert run(body) == ([4, {"a": 4}], [1, 2])


# Containers -------------------------------------------------------------------------------------------


def test_futures_are_found_wherever_they_are() -> None:
    """In every container, in keys, in private attributes; the user's own objects stay as they are."""

    def body() -> None:
        future = step.submit(1)
        box, guarded, model = Box([future]), Guarded.of(future), Model(content={"a": future})
        for call in (step, lambda x: step.submit(x).result()):
            assert call({future: deque([future], 2)}) == {1: deque([1])}
            assert call(box) == Box([1])
            assert call(guarded)._secret == 1
            assert call(model) == Model(content={"a": 1})
            assert call({future, 2}) == {1, 2}
        assert box.content[0] is guarded._secret is model.content["a"] is future

    run(body)


def test_what_contains_itself_is_refused() -> None:
    """The error says what to do; quoted it is taken."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(ParameterError, match=r"contains itself.*quote"):
        run(lambda: step.submit(cycle))
    assert run(lambda: step(quote(cycle)) is cycle)


def test_objects_of_other_classes_are_not_searched() -> None:
    """What is in an object of the user's own class stays there."""

    class Own:
        def __init__(self, held: Any) -> None:
            self.held = held

    def body() -> bool:
        future = step.submit(1)
        return bool(step(Own(future)).held is future)

    assert run(body)


FAR: list[FarRunner] = []


@task
def waits_only() -> Any:
    """Wait for a child whose value is gone."""
    waited = step.submit(bytes(100_000))
    waited.wait()
    FAR[-1].release([key for key in list(FAR[-1]._values) if key[0] == waited.task_run_id])
    return step(1, wait_for=[waited])


def test_only_values_that_are_taken_are_fetched(world: World) -> None:
    """On a worker too: of what ``wait_for`` names a child gets nothing."""
    FAR.append(FarRunner())
    assert run(lambda: waits_only.submit().result(), task_runner=FAR[-1]) == 1
    assert set(world.states().values()) == {"Completed"}


def test_failures_are_given_to_items_one_by_one(runner: ScriptedRunner) -> None:
    """Each item of a map that allows failure goes when its own upstream has ended."""
    running = start(lambda: step.map(allow_failure(step.map([1, 2]))).result(), runner)
    one, two = runner.expect(2)
    runner.fail(two, ValueError("no"))
    third = runner.expect(3)[2]
    assert third.info.task_run_name == "step-3"
    runner.succeed(one, 1)
    works = named(runner.expect(4))
    runner.succeed(works["step-2"], "one")
    runner.succeed(works["step-3"], "two")
    assert running.result() == ["one", "two"]
