"""Futures: what they give, and how they are waited for."""

from __future__ import annotations

from typing import assert_type

from dflow import State, TaskFuture, TaskFutureList, as_completed, task, wait


@task
def number(x: int) -> int:
    return x


@task
def text(x: int) -> str:
    return str(x)


def results(future: TaskFuture[int]) -> None:
    """A result has the type of the task's; what is not raised may come instead."""
    assert_type(future.result(), int)
    assert_type(future.result(timeout=1.5), int)
    assert_type(future.result(raise_on_failure=False), int | Exception)
    assert_type(future.state, State)
    assert_type(future.done(), bool)
    assert_type(future.task_run_id, str)
    future.wait(1)
    future.cancel()
    future.add_done_callback(lambda one: print(one.result() + 1))
    future.result("x")  # error: call-overload, reportArgumentType, reportCallIssue


async def results_awaited(future: TaskFuture[int]) -> None:
    """A future can be awaited."""
    assert_type(await future, int)
    assert_type(await future.aresult(), int)
    assert_type(await future.aresult(raise_on_failure=False), int | Exception)


def many(futures: TaskFutureList[int]) -> None:
    """A list of futures is a list, and gives a list."""
    assert_type(futures.result(), list[int])
    assert_type(futures.result(raise_on_failure=False), list[int | Exception])
    assert_type(futures.states, list[State])
    assert_type(futures[0], TaskFuture[int])
    assert_type(futures[1:], TaskFutureList[int])
    assert_type([each.result() for each in futures], list[int])


async def as_they_come(futures: TaskFutureList[int]) -> None:
    """They come with their types, by both kinds of loops."""
    for future in as_completed(futures, timeout=5):
        assert_type(future, TaskFuture[int])
    async for future in as_completed(futures):
        assert_type(future, TaskFuture[int])
        assert_type(await future, int)
    as_completed([1])  # error: arg-type, reportArgumentType


def waited_for(futures: TaskFutureList[int]) -> None:
    """Those that are done and those that are not keep their types, mixed ones what they have in common."""
    done, not_done = wait(futures, timeout=5)
    assert_type(done, set[TaskFuture[int]])
    assert_type(not_done, set[TaskFuture[int]])
    wait([number.submit(1), text.submit(1)])
    wait([1])  # error: arg-type, reportArgumentType


def general(future: TaskFuture[float | str]) -> None:
    """A future of less is one of more, as its value only comes out of it."""
    general(number.submit(1))
    general(text.submit(1))
    narrow: TaskFuture[bool] = number.submit(1)  # error: assignment, reportAssignmentType
    print(future, narrow)
