"""Flows: their parameters, what their calls give, and handles of flow runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import assert_type

from dflow import Flow, State, flow, task
from dflow.futures import FlowRunHandle
from task_runners import DaskTaskRunner, InlineTaskRunner


@task
def half(x: float) -> float:
    return x / 2


@flow
def main(x: int, y: float = 1.0) -> float:
    return half.submit(x).result() + y


@flow(name="main", retries=1, task_runner=InlineTaskRunner(), log_prints=True)
def main_again(x: int, y: float = 1.0) -> float:
    return x * y


@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1}))
async def main_async(x: int) -> float:
    return x + await half.submit(x)


@flow
def counting(x: int) -> Generator[int, None, None]:
    yield x


@flow
async def streaming(x: int) -> AsyncIterator[int]:
    yield x


async def called() -> None:
    """A call keeps the parameters and the result."""
    assert_type(main(1), float)
    assert_type(main_again(1, y=2.0), float)
    assert_type(await main_async(1), float)
    assert_type(list(counting(1)), list[int])
    async for item in streaming(1):
        assert_type(item, int)
    main("x")  # error: call-overload, reportArgumentType
    main_again(1, 2, 3)  # error: call-overload, reportCallIssue
    await main_async("x")  # error: call-overload, reportArgumentType
    main_async(1)  # error: unused-coroutine, reportUnusedCoroutine


async def states() -> None:
    """``return_state=True`` gives the State, of an async flow when it is awaited."""
    assert_type(main(1, return_state=True), State)
    assert_type(counting(1, return_state=True), State)
    assert_type(await main_async(1, return_state=True), State)
    assert_type(await streaming(1, return_state=True), State)


def lambdas() -> None:
    """A lambda is a function too."""
    assert_type(flow(lambda: 1)(), int)
    flow(lambda: 1)(2)  # error: call-overload, reportCallIssue


async def started() -> None:
    """A handle gives what the run returns, of coroutines and generators too."""
    handle = main.start(1)
    assert_type(handle, FlowRunHandle[float])
    assert_type(handle.result(), float)
    assert_type(await handle, float)
    assert_type(handle.result(timeout=1, raise_on_failure=False), float | Exception)
    assert_type(handle.state, State)
    assert_type(main_async.start(1), FlowRunHandle[float])
    assert_type(counting.start(1), FlowRunHandle[list[int]])
    assert_type(streaming.start(1), FlowRunHandle[list[int]])
    main.start("x")  # error: arg-type, reportArgumentType
    wider: FlowRunHandle[object] = handle
    print(wider)


async def resumed() -> None:
    """A resumed run gives what the flow gives."""
    assert_type(main.resume("latest"), float)
    assert_type(await main_async.resume("latest"), float)


def with_other_options() -> None:
    """Other options change no types."""
    assert_type(main.with_options(retries=3)(1), float)
    assert_type(main.with_options(retries=3).start(1), FlowRunHandle[float])
    main.with_options(retries=3)("x")  # error: call-overload, reportArgumentType


def general(anything: Flow[..., object], numbers: Flow[..., float]) -> None:
    """A flow that gives more is one that gives less."""
    general(main, main)
    general(main, counting)  # error: arg-type, reportArgumentType
    print(anything, numbers)


def refused() -> None:
    """What is no function and no option is refused."""
    flow(5)  # error: call-overload, reportArgumentType
    flow(tags=["x"])  # error: call-overload, reportCallIssue
