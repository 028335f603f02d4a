"""Retries and time limits of tasks, on every runner."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from dflow import State, current_run, exponential_backoff, flow, runs, task, wait
from dflow.core.events import AttemptRaised, AttemptTimedOut
from dflow.core.records import Ending, Stage, TaskRun
from dflow.core.replay import Table
from dflow.errors import TimedOutError
from dflow.ports import TaskRunner
from tests.api.conftest import ONE_WORKER
from tests.api.test_flows_and_tasks import record
from tests.api.test_futures import AWAY
from tests.api.test_tasks import latest
from tests.runners.hosts import patiently


@task
def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


# Retries -----------------------------------------------------------------------------------------------


@task(retries=2)
def third(name: str = "") -> tuple[str, int]:
    """Fail twice."""
    attempt = current_run().attempt
    if attempt < 3:
        raise ValueError(f"{name} attempt {attempt}")
    return name, attempt


@task(retries=2)
def always(name: str) -> None:
    """Fail always."""
    raise KeyError(f"{name} {current_run().attempt}")


def test_as_many_attempts_as_retries_and_one(runner: TaskRunner) -> None:
    """Called, submitted and mapped; each attempt is kept with its error, its worker and its times."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        with pytest.raises(KeyError, match="called 3"):
            always("called")
        with pytest.raises(KeyError, match="submitted 3"):
            always.submit("submitted").result()
        return [third("c"), third.submit("s").result(), *third.map(["m"]).result()]

    assert main() == [("c", 3), ("s", 3), ("m", 3)]
    found, _ = record()
    for run in found.values():
        assert [attempt.number for attempt in run.attempts] == [1, 2, 3]
        for attempt in run.attempts:
            assert attempt.ended_at is not None
            assert attempt.ended_at >= attempt.started_at
            assert attempt.seconds is not None
    errors = [attempt.error for attempt in found["always-1"].attempts]
    assert [error and error.text for error in errors] == [
        f"'submitted {number}'" for number in (1, 2, 3)
    ]
    assert all(error and "in always" in error.traceback for error in errors)
    assert found["always-0"].stage is Stage.FAILED


def test_attempts_on_workers_name_them(processes: TaskRunner) -> None:
    """Each attempt says where it was."""

    @flow(task_runner=processes)
    def main() -> None:
        third.submit().result()

    main()
    (run,) = latest()
    assert all(attempt.worker.startswith("tcp://") for attempt in run.attempts)


def once(retries: int) -> list[float]:
    """Return the delays."""
    assert retries == 2
    return [0.04, 0.01]


DELAYS: dict[str, tuple[Any, list[float]]] = {
    "number": (0.02, [0.02, 0.02]),
    "list": ([0.03], [0.03, 0.03]),
    "list of two": ([0.01, 0.03], [0.01, 0.03]),
    "callable": (once, [0.04, 0.01]),
    "partial": (partial(lambda first, retries: [first] * retries, 0.02), [0.02, 0.02]),
    "backoff": (exponential_backoff(0.01), [0.01, 0.02]),
}


@pytest.mark.parametrize("kind", list(DELAYS))
def test_delays_before_retries(runner: TaskRunner, kind: str) -> None:
    """A number, a list whose last repeats, or a callable of the retries: never less is waited."""
    given, waits = DELAYS[kind]

    @flow(task_runner=runner)
    def main() -> None:
        wait([third.with_options(retry_delay_seconds=given).submit()])

    main()
    (run,) = latest()
    assert (run.stage, len(run.attempts)) == (Stage.COMPLETED, 3)
    for (before, after), seconds in zip(
        zip(run.attempts, run.attempts[1:], strict=False), waits, strict=True
    ):
        assert before.ended_at is not None
        assert after.started_at - before.ended_at >= seconds - 0.002


def test_backoff_is_clamped() -> None:
    """It grows by powers of two, up to a limit, and as far as retries go."""
    assert exponential_backoff(10)(4) == [10, 20, 40, 80]
    assert len(exponential_backoff(1)(80)) <= 80
    assert max(exponential_backoff(1e6)(60)) < 1e9


