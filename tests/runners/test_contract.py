"""What every runner keeps to: one suite over all of them, so that none drifts from the others."""

from __future__ import annotations

import contextvars
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from dflow.core.events import AttemptRaised, AttemptStarted, AttemptSucceeded, DispatchVoided
from dflow.core.records import Cause, Held
from dflow.errors import MissingResult, SerializationError
from dflow.messages import Blob, Here, Work
from dflow.results.pickling import dumps
from tests.runners import bodies
from tests.runners.conftest import RUNNERS
from tests.runners.hosts import FakeHost, work

SLOTS = 2
"""How many bodies the runners of these tests run at once."""

elsewhere = pytest.mark.parametrize(
    "kind", [kind for kind in RUNNERS if kind != "inline"], indirect=True
)
"""For what only those runners do whose bodies run in another thread than the submitting one."""

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("tests_variable", default="unset")


def variable() -> str:
    """Return the variable as the body sees it."""
    return VARIABLE.get()


def run(opened: Any, host: FakeHost, *works: Work) -> list[Any]:
    """Dispatch works, each after the one before where the runner does not follow; return their ends."""
    if opened.follows:
        opened.dispatch(works)
        return [host.end(one) for one in works]
    ends = []
    for one in works:
        opened.dispatch([one])
        ends.append(host.end(one))
    return ends


def block(opened: Any, host: FakeHost, folder: Path) -> tuple[list[Work], Path]:
    """Let bodies that wait for a file take all slots; return them, and the file."""
    go = folder / "go"
    waiting = [
        work(opened, bodies.touch_and_wait, str(folder / f"begun{n}"), str(go))
        for n in range(SLOTS)
    ]
    opened.dispatch(waiting)
    for one in waiting:
        host.started(one)
    return waiting, go


def test_a_group_runs(opened: Any, host: FakeHost) -> None:
    """Each dispatch of a group ends with its own value, which travels with the outcome if it is small."""
    works = [work(opened, bodies.add, n, 1) for n in range(20)]
    opened.dispatch(works)
    for n, one in enumerate(works):
        end = host.end(one)
        assert isinstance(end, AttemptSucceeded)
        assert (end.held, end.value) == (Held.JOURNAL, dumps(n + 1))
        assert opened.fetch(one.info.key) == n + 1


def test_the_start_comes_first(opened: Any, host: FakeHost) -> None:
    """The start of an attempt that takes its time is reported before its outcome, once, with its worker."""
    one = work(opened, bodies.linger, 0.2)
    opened.dispatch([one])
    host.end(one)
    start, end = host.about(one)
    assert isinstance(start, AttemptStarted)
    assert isinstance(end, AttemptSucceeded)
    assert start.worker == end.worker != ""
    assert start.at <= end.at


def test_values_pass_on(opened: Any, host: FakeHost) -> None:
    """A dispatch gets the value of another one at the same runner, in flight where the runner follows."""
    first = work(opened, bodies.add, 1, 2)
    second = work(opened, bodies.add, first, 10)
    third = work(opened, bodies.add, first, second)
    run(opened, host, first, second, third)
    assert opened.fetch(third.info.key) == 16


def test_large_values_stay(opened: Any, host: FakeHost) -> None:
    """A large value does not travel with the outcome, but to those who need it."""
    first = work(opened, bodies.large, 200_000)
    second = work(opened, bodies.size_of, first)
    ends = run(opened, host, first, second)
    assert (ends[0].held, ends[0].value) == (Held.RUNNER, None)
    assert opened.fetch(second.info.key) == 200_000
    assert opened.fetch(first.info.key) == bytes(200_000)


def test_functions_go_to_values(opened: Any, host: FakeHost) -> None:
    """What a function makes of a value comes back, and not the value; without a value it is an error."""
    large = work(opened, bytes, 200_000)
    run(opened, host, large)
    assert opened.apply(len, large.info.key) == 200_000
    with pytest.raises(ZeroDivisionError):
        opened.apply(bodies.divide_by_nothing, large.info.key)
    with pytest.raises(MissingResult):
        opened.apply(len, ("nothing", 1))


