"""What bodies print and log, by whom, and where it goes."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from dflow.attempts.context import FlowInfo, RunContext, entered
from dflow.attempts.logs import LOGGER, MAX_MESSAGE, get_run_logger, prints_of, say
from dflow.attempts.prints import captured, uncaptured
from dflow.errors import NoRunError
from dflow.messages import LogEntry
from tests.attempts.recorder import Recorder, info


def test_lines_are_said_whole() -> None:
    """Pieces of a line come together; a line that was not ended comes at the end; empty lines count."""
    said: list[str] = []
    with captured(said.append):
        print("a", "b", sep="-")
        print("c", end="")
        assert said == ["a-b"]
        print("d\n\ne", end="", flush=True)
        assert said == ["a-b", "cd", ""]
    assert said == ["a-b", "cd", "", "e"]


def test_writelines_counts_as_printing() -> None:
    """Whoever writes to ``sys.stdout`` by itself is heard too."""
    said: list[str] = []
    with captured(said.append):
        sys.stdout.writelines(["a\n", "b\n"])
    assert said == ["a", "b"]


def test_two_threads_keep_their_lines() -> None:
    """Bodies that print at the same time are told apart, line by line."""
    both = threading.Barrier(2)

    def body(name: str) -> list[str]:
        said: list[str] = []
        with captured(said.append):
            both.wait(10)
            for number in range(500):
                print(name, number)
        return said

    with ThreadPoolExecutor(2) as pool:
        a, b = pool.map(body, "ab")
    assert a == [f"a {n}" for n in range(500)]
    assert b == [f"b {n}" for n in range(500)]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_of_one_body_lose_nothing() -> None:
    """Threads that know the body's context print into it, and no character is lost."""
    said: list[str] = []

    def write() -> None:
        for _ in range(2000):
            sys.stdout.write("ab\ncd")

    with captured(said.append), ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(copy_context().run, write)
    assert len("".join(said)) == 4 * 2000 * 4


def test_capture_inside_a_capture() -> None:
    """A task that is called in a task has its own lines; after it the outer one goes on."""
    outer: list[str] = []
    inner: list[str] = []
    with captured(outer.append):
        print("one", end=" ")
        with captured(inner.append):
            print("two")
        print("three")
    assert (outer, inner) == (["one three"], ["two"])


def test_prints_of_others_go_where_they_always_went(capsys: pytest.CaptureFixture[str]) -> None:
    """While a body is captured, a thread that knows nothing of it prints to the original."""
    before, said = sys.stdout, list[str]()
    with captured(said.append):
        thread = threading.Thread(target=print, args=("from outside",))
        thread.start()
        thread.join()
        print("from inside")
    assert sys.stdout is before
    print("after")
    assert capsys.readouterr().out == "from outside\nafter\n"
    assert said == ["from inside"]


def test_the_original_comes_back_after_a_failure() -> None:
    """A body that raises leaves no stand-in behind, and its last words are said."""
    before, said = sys.stdout, list[str]()

    def fail() -> None:
        with captured(said.append):
            print("last words", end="")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sys.stdout is before
    assert said == ["last words"]


def test_stdout_may_be_redirected_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that redirects its prints gets them itself."""
    said: list[str] = []
    with captured(said.append):
        into = io.StringIO()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", into)
            print("mine")
        print("ours")
    assert into.getvalue() == "mine\n"
    assert said == ["ours"]


def test_a_stand_in_that_was_kept_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever kept ``sys.stdout`` inside writes to the present body with it, and outside to the original."""
    said: list[str] = []
    with captured(said.append):
        kept = sys.stdout
    print("outside", file=kept)
    with captured(said.append):
        print("inside", file=kept)
    assert said == ["inside"]
    assert capsys.readouterr().out == "outside\n"


def test_a_finalizer_may_print_in_the_middle_of_a_print() -> None:
    """It is one thread that prints twice: it does not wait for itself."""
    said: list[str] = []

    class Text(str):
        def __contains__(self, other: object) -> bool:
            print("last words")
            return super().__contains__(other)  # type: ignore[operator]  # it is text

    with captured(said.append):
        sys.stdout.write(Text("text\n"))
    assert "last words" in "".join(said)


def test_many_pieces_of_one_line() -> None:
    """A line may come in very many pieces; one without an end does not grow for ever."""
    said: list[str] = []
    with captured(said.append):
        for _ in range(200_000):
            print(".", end="")
        print()
        for _ in range(3):
            print("x" * 600_000, end="")
    assert said[0] == "." * 200_000
    assert [len(line) for line in said[1:]] == [1_200_000, 600_000]