def test_jitter_changes_delays(runner: TaskRunner) -> None:
    """By no more than its share, and not all alike."""
    delayed = third.with_options(
        retries=2, retry_delay_seconds=0.1, retry_jitter_factor=0.5, name="j"
    )

    @flow(task_runner=runner)
    def main() -> None:
        wait(delayed.map(["a", "b", "c"]))

    main()
    planned = set()
    with runs.opened(runs.find("latest")) as reader:
        for _, event in reader.events():
            if isinstance(event, AttemptRaised):
                planned.add(event.luck)
    assert len(planned) > 3
    for run in latest():
        for before, after in zip(run.attempts, run.attempts[1:], strict=False):
            assert before.ended_at is not None
            assert after.started_at - before.ended_at >= 0.05 - 0.002


@pytest.mark.parametrize("runner", AWAY, indirect=True)
def test_the_state_between_attempts(runner: TaskRunner) -> None:
    """`AwaitingRetry` until the time has come; the state is of type SCHEDULED, and holds no slot."""

    @flow(task_runner=runner)
    def main() -> None:
        futures = third.with_options(retry_delay_seconds=600).map(["a", "b", "c"])
        patiently(
            lambda: {future.state.name for future in futures} == {"AwaitingRetry"}, "the delay"
        )
        assert all(future.state.is_scheduled() for future in futures)
        assert not any(future.state.is_final() for future in futures)
        assert add.map(range(3)).result(timeout=60) == [1, 2, 3]
        for future in futures:
            future.cancel()
        futures.wait()
        assert {state.name for state in futures.states} == {"Cancelled"}

    main()
    assert {len(run.attempts) for run in latest() if run.task_name == "third"} == {1}


def test_without_a_delay_the_state_is_retrying(runner: TaskRunner) -> None:
    """It is so between the end of the failed attempt and the start of the next."""

    @flow(task_runner=runner)
    def main() -> None:
        third()
        third.submit().wait()

    main()
    between: set[str] = set()
    with runs.opened(runs.find("latest")) as reader:
        table = Table()
        for _, event in reader.events():
            assert event is not None
            table.apply(event)
            if isinstance(event, AttemptRaised):
                between.add(table.task_runs[event.task_run_id].state_name)
    assert between == {"Retrying"}


def allow(_: Any, run: TaskRun, state: State, *, most: int = 2) -> bool:
    """Say whether there is another attempt."""
    error = state.result(raise_on_failure=False)
    assert isinstance(error, KeyError)
    return run.run_count < most


async def allow_async(_: Any, run: TaskRun, __: State) -> bool:
    """Say it on a loop."""
    await asyncio.sleep(0)
    return run.run_count < 2


class Allowing:
    """Says it, as an object."""

    def __call__(self, _: Any, run: TaskRun, __: State) -> bool:
        """Say whether there is another attempt."""
        return run.run_count < 2


CONDITIONS = {
    "function": allow,
    "async": allow_async,
    "partial": partial(allow, most=2),
    "async partial": partial(allow_async),
    "object": Allowing(),
    "lambda": lambda _, run, __: run.run_count < 2,
}


@pytest.mark.parametrize("kind", list(CONDITIONS))
def test_a_condition_decides_about_retries(runner: TaskRunner, kind: str) -> None:
    """Any callable, async too, with the task, the task run and the state of the failed attempt."""
    asked = always.with_options(retries=5, retry_condition_fn=CONDITIONS[kind])

    @flow(task_runner=runner)
    def main() -> None:
        with pytest.raises(KeyError, match="called 2"):
            asked("called")
        with pytest.raises(KeyError, match="submitted 2"):
            asked.submit("submitted").result()

    main()
    assert [len(run.attempts) for run in latest()] == [2, 2]


# Time limits -------------------------------------------------------------------------------------------


def sleeps() -> None:
    """Wait outside of Python."""
    threading.Event().wait(20)