def test_values_from_outside(opened: Any, host: FakeHost) -> None:
    """Values that are pickled, or in the driver's memory, reach the body."""
    plain = work(opened, bodies.add, 1)
    ref = work(opened, bodies.add, plain, plain)
    for given in (Blob(dumps(20)), Here(20)):
        one = Work(work(opened, bodies.add, 1).info, ref.call, dict.fromkeys(ref.inputs, given))
        opened.dispatch([one])
        assert isinstance(host.end(one), AttemptSucceeded)
        assert opened.fetch(one.info.key) == 40


def test_shared_arguments(opened: Any, host: FakeHost) -> None:
    """Arguments that many calls have in common arrive with each of them, small or large."""
    for size in (10, 200_000):
        shared = {"data": bytes(size)}
        works = [work(opened, bodies.size_of, shared=shared) for _ in range(5)]
        opened.dispatch(works)
        for one in works:
            host.end(one)
            assert opened.fetch(one.info.key) == size


def test_a_body_raises(opened: Any, host: FakeHost) -> None:
    """A failed body is one AttemptRaised; what depends on it is void, without an attempt."""
    failing = work(opened, bodies.fail, "on purpose")
    after = work(opened, bodies.add, failing)
    last = work(opened, bodies.add, after)
    if not opened.follows:
        (end,) = run(opened, host, failing)
    else:
        end, *voided = run(opened, host, failing, after, last)
        assert [type(one) for one in voided] == [DispatchVoided, DispatchVoided]
        assert {one.cause for one in voided} == {Cause.UPSTREAM}
        assert len(host.about(after)) == 1
    assert isinstance(end, AttemptRaised)
    assert (end.error.type_name, end.error.text) == ("ValueError", "on purpose")
    assert "bodies.py" in end.error.traceback


@pytest.mark.parametrize("body", [bodies.leave, bodies.interrupt])
def test_a_body_wants_to_leave(opened: Any, host: FakeHost, kind: str, body: Any) -> None:
    """SystemExit and KeyboardInterrupt in a body are failures, and the worker goes on."""
    if kind == "inline" and body is bodies.interrupt:
        with pytest.raises(KeyboardInterrupt):
            opened.dispatch([work(opened, body)])
        return
    end, after = run(opened, host, work(opened, body), work(opened, bodies.add, 1))
    assert isinstance(end, AttemptRaised)
    assert isinstance(after, AttemptSucceeded)


def test_an_argument_that_cannot_travel(opened: Any, host: FakeHost) -> None:
    """It is refused when it is packed, with its name, type and path; in memory it is as good as any."""
    argument = {"models": [1, threading.Lock()]}
    if opened.shares_memory:
        (end,) = run(opened, host, work(opened, bodies.size_of, argument))
        assert isinstance(end, AttemptSucceeded)
        return
    with pytest.raises(SerializationError) as caught:
        work(opened, bodies.size_of, argument)
    for part in ("'#1'['models'][1]", "'size_of'", "_thread.lock"):
        assert part in str(caught.value)


def test_a_result_that_cannot_travel(opened: Any, host: FakeHost) -> None:
    """It is a failure that names the type; in memory it is a value like any other."""
    (end,) = run(opened, host, one := work(opened, bodies.make_lock))
    if opened.shares_memory:
        assert isinstance(end, AttemptSucceeded)
        assert type(opened.fetch(one.info.key)).__name__ == "lock"
        return
    assert isinstance(end, AttemptRaised)
    assert end.error.type_name == "dflow.errors.SerializationError"
    assert "'make_lock'" in end.error.text
    assert "_thread.lock" in end.error.text


