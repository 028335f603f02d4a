"""Extra loggers: heard inside of a run, and untouched everywhere else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dflow.attempts.context import RunContext, entered
from dflow.attempts.hearing import heard
from dflow.messages import LogEntry
from tests.attempts.recorder import Recorder, info

NAME = "library_of_tests"


class Kept(logging.Handler):
    """Keeps what comes to it."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.said.append(record.getMessage())


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    """A logger that nobody else has."""
    logger, root = logging.getLogger(NAME), logging.getLogger()
    before = root.handlers[:]
    yield logger
    root.handlers[:] = before
    for one in (logger, logging.getLogger(f"{NAME}.part")):
        one.handlers[:] = []
        one.propagate = True
        one.setLevel(logging.NOTSET)


def program(*handlers: logging.Handler) -> None:
    """Let the program have these handlers and no others, not even those of pytest."""
    logging.getLogger().handlers[:] = handlers


def inside(link: Recorder, *names: str, **changes: Any) -> Any:
    """Return what makes a body of a run that hears these loggers the present one."""
    context = RunContext(info=info(extra_loggers=names, **changes), link=link, worker="w")

    class Both:
        def __enter__(self) -> None:
            self.one, self.two = entered(context), heard(context)
            self.one.__enter__()
            self.two.__enter__()

        def __exit__(self, *error: Any) -> None:
            self.two.__exit__(*error)
            self.one.__exit__(*error)

    return Both()


def test_a_hidden_level_is_lowered_for_the_run_only(library: logging.Logger) -> None:
    """Below a root of WARNING the run hears INFO; threads of no run, and the program, hear what they did."""
    link, root = Recorder(), Kept()
    program(root)
    with inside(link, NAME):
        library.info("inside")
        for say, what in ((library.info, "low"), (library.error, "stray")):
            thread = threading.Thread(target=say, args=(what,))
            thread.start()
            thread.join()
        library.warning("both")
    library.info("after")
    assert link.lines == ["inside", "both"]
    assert root.said == ["stray", "both"]
    assert library.level == logging.NOTSET


def test_two_runs_at_once_have_levels_of_their_own(library: logging.Logger) -> None:
    """The lowest that is wanted holds while it is wanted; each run hears what is of its level."""
    one, two = Recorder(), Recorder()
    with inside(one, NAME, log_level=logging.INFO):
        with inside(two, NAME, log_level=logging.DEBUG):
            library.debug("debug")
        library.debug("debug")
        library.info("info")
        assert library.level == logging.INFO
    assert (one.lines, two.lines) == (["info"], ["debug"])
    assert library.level == logging.NOTSET


def test_a_level_of_its_own_stays(library: logging.Logger) -> None:
    """Who sets a logger's level, before or meanwhile, is obeyed."""
    link = Recorder()
    library.setLevel(logging.ERROR)
    with inside(link, NAME):
        library.warning("hidden")
    assert library.level == logging.ERROR
    library.setLevel(logging.NOTSET)
    with inside(link, NAME):
        library.setLevel(logging.CRITICAL)
        library.error("hidden too")
    assert library.level == logging.CRITICAL
    assert link.lines == []


def test_no_handler_is_added(library: logging.Logger) -> None:
    """Code that sets up logging where there is none yet finds none of ours."""
    program()
    with inside(Recorder(), NAME, "root"):
        library.info("one")
        assert not library.hasHandlers()
    assert not library.hasHandlers()


@pytest.mark.usefixtures("library")
def test_children_are_heard_whatever_they_pass_on() -> None:
    """A logger below one that is named is heard though it does not propagate; others are not."""
    link, own = Recorder(), Kept()
    program()
    part = logging.getLogger(f"{NAME}.part")
    part.propagate = False
    part.addHandler(own)
    with inside(link, NAME):
        part.info("low")
        part.warning("part")
        logging.getLogger(f"{NAME}2").error("another")
        logging.getLogger("dflow.engine").error("ours")
    assert link.lines == ["low", "part"]
    assert own.said == ["part"]


def test_the_root_names_all_but_ours(library: logging.Logger) -> None:
    """What any logger of the program says is heard once; dflow's own lines are no lines of runs."""
    link = Recorder()
    with inside(link, "root"):
        library.warning("any")
        logging.getLogger().error("root")
        logging.getLogger("dflow.runs").error("shown")
    assert link.lines == ["any", "root"]


def test_without_handlers_nothing_is_doubled(
    library: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inside, the last resort of logging keeps still; outside, it speaks as ever."""
    program()
    link = Recorder()
    with inside(link, NAME):
        library.warning("inside")
    library.warning("outside")
    assert capsys.readouterr().err == "outside\n"
    assert link.lines == ["inside"]


@pytest.mark.parametrize(
    ("far", "level", "shown"), [(False, 0, True), (True, 0, False), (False, 40, False)]
)
def test_lines_that_were_seen_are_marked(
    library: logging.Logger, far: bool, level: int, shown: bool
) -> None:
    """What a handler of the driver's log has written is not shown a second time."""
    link = Recorder(far=far)
    program(Kept(level))
    with inside(link, NAME):
        library.warning("once")
    [entry] = link.sent
    assert isinstance(entry, LogEntry)
    assert entry.shown is shown


def test_records_that_are_handed_on_are_not_judged(library: logging.Logger) -> None:
    """A record that somebody hands to a logger, whatever its level, goes to its handlers as ever."""
    root = Kept()
    program(root)
    record = library.makeRecord(NAME, logging.DEBUG, __file__, 1, "handed on", (), None)
    with inside(Recorder(), NAME):
        thread = threading.Thread(target=library.handle, args=(record,))
        thread.start()
        thread.join()
    assert root.said == ["handed on"]


def test_a_line_that_cannot_be_sent_harms_no_body(library: logging.Logger) -> None:
    """It is told where dflow complains, with what it said."""
    root = Kept()
    program(root)

    class Broken(Recorder):
        def send(self, message: Any) -> None:
            raise OSError(type(message).__name__)

    with inside(Broken(), NAME):
        library.error("lost words")
    assert root.said == [
        "A log line could not be sent to its run (LogEntry). It said: lost words",
        "lost words",
    ]
