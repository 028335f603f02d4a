"""Maps over lists that do not exist yet: nobody waits for them who does not look."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dflow import TaskFutureList, allow_failure, as_completed, flow, task, testing, unmapped
from dflow.core import events as ev
from dflow.errors import CancelledError, JournalUnavailable, ParameterError
from dflow.messages import Work
from dflow.testing import ScriptedRunner
from tests.engine.far import FarRunner
from tests.engine.world import World, named, start

pytestmark = pytest.mark.usefixtures("world")


@task
def numbers(count: int) -> list[int]:
    """Return a list."""
    return list(range(count))


@task
def give(x: Any) -> Any:
    """Return what came."""
    return x


@task
def pair(x: Any, y: Any = None) -> Any:
    """Return what came."""
    return x, y


@task
def failing(x: Any = 0) -> Any:
    """Fail."""
    raise ValueError(f"bad {x}")


def run(body: Callable[[], Any], **options: Any) -> Any:
    """Run a body as a flow."""
    return flow(**options)(body)()


class Played:
    """A flow whose runner computes what the test lets go on."""

    def __init__(self, body: Callable[[], Any]) -> None:
        self.runner = ScriptedRunner()
        self.flow = start(body, self.runner)

    def expect(self, name: str) -> Work:
        """Return the dispatch of a task run, once it is there."""
        assert self.runner.until(lambda: name in named(self.runner.works)), name
        return named(self.runner.works)[name]

    def let(self, name: str, value: Any) -> None:
        """Let a task run return a value."""
        self.runner.succeed(self.expect(name), value)


# Without waiting --------------------------------------------------------------------------------------


def test_a_map_over_a_future_returns_at_once() -> None:
    """Its items come to be when the list is there; looking at them waits for it."""
    made = threading.Event()

    def body() -> Any:
        mapped = pair.map(numbers.submit(2), ["a", "b"])
        assert repr(mapped) == "TaskFutureList(…)"
        made.set()
        return len(mapped), mapped.result()

    play = Played(body)
    play.expect("numbers-0")
    assert made.wait(10)
    assert len(play.runner.works) == 1
    play.let("numbers-0", [0, 1])
    play.let("pair-0", "first")
    play.let("pair-1", "second")
    assert play.flow.result() == (2, ["first", "second"])


def test_maps_over_maps_over_futures_do_not_wait_either() -> None:
    """Nor do maps that have such a map as a constant, or wait for it; together or alone."""
    made = threading.Event()

    def body() -> Any:
        one, other = numbers.submit(1), numbers.submit(2)
        first = pair.map(one)
        second = pair.map(first, other)
        third = pair.map([5], unmapped(second))
        fourth = pair.map([6], wait_for=[third])
        made.set()
        return fourth.result()

    play = Played(body)
    play.expect("numbers-1")
    assert made.wait(10)
    play.let("numbers-1", [7])
    play.let("numbers-0", [0])
    play.let("pair-0", "a")
    play.let("pair-1", "b")
    third = play.expect("pair-2")
    assert len(third.inputs) == 1
    play.let("pair-2", "c")
    play.let("pair-3", "d")
    assert play.flow.result() == ["d"]


def test_no_thread_sits_waiting() -> None:
    """However many maps wait for a list."""

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "dflow-map"]

    def body() -> list[Any]:
        source = numbers.submit(1)
        maps = [pair.map(source, [n]) for n in range(100)]
        counted.append(len(threads()))
        made.set()
        return [len(mapped) for mapped in maps]

    counted: list[int] = []
    made = threading.Event()
    play = Played(body)
    assert made.wait(10)
    play.let("numbers-0", [1])
    for number in range(100):
        play.let(f"pair-{number}", number)
    assert play.flow.result() == [1] * 100
    assert counted == [0]


def test_a_list_that_is_there_is_taken_at_once() -> None:
    """On a runner that runs bodies in the caller's thread everything happens in its order."""
    threads: list[str] = []

    @task
    def where(x: int) -> int:
        threads.append(threading.current_thread().name)
        return x

    def body() -> Any:
        mapped = where.map(numbers.submit(2))
        assert len(threads) == 2
        return mapped.result()

    assert run(body) == [0, 1]
    assert set(threads) == {threading.current_thread().name}


# What is mapped ---------------------------------------------------------------------------------------

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")
SEEN: list[tuple[str, str]] = []


class Watched:
    """Something iterable that notes where it is iterated over."""

    def __iter__(self) -> Iterator[int]:
        """Yield two numbers."""
        SEEN.append((WORD.get(), threading.current_thread().name))
        return iter([1, 2])