def loops() -> None:
    """Count."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass


def swallows() -> None:
    """Take no notice of anything that is raised, for a while."""
    end = time.monotonic() + 4
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                threading.Event().wait(0.005)
        except BaseException:
            continue


async def awaits() -> None:
    """Wait on a loop."""
    await asyncio.sleep(20)


async def swallows_async() -> None:
    """Take no notice of being cancelled, for a while."""
    end = time.monotonic() + 4
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            continue


def yields() -> Iterator[int]:
    """Yield, slowly."""
    for number in range(2000):
        yield number
        threading.Event().wait(0.01)


BODIES: dict[str, Any] = {
    each.__name__: task(timeout_seconds=0.1)(each)
    for each in (sleeps, loops, swallows, awaits, swallows_async, yields)
}


@pytest.mark.parametrize("name", list(BODIES))
def test_a_body_that_takes_too_long(runner: TaskRunner, name: str) -> None:
    """It is TimedOut within a second; its slot is free then, and what runs there next is not disturbed."""

    @flow(task_runner=runner)
    def main() -> float:
        start = time.monotonic()
        future = BODIES[name].submit()
        with pytest.raises(TimedOutError, match=r"longer than 0\.1 seconds"):
            future.result()
        seconds = time.monotonic() - start
        assert (future.state.name, future.state.is_failed()) == ("TimedOut", True)
        assert busy.map(range(4)).result(timeout=60) == [0, 1, 2, 3]
        return seconds

    assert main() < 1.5
    found, _ = record()
    assert [a.ending for a in found[f"{name}-0"].attempts] == [Ending.TIMED_OUT]


@task
def busy(x: int) -> int:
    """Do something for a moment, in which a stray exception would be seen."""
    for _ in range(10):
        threading.Event().wait(0.002)
    return x


def test_the_only_slot_is_free_again() -> None:
    """What is left behind holds no slot of the one that its worker has."""

    @flow(task_runner=ONE_WORKER)
    def main() -> list[int]:
        late = [BODIES[name].submit() for name in ("swallows", "swallows_async")]
        wait(late)
        assert [future.state.name for future in late] == ["TimedOut"] * 2
        start = time.monotonic()
        found = busy.map(range(10)).result()
        assert time.monotonic() - start < 2
        return found

    assert main() == list(range(10))


@pytest.mark.parametrize("name", ["sleeps", "loops", "swallows", "yields"])
def test_a_direct_call_that_takes_too_long(name: str) -> None:
    """The caller gets a TimedOutError, a TimeoutError, within a second; its run is TimedOut."""

    @flow(task_runner="inline")
    def main() -> None:
        start = time.monotonic()
        with pytest.raises(TimedOutError) as caught:
            list(BODIES[name]() or ())
        assert isinstance(caught.value, TimeoutError)
        assert time.monotonic() - start < 1
        assert BODIES[name](return_state=True).name == "TimedOut"

    main()
    assert {run.state_name for run in latest()} == {"TimedOut"}


def test_an_awaited_call_that_takes_too_long() -> None:
    """Its coroutine is cancelled at what it awaits, and the loop goes on."""

    @flow(task_runner="inline")
    async def main() -> int:
        with pytest.raises(TimedOutError):
            await BODIES["awaits"]()
        return add(1)

    assert asyncio.run(main()) == 2
    assert latest()[0].state_name == "TimedOut"


@task(retries=1, timeout_seconds=0.1)
def late_once() -> int:
    """Take too long the first time."""
    attempt = current_run().attempt
    if attempt == 1:
        sleeps()
    return attempt


@task(timeout_seconds=0.1)
def late_inside() -> None:
    """Wait."""
    threading.Event().wait(20)


@task
def calls_late_ones() -> list[str]:
    """Call and submit one from a worker."""
    found = []
    for ask in (late_inside, lambda: late_inside.submit().result()):
        try:
            ask()
        except TimedOutError as error:
            found.append(type(error).__name__)
    return found


def test_timeouts_are_failures_and_are_retried(runner: TaskRunner) -> None:
    """Each attempt has its time; called and submitted, in flows and in tasks."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [late_once(), late_once.submit().result(), calls_late_ones.submit().result()]

    assert main() == [2, 2, ["TimedOutError"] * 2]
    with runs.opened(runs.find("latest")) as reader:
        events = [event for _, event in reader.events()]
    assert sum(isinstance(event, AttemptTimedOut) for event in events) == 4
    found = latest()
    assert [a.ending for a in found[0].attempts] == [Ending.TIMED_OUT, Ending.SUCCEEDED]


def test_what_ends_in_time_is_as_without_a_limit(runner: TaskRunner) -> None:
    """Values, exceptions and the current run come out of the thread of their own."""

    @task(timeout_seconds=60)
    def timed(x: int) -> Any:
        if x == 0:
            raise KeyError("zero")
        return current_run().parameters["x"]

    @flow(task_runner=runner)
    def main() -> list[Any]:
        with pytest.raises(KeyError, match="zero"):
            timed.submit(0).result()
        with pytest.raises(KeyError, match="zero"):
            timed(0)
        return [timed(1), timed.submit(2).result()]

    assert main() == [1, 2]