def test_captured_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress bars do not draw into log lines."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    with captured(print):
        assert not sys.stdout.isatty()
        with uncaptured():
            assert sys.stdout.isatty()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_prints_where_it_would_without_us(capfd: pytest.CaptureFixture[str]) -> None:
    """A process that a body forks has nobody who hears what it says: it prints as it can."""
    said: list[str] = []
    with captured(said.append):
        pid = os.fork()
        if pid == 0:
            print("from the fork", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
    assert said == []
    assert capfd.readouterr().out == "from the fork\n"


def test_prints_of_a_worker_are_sent() -> None:
    """Where the driver is another process its prints are not those of this one."""
    link = Recorder(far=True)
    context = RunContext(info=info(), link=link)
    with prints_of(context):
        print("a", end=" ")
        print("b")
    assert link.printed == ["a b"]
    assert link.lines == []


def test_prints_that_are_logged_are_not_printed() -> None:
    """With ``log_prints`` a line is a log line, and nothing else."""
    link = Recorder(far=True)
    with prints_of(RunContext(info=info(log_prints=True), link=link)):
        print("a")
    assert (link.printed, link.lines) == ([], ["a"])


# Logs ------------------------------------------------------------------------------------------------


def test_no_logger_outside_of_a_run() -> None:
    """The error says where to call it, and what to use instead."""
    with pytest.raises(NoRunError, match="inside a flow or a task"):
        get_run_logger()


def test_a_line_has_its_run_attempt_worker_and_level() -> None:
    """What is logged arrives with all that tells where it came from."""
    link = Recorder()
    with entered(RunContext(info=info(), link=link, worker="w-1")):
        get_run_logger().warning("%d of %d", 1, 2, extra={"mine": 1})
    (entry,) = link.sent
    assert isinstance(entry, LogEntry)
    assert (entry.flow_run_id, entry.task_run_id, entry.attempt) == ("f1", "t1", 2)
    assert (entry.level, entry.message) == (logging.WARNING, "1 of 2")
    assert (entry.logger, entry.worker) == (LOGGER, "w-1")


def test_a_flow_logs_without_an_attempt() -> None:
    """Lines of a flow's body name the flow run only."""
    link = Recorder()
    flow = FlowInfo(
        flow_run_id="f1", flow_run_name="n", flow_name="train", root_id="f1", generation=1
    )
    with entered(RunContext(info=flow, link=link)):
        get_run_logger().info("hello")
    (entry,) = link.sent
    assert isinstance(entry, LogEntry)
    assert (entry.task_run_id, entry.attempt) == (None, 0)


@pytest.mark.parametrize(("level", "heard"), [(10, 3), (20, 2), (40, 1)])
def test_lines_below_the_level_are_not_sent(level: int, heard: int) -> None:
    """The run's level decides, not that of the program's own logging."""
    link = Recorder()
    with entered(RunContext(info=info(log_level=level), link=link)):
        logger = get_run_logger()
        logger.debug("a")
        logger.info("b")
        logger.error("c")
    assert len(link.lines) == heard


def test_an_exception_is_logged_with_its_traceback() -> None:
    """``logger.exception`` says where it happened."""
    link = Recorder()
    with entered(RunContext(info=info(), link=link)):
        try:
            raise ValueError("bad")
        except ValueError:
            get_run_logger().exception("it failed")
    assert link.lines[0].startswith("it failed\nTraceback")
    assert link.lines[0].endswith("ValueError: bad")


def test_a_long_line_is_cut() -> None:
    """One line of 100 MB does not become 100 MB in the journal."""
    link = Recorder()
    context = RunContext(info=info(), link=link)
    say(context, logging.INFO, "x" * 1_000_000)
    with entered(context):
        get_run_logger().info("y" * 1_000_000)
    assert [len(line) for line in link.lines] == [MAX_MESSAGE] * 2
    assert link.lines[0].endswith("x … (1,000,000 characters)")


def test_a_logger_belongs_to_its_run_in_any_thread() -> None:
    """A logger that was got in a body and is used in a plain thread logs for that body."""
    link = Recorder()
    with entered(RunContext(info=info(), link=link)):
        logger = get_run_logger()
    thread = threading.Thread(target=logger.info, args=("from a thread",))
    thread.start()
    thread.join()
    assert link.lines == ["from a thread"]


def test_runs_have_levels_of_their_own() -> None:
    """Two runs in one process may say different things; a run's logger can only be made to say less."""
    quiet, talkative = Recorder(), Recorder()
    with entered(RunContext(info=info(log_level=logging.ERROR), link=quiet)):
        one = get_run_logger()
    with entered(RunContext(info=info(log_level=logging.DEBUG), link=talkative)):
        two = get_run_logger()
    for logger in (one, two):
        logger.debug("debug")
        logger.error("error")
    one.setLevel("DEBUG")
    two.setLevel(logging.WARNING)
    for logger in (one, two):
        logger.info("info")
    assert (quiet.lines, talkative.lines) == (["error"], ["debug", "error"])
    assert (one.isEnabledFor(logging.INFO), two.getEffectiveLevel()) == (False, logging.WARNING)
    with pytest.raises(ValueError, match="'LOUD'"):
        one.setLevel("LOUD")


def test_logging_of_the_program_does_not_reach_the_run_logger() -> None:
    """Who disables all loggers that exist, as configurations do, does not silence runs."""
    link = Recorder()
    with entered(RunContext(info=info(), link=link)):
        get_run_logger().info("before")
        logging.getLogger(LOGGER).disabled = True
        get_run_logger().info("after")
        logging.getLogger(LOGGER).disabled = False
    assert link.lines == ["before", "after"]