def test_expansion_has_the_callers_context() -> None:
    """User code that it calls sees the caller's context variables, and is never the tracker's."""

    def body() -> Any:
        WORD.set("the caller's")
        mapped = pair.map(numbers.submit(2))
        WORD.set("another")
        return mapped.result()

    SEEN.clear()
    play = Played(body)
    play.let("numbers-0", Watched())
    play.let("pair-0", 1)
    play.let("pair-1", 2)
    assert play.flow.result() == [1, 2]
    assert SEEN == [("the caller's", "dflow-map")]


def test_other_lists_are_taken_as_they_were() -> None:
    """What is done with a list after the call changes nothing, and a generator is read at once."""

    def noted(read: list[int]) -> Iterator[int]:
        for number in (1, 2):
            read.append(number)
            yield number

    def body() -> Any:
        own, read = [1, 2], list[int]()
        mapped = pair.map(own, numbers.submit(2))
        pair.map(numbers.submit(2), noted(read))
        own.clear()
        return len(read), len(mapped)

    play = Played(body)
    play.expect("numbers-1")
    play.let("numbers-0", [3, 4])
    play.let("numbers-1", [3, 4])
    for number in range(4):
        play.let(f"pair-{number}", number)
    assert play.flow.result() == (2, 2)


@pytest.mark.parametrize("value", ["text", {"a": 1}, 5, None])
def test_a_value_that_is_no_list_is_the_same_for_all(value: Any) -> None:
    """As it would be if it stood there itself; alone it is nothing to map over."""

    def body() -> Any:
        source = give.submit(value)
        with pytest.raises(ParameterError, match="nothing to map over"):
            pair.map(source).result()
        return pair.map([1, 2], source).result()

    assert run(body) == [(1, value), (2, value)]


def test_an_empty_list_makes_an_empty_map(world: World) -> None:
    """And no task runs."""
    assert run(lambda: pair.map(numbers.submit(0)).result()) == []
    assert set(world.states()) == {"numbers-0"}


def test_states_can_be_asked_for() -> None:
    """``return_state`` waits for the list and for all that comes of it."""
    play = Played(lambda: [s.name for s in pair.map(numbers.submit(1), return_state=True)])
    play.let("numbers-0", [1])
    play.let("pair-0", 1)
    assert play.flow.result() == ["Completed"]


def test_a_late_map_has_its_limit() -> None:
    """``max_in_flight`` holds for it as for any other."""
    play = Played(lambda: pair.map(numbers.submit(2), max_in_flight=1).result())
    play.let("numbers-0", [1, 2])
    play.expect("pair-0")
    assert "pair-1" not in named(play.runner.works)
    play.let("pair-0", 1)
    play.let("pair-1", 2)
    assert play.flow.result() == [1, 2]


# Failures ---------------------------------------------------------------------------------------------


def looks() -> dict[str, Callable[[TaskFutureList[Any]], Any]]:
    """Return the ways to look at the items of a list."""
    return {
        "result": lambda mapped: mapped.result(),
        "result in any case": lambda mapped: mapped.result(raise_on_failure=False),
        "states": lambda mapped: mapped.states,
        "len": len,
        "index": lambda mapped: mapped[0],
        "iteration": list,
        "argument": pair.submit,
        "wait_for": lambda mapped: pair.submit(1, wait_for=mapped),
        "as_completed": lambda mapped: list(as_completed(mapped)),
        "map": lambda mapped: pair.map(mapped).result(),
        "returned": lambda mapped: flow(lambda: mapped)(),
    }


@pytest.mark.parametrize("look", looks())
@pytest.mark.parametrize("late", [True, False])
def test_the_failure_of_the_list_is_raised_where_the_items_are_needed(
    look: str, late: bool
) -> None:
    """Whether it had failed already or not; to wait never raises."""
    fails = failing if not late else failing.with_options(retries=1)

    def body() -> None:
        mapped = pair.map(fails.submit())
        mapped.wait()
        with pytest.raises(ValueError, match="bad 0"):
            looks()[look](mapped)
        assert "bad 0" in repr(mapped)

    run(body, task_runner="threads" if late else "inline")


def test_what_may_fail_is_no_list_then(world: World) -> None:
    """Beside a list its exception is the same for all; alone it is raised."""

    def body() -> Any:
        bad, good = failing.submit(), numbers.submit(2)
        with pytest.raises(ValueError, match="bad 0"):
            pair.map(allow_failure(bad)).result()
        with pytest.raises(ValueError, match="bad 0"):
            pair.map(allow_failure(pair.map(bad))).result()
        both = pair.map(allow_failure(good), allow_failure(bad)).result()
        none = pair.map([1], unmapped(allow_failure(pair.map(bad)))).result()
        return repr(both), repr(none), repr(pair(allow_failure(pair.map(bad))))

    bad = "ValueError('bad 0')"
    assert run(body) == (f"[(0, {bad}), (1, {bad})]", f"[(1, {bad})]", f"({bad}, None)")
    assert world.lines() == []