def test_lines_arrive(opened: Any, host: FakeHost) -> None:
    """What a body prints and logs arrives before its outcome, with task run, attempt and worker."""
    one = work(opened, bodies.talk, "hello", log_prints=True)
    opened.dispatch([one])
    end = host.end(one)
    lines = host.lines(one)
    assert [line.message for line in lines] == ["hello", "warned: hello"]
    assert {(line.attempt, line.worker) for line in lines} == {(1, end.worker)}
    assert host.reports.index(lines[-1]) < host.reports.index(end)


@elsewhere
def test_waiting_work_is_withdrawn(opened: Any, host: FakeHost, tmp_path: Path) -> None:
    """What has not begun ends as withdrawn and never runs; what has goes on to its own end."""
    running, go = block(opened, host, tmp_path)
    waiting = [
        work(opened, bodies.touch_and_wait, str(tmp_path / f"late{n}"), "/") for n in range(6)
    ]
    opened.dispatch(waiting)
    opened.withdraw([one.info.key for one in (*running, *waiting)])
    for one in waiting:
        end = host.end(one)
        assert isinstance(end, DispatchVoided)
        assert end.cause is Cause.WITHDRAWN
    go.touch()
    after = work(opened, bodies.add, 1)
    opened.dispatch([after])
    for one in (*running, after):
        assert isinstance(host.end(one), AttemptSucceeded)
    assert not list(tmp_path.glob("late*"))


def test_released_values_are_gone(opened: Any, host: FakeHost) -> None:
    """A value that was released, or never was there, is a MissingResult that says what would have helped."""
    (_,) = run(opened, host, one := work(opened, bodies.add, 1))
    opened.release([one.info.key])
    for key in (one.info.key, ("nobody", 1)):
        with pytest.raises(MissingResult, match="persist_result"):
            opened.fetch(key)


@elsewhere
def test_context_variables_are_those_of_the_call(opened: Any, host: FakeHost) -> None:
    """What the submitting thread has set is seen by bodies in threads of this process, not by others."""
    token = VARIABLE.set("the driver's")
    try:
        (_,) = run(opened, host, one := work(opened, variable))
    finally:
        VARIABLE.reset(token)
    seen = "the driver's" if opened.shares_memory else "unset"
    assert opened.fetch(one.info.key) == seen


def test_bodies_know_their_run(opened: Any, host: FakeHost) -> None:
    """A body finds its task run, its attempt and its worker in the context."""
    (end,) = run(opened, host, one := work(opened, bodies.context_of))
    assert opened.fetch(one.info.key) == (one.info.task_run_id, 1, end.worker)


def test_each_dispatch_ends_once(opened: Any, host: FakeHost) -> None:
    """In a random graph with failures every dispatch has exactly one end, and the right one."""
    luck = random.Random(5)
    works: list[Work] = []
    sound: dict[str, bool] = {}
    for _ in range(60):
        ups = luck.sample(works, min(len(works), luck.randrange(3)))
        body = bodies.fail if luck.random() < 0.1 else bodies.add
        one = work(opened, body, *ups)
        alive = all(sound[up.info.task_run_id] for up in ups)
        sound[one.info.task_run_id] = alive and body is bodies.add
        if alive or opened.follows:
            works.append(one)
    ends = run(opened, host, *works)
    for one, end in zip(works, ends, strict=True):
        assert isinstance(end, AttemptSucceeded) is sound[one.info.task_run_id]
    assert all(len(host.ends(one)) == 1 for one in works)


def test_runners_at_once(kind: str) -> None:
    """Several flow runs in several threads use equal runners at once, and hear only of their own."""
    found: list[int] = []

    def drive(start: int) -> None:
        host = FakeHost()
        opened = RUNNERS[kind].open(host)
        works = [work(opened, bodies.add, start, n) for n in range(10)]
        run(opened, host, *works)
        mine = {one.info.task_run_id for one in works}
        assert {getattr(report, "task_run_id", "?") for report in host.reports} == mine
        found.append(sum(opened.fetch(one.info.key) for one in works))
        opened.close()

    threads = [threading.Thread(target=drive, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [45, 1045, 2045]
