"""What a task run is named by."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow import flow, task, unmapped
from dflow.attempts.context import current
from dflow.engine.context import current_scope
from dflow.engine.identity import Children, known_as
from dflow.engine.scope import Scope
from tests.engine.world import World, one_parent

pytestmark = pytest.mark.usefixtures("world")

calls = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=12)


def ids(children: Children, made: list[tuple[str, Any]]) -> list[str]:
    """Return the ids of some calls."""
    return [children.identify(name, inputs)[0] for name, inputs in made]


@given(calls, st.randoms(use_true_random=False))
def test_the_order_of_calls_plays_no_part(made: list[tuple[str, int]], luck: Any) -> None:
    """Whatever the order, the same calls have the same ids, all different."""
    shuffled = luck.sample(made, len(made))
    first = ids(Children("p"), made)
    assert sorted(first) == sorted(ids(Children("p"), shuffled))
    assert len(set(first)) == len(made)


def test_the_kth_call_with_the_same_inputs_is_its_own() -> None:
    """Repeated calls are told apart by their number; in the next pass they are found again."""
    one, two = Children("p"), Children("p")
    made = [("a", 1)] * 30
    assert len(set(ids(one, made))) == 30
    assert ids(Children("p"), made) == ids(two, made)
    mixed = [("a", x % 3) for x in range(90)]
    assert set(ids(Children("p"), made)) <= set(ids(Children("p"), mixed))


def test_parent_name_and_inputs_all_count() -> None:
    """No two of them are mistaken for each other."""
    found = [
        Children(parent).identify(name, inputs)[0]
        for parent, name, inputs in (
            ("p", "a", 1), ("q", "a", 1), ("p", "b", 1), ("p", "a", 2), ("pa", "", 1), ("", "pa", 1),
        )
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert all(len(i) == 32 and int(i, 16) >= 0 for i in found)


def test_names_count_the_calls_of_a_task() -> None:
    """They are for people: the task's name, and a number from 0."""
    children = Children("p")
    assert [children.identify(n, 0)[1] for n in "aba"] == ["a-0", "b-0", "a-1"]


def test_inputs_without_a_fingerprint_go_by_their_position() -> None:
    """They are found again as long as the calls before them came in the same order, and not otherwise."""
    thing = [("a", 1), ("b", object()), ("a", 2), ("b", object())]
    same = [("a", 1), ("b", object()), ("a", 2), ("b", object())]
    other = [("a", 2), ("b", object()), ("a", 1), ("b", object())]
    first, again, moved = (ids(Children("p"), made) for made in (thing, same, other))
    assert first == again
    assert first[0] == moved[2]
    assert first[1] != moved[1]
    assert first[3] != moved[3]
    assert len(set(first)) == 4