def test_lengths_that_do_not_agree_are_told(world: World) -> None:
    """By the list, and in the log, for nobody may ever look at the list; of two that are there at once."""

    def body() -> None:
        mapped = pair.map([1], numbers.submit(2))
        mapped.wait()
        with pytest.raises(ParameterError, match="'x' has 1, 'y' has 2"):
            mapped.result()

    run(body)
    (line,) = world.lines()
    assert line.startswith("A map of 'pair' could not be made: 'pair.map' got lists of different")


# The end of bodies ------------------------------------------------------------------------------------


def test_a_flow_does_not_end_before_its_maps(world: World) -> None:
    """Though nobody looks at them."""

    def body() -> str:
        pair.map(pair.map(numbers.submit(1)))
        return "value"

    play = Played(body)
    play.expect("numbers-0")
    world.settle()
    assert not play.flow.done()
    play.let("numbers-0", [1])
    play.let("pair-0", 1)
    play.let("pair-1", 2)
    assert play.flow.result() == "value"
    assert set(world.states().values()) == {"Completed"}


def test_maps_of_a_body_that_raised_are_not_made(world: World) -> None:
    """What comes after is not begun, and the list says so."""
    kept: list[TaskFutureList[Any]] = []

    def body() -> None:
        kept.append(pair.map(numbers.submit(1)))
        raise OSError("broken")

    play = Played(body)
    with pytest.raises(OSError, match="broken"):
        play.flow.result()
    kept[0].wait()
    with pytest.raises(CancelledError):
        kept[0].result()
    assert world.states() == {"numbers-0": "Cancelled"}


