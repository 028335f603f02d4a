"""Tasks made of functions of every kind: their parameters and what their calls give."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn, TypeVar, assert_type

from dflow import (
    State,
    Task,
    TaskFuture,
    TaskFutureList,
    allow_failure,
    opaque,
    quote,
    task,
    unmapped,
)

T = TypeVar("T")

# Plain functions ---------------------------------------------------------------------------------------


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@task(name="sum", retries=2, tags=["cheap"])
def add_again(x: int, y: int = 1) -> int:
    return x + y


def called() -> None:
    """A call keeps the parameters and the result."""
    assert_type(add(1), int)
    assert_type(add(1, y=2), int)
    assert_type(add_again(1), int)
    assert_type(add.fn(1), int)
    assert_type(add.name, str)
    add(1, "x")  # error: call-overload, reportArgumentType
    add_again(1, "x")  # error: call-overload, reportArgumentType
    add()  # error: call-overload, reportCallIssue
    add(1, 2, 3)  # error: call-overload, reportCallIssue
    add(1, z=2)  # error: call-overload, reportCallIssue
    add.fn("x")  # error: arg-type, reportArgumentType
    text: str = add(1)  # error: assignment, reportAssignmentType
    print(text)


def called_with_words_of_dflow() -> None:
    """``return_state=True`` gives a State, ``wait_for=`` changes nothing; the arguments go unchecked then."""
    assert_type(add(1, return_state=True), State)
    assert_type(add(1, wait_for=[add.submit(1)]), int)
    assert_type(add(1, wait_for=[add.submit(1)], return_state=True), State)
    assert_type(add("x", return_state=True), State)


def submitted() -> None:
    """Arguments of submit may be futures of what the parameters take, so their types go unchecked."""
    future = add.submit(1)
    assert_type(future, TaskFuture[int])
    assert_type(add.submit(future, y=2), TaskFuture[int])
    assert_type(add.submit(future, wait_for=[future]), TaskFuture[int])
    assert_type(add.submit(allow_failure(future), quote(1)), TaskFuture[int])
    assert_type(add.submit(opaque(future)), TaskFuture[int])
    assert_type(add.submit(1, return_state=True), State)
    assert_type(add_again.submit(1), TaskFuture[int])


def mapped() -> None:
    """A map gives futures of the items."""
    futures = add.map([1, 2], unmapped(3))
    assert_type(futures, TaskFutureList[int])
    assert_type(add.map(futures, max_in_flight=2), TaskFutureList[int])
    assert_type(add.map([1, 2], return_state=True), list[State])


def with_hooks() -> None:
    """A hook that is added with a decorator stays the function that it is."""

    @add.on_completion
    def show(task: Task[..., Any], run: Any, state: State) -> int:
        return len(state.name)

    assert_type(show(add, None, add(1, return_state=True)), int)
    add.on_failure(5)  # error: type-var, reportArgumentType


def with_other_options() -> None:
    """Other options change no types."""
    assert_type(add.with_options(retries=3)(1), int)
    assert_type(add.with_options(retries=3).submit(1), TaskFuture[int])
    add.with_options(retries=3)("x")  # error: call-overload, reportArgumentType


def as_a_function() -> None:
    """A task goes wherever its function goes."""
    function: Callable[[int, int], int] = add
    other: Callable[[str], int] = add  # error: assignment, reportAssignmentType
    assert_type(ThreadPoolExecutor().submit(add, 1).result(), int)
    assert_type(list(map(add, [1, 2])), list[int])
    assert_type(partial(add, 1)(), int)
    print(function, other)


def general(anything: Task[..., object], numbers: Task[..., float]) -> None:
    """A task that gives more is one that gives less."""
    general(add, add)
    general(add, with_text)  # error: arg-type, reportArgumentType
    print(anything, numbers)


# Async functions, generators ---------------------------------------------------------------------------


@task
async def fetch(x: int) -> int:
    return x


@task(retries=1)
async def fetch_again(x: int) -> int:
    return x


@task
def count(x: int) -> Generator[int, None, str]:
    yield x
    return "end"


@task(retries=1)
def count_again(x: int) -> Iterator[int]:
    yield x


@task
async def stream(x: int) -> AsyncGenerator[int, None]:
    yield x


@task(retries=1)
async def stream_again(x: int) -> AsyncIterator[int]:
    yield x


async def called_async() -> None:
    """A call of an async task is awaited, that of a generator is iterated over."""
    assert_type(await fetch(1), int)
    assert_type(await fetch_again(1), int)
    assert_type(await fetch(1, return_state=True), State)
    assert_type(await fetch(1, wait_for=[fetch.submit(1)]), int)
    await fetch("x")  # error: call-overload, reportArgumentType
    fetch(1)  # error: unused-coroutine, reportUnusedCoroutine
    async for item in stream(1):
        assert_type(item, int)
    async for item in stream_again(1):
        assert_type(item, int)
    assert_type(await stream(1, return_state=True), State)
    stream("x")  # error: call-overload, reportArgumentType


def called_generators() -> None:
    """The items of a generator have their types."""
    assert_type(next(count(1)), int)
    assert_type(list(count_again(1)), list[int])
    assert_type(count(1, return_state=True), State)
    count("x")  # error: call-overload, reportArgumentType


def submitted_kinds() -> None:
    """A coroutine becomes its value, and the items of a generator a list."""
    assert_type(fetch.submit(1), TaskFuture[int])
    assert_type(count.submit(1), TaskFuture[list[int]])
    assert_type(count_again.submit(1), TaskFuture[list[int]])
    assert_type(stream.submit(1), TaskFuture[list[int]])
    assert_type(stream_again.submit(1), TaskFuture[list[int]])
    assert_type(fetch.submit(1, return_state=True), State)
    assert_type(fetch_again.map([1]), TaskFutureList[int])
    assert_type(count.map([1]), TaskFutureList[list[int]])
    assert_type(stream.map([1]), TaskFutureList[list[int]])
    assert_type(stream.map([1], return_state=True), list[State])


# Others ------------------------------------------------------------------------------------------------


@task
def with_text(text: str, *rest: int, sep: str = ",") -> str:
    return sep.join([text, *map(str, rest)])


@task
def with_words(x: int, **words: float) -> list[float]:
    return [x, *words.values()]


@task
def fail(x: int) -> NoReturn:
    raise ValueError(x)


@task
def anything(x: Any) -> Any:
    return x


@task
def first(items: list[T]) -> T:
    return items[0]


def others() -> None:
    """Parameters of every form keep it; what has no type has none afterwards, and gets no wrong one."""
    assert_type(with_text("a", 1, 2, sep=";"), str)
    with_text("a", "b")  # error: call-overload, reportArgumentType
    assert_type(with_words(1, a=2.0), list[float])
    with_words(1, a="b")  # error: call-overload, reportArgumentType
    assert_type(task(lambda: 1)(), int)
    assert_type(task(lambda: 1).submit(), TaskFuture[int])
    assert_type(task(partial(add.fn, 1)).submit(), TaskFuture[int])
    assert_type(first(["a"]), str)
    assert_type(anything(1), Any)
    assert_type(anything(1, return_state=True), Any)
    assert_type(anything.submit(1), TaskFuture[Any])
    assert_type(fail.submit(1, return_state=True), State)


def never() -> None:
    """What never returns makes what follows unreachable."""
    fail(1)
    print("never")


def refused() -> None:
    """What is no function and no option is refused."""
    task(5)  # error: call-overload, reportArgumentType
    task(retires=2)  # error: call-overload, reportCallIssue