class Model:
    """What has no fingerprint, and a content."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


def test_objects_go_by_what_is_in_them() -> None:
    """Whatever was called before, in whatever order: others are never mistaken for them."""
    made = [("a", 1), ("b", Model(1)), ("a", 2), ("b", Model(2)), ("b", lambda x: x)]
    moved = [made[4], ("b", Model(2)), ("a", 1), ("b", Model(1)), ("a", 2)]
    first, second = ids(Children("p"), made), ids(Children("p"), moved)
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 5
    assert first[1] == second[3]
    assert ids(Children("p"), [("b", Model(3))])[0] not in first


def test_values_that_were_given_are_part_of_the_position() -> None:
    """What follows from the one that came first is not taken for what follows from another."""

    def after(task_run_id: str) -> str:
        children = Children("p")
        children.identify("a", 1)
        children.saw(task_run_id)
        return children.identify("b", threading.Lock())[0]

    assert after("one") == after("one") != after("other")


def test_threads_get_ids_of_their_own() -> None:
    """Calls at the same time do not get one id, and none is left out."""
    children = Children("p")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: children.identify("a", 0)[0], range(400)))
    assert sorted(found) == sorted(ids(Children("p"), [("a", 0)] * 400))


@task
def step(*args: Any, **kwargs: Any) -> Any:
    """Return what came."""
    return args, kwargs


@task
def add(x: Any, y: Any = 0) -> Any:
    """Return the first, whatever the second."""
    return x if y is not None else y


def test_how_arguments_are_written_plays_no_part(world: World) -> None:
    """By position or by name they are the same inputs: three calls in a row are one call, repeated."""

    @flow
    def main() -> None:
        add(1, 2)
        add.submit(x=1, y=2)
        add.submit(1, y=2)

    main()
    children = Children(world.flow_runs()[0].id)
    inputs = ((), {"x": 1, "y": 2})
    expected = [children.identify("add", inputs, add._known_as)[0] for _ in range(3)]
    assert [run.id for run in world.reader().task_runs()] == expected


def test_a_future_counts_by_who_makes_it() -> None:
    """Two calls with futures of different task runs differ though their values are equal."""

    @flow
    def main() -> bool:
        one, two = add.submit(1, 1), add.submit(1, 2)
        return add.submit(one).task_run_id != add.submit(two).task_run_id

    assert main()


def test_the_items_of_a_map_are_found_in_whatever_order_things_come() -> None:
    """What came before plays no part, what is the same for all does; equal items are told apart."""

    @flow
    def main(before: list[int], y: int, late: bool) -> list[str]:
        for value in before:
            add.submit(value).result()
        numbers = listed.submit([5, 6, 6]) if late else [5, 6, 6]
        return [future.task_run_id for future in add.map(numbers, y=unmapped(y))]

    @task
    def listed(numbers: list[int]) -> list[int]:
        return numbers

    def made(*given: Any) -> list[str]:
        with one_parent("p"):
            return main(*given)

    for late in (False, True):
        first = made([1, 2], 0, late)
        assert first == made([2, 1], 0, late)
        assert first == made([3], 0, late)
        assert set(first).isdisjoint(made([1, 2], 1, late))
        assert len(set(first)) == 3


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_all_threads_of_a_body_count_together() -> None:
    """Threads of a task that ask for the first time, all at once, get one scope."""
    together = threading.Barrier(8)

    @task
    def calling() -> int:
        def ask() -> Scope:
            together.wait(10)
            return current_scope()

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(contextvars.copy_context().run, ask) for _ in range(8)]
            scopes = [call.result() for call in asked]
            return len({id(scope) for scope in scopes})

    assert flow(lambda: [calling() for _ in range(20)])() == [1] * 20


def test_children_of_a_task_are_under_it(world: World) -> None:
    """What a task asks for has the task run as its parent, and is found again when the task is retried."""
    tries: list[str] = []

    @task(retries=1)
    def parent() -> Any:
        context = current()
        assert context is not None
        child = add.submit(5)
        tries.append(child.task_run_id)
        if len(tries) == 1:
            raise ValueError("again")
        return child.result()

    assert flow(parent)() == 5
    assert tries[0] == tries[1]
    runs = world.task_runs()
    assert runs["add-0"].parent_id == runs["parent-0"].id
    assert runs["add-0"].generation == 1


@pytest.mark.parametrize("value", [lambda: 0, object(), threading.Lock()])
def test_anything_may_be_an_argument(value: Any) -> None:
    """What has no fingerprint is no error."""
    assert flow(lambda: add(value) is value)()


def test_what_is_known_counts_beside_what_is_not() -> None:
    """With a lock among them, calls in another order are still told apart by their other arguments."""
    lock = threading.Lock()
    made = [("a", ((lock,), {"x": x})) for x in range(3)]
    first = ids(Children("p"), made)
    swapped = ids(Children("p"), [made[2], made[1], made[0]])
    assert set(first).isdisjoint(swapped)
    assert first == ids(Children("p"), made)


def test_an_iterator_is_never_taken_for_another() -> None:
    """What it will give is not known: in the next pass it is a call of its own."""

    def numbers() -> Iterator[int]:
        yield 1

    first, again, later = (
        ids(Children("p", execution), [("a", ((numbers(),), {}))]) for execution in ("1", "1", "2")
    )
    assert first == again != later


def test_tasks_made_by_a_factory_are_told_apart() -> None:
    """By the data that their functions close over, in whatever order they are called."""

    def made(number: int) -> Any:
        @task
        def inner(x: int) -> Any:
            return number, x

        return inner

    def named(numbers: list[int]) -> dict[int, str]:
        children = Children("p")
        return {n: children.identify("inner", 0, made(n)._known_as)[0] for n in numbers}

    first, again = named([1, 2, 3]), named([3, 1, 2])
    assert first == again
    assert len(set(first.values())) == 3


def test_functions_of_one_name_in_two_places_are_told_apart() -> None:
    """The module and the place in it count, as do the arguments of a partial."""

    def one(number: int = 0) -> None: ...

    def other() -> None: ...

    functions = [one, other, partial(one, 1), partial(one, 2), Children("p").identify]
    found = {Children("p").identify("a", 0, known_as(each))[0] for each in functions}
    assert len(found) == len(functions)


def test_threads_that_ask_at_once_know_a_function_alike() -> None:
    """Who asks while another one still looks at what a function closes over waits for what that finds."""
    looked, go_on = threading.Event(), threading.Event()

    class Slow:
        @property
        def function(self) -> int:
            looked.set()
            assert go_on.wait(20)
            return 7

    held = Slow()

    def body() -> Any:
        return held

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(known_as, body)
        assert looked.wait(20)
        second = pool.submit(known_as, body)
        wait([second], timeout=0.3)
        go_on.set()
        assert first.result() == second.result() == known_as(body)