def test_a_list_that_comes_after_the_body_raised_is_not_mapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within the time that running bodies are given to stop."""
    monkeypatch.setenv("DFLOW_STOP_GRACE", "30")
    kept: list[TaskFutureList[Any]] = []

    def body() -> None:
        source = numbers.submit(1)
        kept.append(pair.map(source))
        running.wait(10)
        raise OSError("broken")

    running = threading.Event()
    with testing.in_memory() as shared:
        play = Played(body)
        work = play.expect("numbers-0")
        play.runner.start(work)
        running.set()
        assert play.runner.until(lambda: bool(play.runner.stopped))
        play.runner.succeed(work, [1])
        with pytest.raises(OSError, match="broken"):
            play.flow.result()
        with pytest.raises(CancelledError, match="has failed"):
            kept[0].result()
        reader = shared.journal.read(shared.journal.catalog.find("latest").id)
        states = {run.name: run.state_name for run in reader.task_runs()}
    assert states == {"numbers-0": "Completed"}


def test_a_flow_that_returns_a_late_map_returns_its_values() -> None:
    """As of any map; a list that failed makes the flow fail."""
    play = Played(lambda: {"a": pair.map(numbers.submit(1))})
    play.let("numbers-0", [1])
    play.let("pair-0", "x")
    assert play.flow.result() == {"a": ["x"]}
    with pytest.raises(ValueError, match="bad"):
        run(lambda: pair.map(failing.submit()))


@task
def maps_and_forgets(count: int) -> str:
    """Map over the future of a list, and look at nothing."""
    pair.map(numbers.submit(count))
    return "value"


@task
def maps_and_looks(count: int) -> Any:
    """Map over what is still to come, twice."""
    mapped = pair.map(numbers.submit(count))
    return pair.map(mapped, unmapped("y")).result()


@task
def maps_and_fails(count: int) -> None:
    """Map over a list that comes later than this raises."""
    pair.map(slowly.submit(count))
    raise OSError("broken")


GATE = threading.Event()


@task
def slowly(count: int) -> list[int]:
    """Return a list when it is time."""
    assert GATE.wait(10)
    return list(range(count))


def test_tasks_far_away_map_over_futures_too(world: World) -> None:
    """Nested, looked at or not: a task does not end before its maps."""

    def body() -> Any:
        return maps_and_forgets.submit(2).result(), maps_and_looks.submit(2).result()

    expected = [((0, None), "y"), ((1, None), "y")]
    assert run(body, task_runner=FarRunner()) == ("value", expected)
    made = world.events(ev.MapCreated)
    assert sorted(len(event.items) for event in made) == [2, 2, 2]


def test_maps_of_a_failed_task_are_not_made(world: World) -> None:
    """Its children that run already go on; nothing new comes of them."""
    GATE.clear()

    def body() -> str:
        failed = maps_and_fails.submit(2)
        failed.wait()
        GATE.set()
        return failed.state.name

    assert run(body, task_runner=FarRunner()) == "Failed"
    assert world.events(ev.MapCreated) == []


def test_when_the_driver_cannot_go_on_nobody_waits_for_ever(world: World) -> None:
    """Who looks at a map learns it."""
    kept: list[TaskFutureList[Any]] = []
    made = threading.Event()

    def body() -> Any:
        kept.append(pair.map(numbers.submit(1)))
        made.set()
        return kept[0].result()

    play = Played(body)
    play.expect("numbers-0")
    assert made.wait(10)
    world.session.tracker.fail(JournalUnavailable("no disk"))
    with pytest.raises(JournalUnavailable, match="no disk"):
        play.flow.result()


# Time limits, and the list as a list ------------------------------------------------------------------


def test_time_limits_hold_for_what_is_not_there_yet() -> None:
    """A list of which nothing is known is waited for no longer than one whose items run."""

    def body() -> Any:
        mapped = pair.map(numbers.submit(1))
        mapped.wait(0.01)
        with pytest.raises(TimeoutError, match=r"mapped over has not ended within 0\.01 sec"):
            mapped.result(0.01)
        looked.set()
        len(mapped)
        with pytest.raises(TimeoutError, match="1 of 1 task runs have not ended"):
            mapped.result(0.01)
        tried.set()
        return mapped.result(10)

    looked, tried = threading.Event(), threading.Event()
    play = Played(body)
    assert looked.wait(10)
    play.let("numbers-0", [1])
    assert tried.wait(10)
    play.let("pair-0", "x")
    assert play.flow.result() == ["x"]


def test_the_futures_of_a_map_are_like_a_list() -> None:
    """They are counted, indexed, cut, compared, put together; and they are a sequence."""

    def body() -> None:
        mapped, other = pair.map([1, 2, 3]), pair.map([4])
        items = list(mapped)
        assert isinstance(mapped, Sequence)
        assert (len(mapped), mapped[0], mapped[-1]) == (3, items[0], items[2])
        assert isinstance(mapped[1:], TaskFutureList)
        assert mapped[1:] == items[1:]
        assert mapped == items
        assert items == mapped
        assert mapped != other
        assert mapped != tuple(items)
        assert items[1] in mapped
        assert other[0] not in mapped
        assert (mapped + other).result() == [(1, None), (2, None), (3, None), (4, None)]
        assert isinstance(mapped + items, TaskFutureList)
        assert items + mapped == items * 2
        assert (*mapped,) == tuple(items)
        assert list(reversed(mapped)) == items[::-1]
        assert mapped.index(items[1]) == 1
        assert repr(mapped).startswith("TaskFutureList([<TaskFuture 'pair-0' ")
        assert not pair.map([])
        with pytest.raises(TypeError):
            mapped + 5  # type: ignore[operator]
        with pytest.raises(TypeError, match="unhashable"):
            hash(mapped)

    run(body)


# Identity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [1, object()], ids=["known", "unknown"])
@pytest.mark.parametrize("order", [["numbers-0", "numbers-1"], ["numbers-1", "numbers-0"]])
def test_when_a_map_is_made_plays_no_part_in_its_identity(
    world: World, order: list[str], constant: Any
) -> None:
    """Lists that come later, in any order, and those that are there make the same task runs.

    Nor do they move what goes by its position: all is found again in the second pass.
    """
    called = threading.Event()
    passes: list[Any] = []

    def body() -> Any:
        first, second = numbers.submit(2), numbers.submit(3)
        if passes:
            first.wait()
            second.wait()
        one, other = pair.map(first, unmapped(constant)), pair.map(second, unmapped(constant))
        last = pair.submit(object())
        called.set()
        passes.append([one.result(), other.result(), last.result()])
        if len(passes) == 1:
            raise OSError("once more")
        return passes[-1]

    runner = ScriptedRunner()
    running = start(body, runner, retries=1)
    assert called.wait(10)
    runner.expect(3)
    for count, name in zip((5, 8) if order[0] == "numbers-0" else (6, 8), order, strict=True):
        runner.succeed(named(runner.works)[name], {"numbers-0": [0, 1]}.get(name, [5, 6, 7]))
        runner.expect(count)
    for name, work in named(runner.works).items():
        if name not in order:
            runner.succeed(work, name)
    assert running.result() == passes[0]
    assert len(passes) == 2
    assert len(world.task_runs()) == 8
    assert {run.generation for run in world.task_runs().values()} == {1}
