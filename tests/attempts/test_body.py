"""One attempt from its start to its end."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dflow.attempts import body
from dflow.attempts.calls import Call
from dflow.attempts.context import current
from dflow.core.events import AttemptRaised, AttemptStarted, AttemptSucceeded, Outcome
from dflow.core.records import Held
from dflow.errors import CancelledError, SerializationError
from dflow.messages import Ref
from dflow.results.pickling import loads
from tests.attempts.recorder import TASK_RUN, Recorder, info


def run(
    function: Callable[..., Any], *args: Any, link: Recorder | None = None, **how: Any
) -> tuple[Outcome, Any]:
    """Run a function as an attempt."""
    about = info(**how.pop("info", {}))
    return body.run(about, lambda: (Call(function, args), {}), link or Recorder(), **how)


def failed(outcome: Outcome) -> AttemptRaised:
    """Return the outcome of an attempt that has to have failed."""
    assert isinstance(outcome, AttemptRaised)
    return outcome


def succeeded(outcome: Outcome) -> AttemptSucceeded:
    """Return the outcome of an attempt that has to have succeeded."""
    assert isinstance(outcome, AttemptSucceeded)
    return outcome


def test_the_start_is_sent_before_the_body_runs() -> None:
    """A body that kills its worker has been reported as started; the outcome is left to the caller."""
    link = Recorder()
    outcome, value = run(lambda: list(link.sent), link=link, worker="w")
    (start,) = value
    assert isinstance(start, AttemptStarted)
    assert link.sent == [start]
    assert (start.task_run_id, start.dispatch, start.worker) == (TASK_RUN, 3, "w")
    assert (outcome.task_run_id, outcome.dispatch, outcome.worker) == (TASK_RUN, 3, "w")
    assert start.at == outcome.started_at <= outcome.at
    assert outcome.seconds >= 0


def test_a_start_is_confirmed_only_where_that_is_asked() -> None:
    """A suspect's body waits until its start is known; nobody else's does."""
    link = Recorder()
    run(lambda: None, link=link)
    assert link.confirmed_after == []
    run(lambda: None, link=link, info={"confirm_start": True})
    assert link.confirmed_after == link.starts
    assert len(link.starts) == 2


def test_without_confirmation_the_body_does_not_run() -> None:
    """If the driver has gone away meanwhile the attempt fails; no exception gets out, nothing has run."""
    link, ran = Recorder(), list[int]()
    link.gone = CancelledError("gone")
    outcome, _ = run(lambda: ran.append(1), link=link, info={"confirm_start": True})
    assert failed(outcome).error.type_name == "dflow.errors.CancelledError"
    assert ran == []


def test_the_body_knows_its_run() -> None:
    """Inside there is a context, also in what the body calls; after it there is none."""
    _, value = run(current)
    assert value.task_run_id == TASK_RUN
    assert (value.attempt, value.run_id) == (2, TASK_RUN)
    assert current() is None


@pytest.mark.parametrize("must_travel", [False, True])
def test_a_small_value_rides_along(must_travel: bool) -> None:
    """What is small is in the outcome, pickled, and given back alive as well."""
    outcome, value = run(lambda: {"a": 1}, must_travel=must_travel)
    assert (succeeded(outcome).held, value) == (Held.JOURNAL, {"a": 1})
    assert loads(succeeded(outcome).value or b"") == {"a": 1}


@pytest.mark.parametrize("must_travel", [False, True])
def test_a_large_value_stays(must_travel: bool) -> None:
    """What is above the limit of the attempt stays where it is."""
    outcome, value = run(lambda: b"x" * 2000, must_travel=must_travel, info={"small": 1000})
    assert (succeeded(outcome).held, succeeded(outcome).value) == (Held.RUNNER, None)
    assert len(value) == 2000


def test_what_cannot_be_pickled_stays_where_it_need_not_travel() -> None:
    """In the driver's own process a lock is a value like any other."""
    outcome, value = run(threading.Lock)
    assert (succeeded(outcome).held, succeeded(outcome).value) == (Held.RUNNER, None)
    assert value.acquire(False)


def test_what_has_to_travel_and_cannot_fails_once() -> None:
    """The error names task and type; trying again would not help, so it is not retriable."""
    outcome, value = run(threading.Lock, must_travel=True)
    error = failed(outcome).error
    assert error.type_name == "dflow.errors.SerializationError"
    assert "result of task 'prepare' cannot travel" in error.text
    assert "'_thread.lock'" in error.text
    assert not failed(outcome).retriable
    assert value is None


def test_what_cannot_be_loaded_fails_once() -> None:
    """Arguments that do not arrive are the attempt's failure, after its start."""
    link = Recorder()

    def load() -> Any:
        raise SerializationError("no module")

    outcome, _ = body.run(info(), load, link)
    assert (failed(outcome).error.text, failed(outcome).retriable) == ("no module", False)
    assert len(link.starts) == 1


def test_values_stand_in_the_place_of_references() -> None:
    """The body gets what its upstreams made."""
    call = Call(lambda x: x, ([Ref("up")],), has_refs=True)
    _, value = body.run(info(), lambda: (call, {"up": 5}), Recorder())
    assert value == [5]


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(2), KeyboardInterrupt(), GeneratorExit(), RecursionError()],
)
def test_no_exception_gets_out(error: BaseException) -> None:
    """Whatever a body raises is its outcome, is shown to the link, and may be tried again."""
    link = Recorder()

    def fail() -> None:
        raise error

    outcome, _ = run(fail, link=link)
    assert failed(outcome).error.type_name == type(error).__name__
    assert failed(outcome).retriable
    assert 0 <= failed(outcome).luck < 1
    assert link.witnessed == [error]


def test_sys_exit_in_a_body_does_not_end_the_process() -> None:
    """`sys.exit` is an exception like any other."""
    assert failed(run(sys.exit, 2)[0]).error.type_name == "SystemExit"


def test_an_interrupt_of_the_user_gets_out() -> None:
    """Where the user's own thread runs the body, Ctrl-C is not the attempt's; other exceptions are."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupt, interrupts=True)
    assert failed(run(sys.exit, interrupts=True)[0]).error.type_name == "SystemExit"


def test_prints_become_lines_where_that_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """With ``log_prints`` they are lines of the run, before its outcome; without they are prints."""
    link = Recorder()
    run(print, "heard", link=link, info={"log_prints": True})
    run(print, "not heard", link=link)
    assert link.lines == ["heard"]
    assert capsys.readouterr().out == "not heard\n"


def test_a_body_can_give_its_slot_back() -> None:
    """What the runner gives as `slot` is what the body finds in its context."""
    used: list[str] = []

    @contextlib.contextmanager
    def slot() -> Iterator[None]:
        used.append("given back")
        yield
        used.append("taken again")

    def wait() -> None:
        context = current()
        assert context is not None
        with context.slot():
            used.append("waiting")

    run(wait, slot=slot)
    assert used == ["given back", "waiting", "taken again"]
