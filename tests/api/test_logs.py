"""Logs, whole and true: what bodies print and log arrives once, in order, on every runner."""

from __future__ import annotations

import contextvars
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dflow
from dflow import current_run, flow, get_run_logger, runs, task
from dflow.core.records import Ending
from dflow.messages import LogEntry
from dflow.ports import TaskRunner
from task_runners import DaskTaskRunner, InlineTaskRunner
from tests.api.conftest import ONE_WORKER
from tests.api.test_flows_and_tasks import record

EXTRA = "extra_of_tests"
TWO_THREADS = DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 2})


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    """Close the cluster of this module."""
    yield
    dflow.shutdown()
    TWO_THREADS.shutdown()


def lines() -> list[str]:
    """Return the log lines of the latest run."""
    with runs.opened(runs.find("latest")) as reader:
        return [line.message for line in reader.logs()]


def entries(logger: str) -> list[LogEntry]:
    """Return the log lines of the latest run that a logger said."""
    with runs.opened(runs.find("latest")) as reader:
        return [line for line in reader.logs() if line.logger == logger]


# Prints that are not log lines ------------------------------------------------------------------------


@task
def prints(count: int, name: str) -> int:
    """Print lines, some in pieces, the last without an end."""
    for number in range(count):
        print(name, end=" ")
        sys.stdout.write(f"{number}\n")
    print(f"{name} end", end="")
    return os.getpid()


def test_prints_appear_at_the_driver(
    runner: TaskRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line once, whole and in order for each attempt, before the result, and not in the journal."""

    @flow(task_runner=runner)
    def main() -> None:
        prints.map([50, 50], ["a", "b"]).result()
        print("the flow")

    main()
    out = capsys.readouterr().out.replace("a endb", "a end\nb")
    for name in "ab":
        expected = [*(f"{name} {number}" for number in range(50)), f"{name} end"]
        told = re.findall(rf"{name} (?:\d+|end)", out)
        assert told == expected
    assert out.rstrip("\n").endswith("the flow")
    assert lines() == []


def test_prints_of_workers_come_in_whole_lines(
    processes: TaskRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes that print at once do not mix their lines; empty ones and all characters arrive."""

    @task
    def speaks() -> None:
        print("one\n\nµ → \udcff", flush=True)

    @flow(task_runner=processes)
    def main() -> None:
        prints.map([200, 200], ["a", "b"]).result()
        speaks.submit().result()

    main()
    said = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(r"[ab] (\d+|end)|one||µ → .*", line) for line in said)
    assert said[-3:-1] == ["one", ""]
    assert said[-1].startswith("µ → ")


def test_the_last_words_of_a_failure_arrive(
    processes: TaskRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a body printed and logged just before it raised is there when the flow has failed."""

    @task
    def fails() -> None:
        for number in range(100):
            print("printed", number)
            get_run_logger().info("logged %d", number)
        raise ValueError("no")

    @flow(task_runner=processes)
    def main() -> None:
        fails.submit().result()

    for _ in range(5):
        with pytest.raises(ValueError, match="no"):
            main()
        assert capsys.readouterr().out.splitlines() == [f"printed {n}" for n in range(100)]
        assert lines() == [f"logged {n}" for n in range(100)]


def test_a_script_shows_each_print_once(tmp_path: Path) -> None:
    """Workers that share the driver's terminal do not write there what the driver prints for them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from dflow import flow, task\n"
        "from task_runners import DaskTaskRunner\n"
        "kept = sys.stdout\n"
        "@task\n"
        "def speak(n):\n"
        "    print('hello', n)\n"
        "    print('kept', n, file=kept)\n"
        "@flow(task_runner=DaskTaskRunner(cluster_kwargs={'n_workers': 2}))\n"
        "def main():\n"
        "    speak.map(range(3)).result()\n"
        "if __name__ == '__main__':\n"
        "    main()\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(dflow.__file__).parents[1])},
    )
    assert sorted(done.stdout.splitlines()) == sorted(
        f"{word} {n}" for n in range(3) for word in ("hello", "kept")
    )


def test_endless_prints_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """So many lines of one attempt arrive, and how many more there were."""

    @task
    def chatters() -> None:
        for _ in range(10_500):
            print("x")

    @flow(task_runner=ONE_WORKER)
    def main() -> None:
        chatters.submit().result()

    main()
    said = capsys.readouterr().out.splitlines()
    assert said[:-1] == ["x"] * 10_000
    assert said[-1].startswith("… 500 more printed lines were dropped")


def test_a_driver_without_an_output_goes_on(
    processes: TaskRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints of workers for which there is nobody left to read them harm nothing."""

    class Gone:
        encoding = "ascii"

        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

        def flush(self) -> None:
            """Do nothing."""

    @flow(task_runner=processes)
    def main() -> int:
        return prints.submit(5, "a").result()

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Gone())
        assert main() != os.getpid()
    assert capsys.readouterr().out == ""


# Prints that are log lines ------------------------------------------------------------------------------


@task(log_prints=True)
def prints_in_all_ways(name: str, meeting: str) -> None:
    """Print in pieces, at the same time as another body of the same process."""
    meet(Path(meeting), name)

    def beside() -> None:
        for number in range(20):
            print(name, "beside", number)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(beside,))
    out = sys.stdout
    for number in range(20):
        print(name, end=" ")
        sys.stdout.write("written ")
        print(number, file=out)
    thread.start()
    thread.join()


@task(log_prints=True)
async def prints_in_a_coroutine(name: str, meeting: str) -> None:
    """Print from two coroutines of the same body."""
    import asyncio  # lazy: for the worker

    meet(Path(meeting), name)

    async def say(what: str) -> None:
        for number in range(20):
            print(name, what, number)
            await asyncio.sleep(0)

    await asyncio.gather(say("one"), say("two"))


def meet(folder: Path, name: str) -> None:
    """Wait until the other one is here too, in whatever thread or process, or will not come."""
    (folder / name).touch()
    arrived = threading.Event()
    for _ in range(200):
        if len(list(folder.iterdir())) == 2 or arrived.wait(0.01):
            return


@pytest.mark.parametrize("body", [prints_in_all_ways, prints_in_a_coroutine])
@pytest.mark.parametrize("runner", [TWO_THREADS, "threads", "dask-in-process"], ids=str)
def test_two_bodies_that_print_at_once_keep_their_lines(
    runner: Any, body: Any, tmp_path: Path
) -> None:
    """In threads of one process each line belongs to the task run that printed it, and none is missing."""

    @flow(task_runner=runner)
    def main() -> None:
        body.map(["a", "b"], dflow.unmapped(str(tmp_path))).result()

    main()
    task_runs, logs = record()
    assert len(task_runs) == 2
    said = {
        run.id: [e.message for e in logs if e.task_run_id == run.id] for run in task_runs.values()
    }
    names = set()
    for own in said.values():
        name = own[0].split()[0]
        names.add(name)
        if body is prints_in_all_ways:
            ways = [f"{name} written {n}" for n in range(20)]
            assert own == ways + [f"{name} beside {n}" for n in range(20)]
        else:
            assert [line for line in own if "one" in line] == [f"{name} one {n}" for n in range(20)]
            assert len(own) == 40
    assert names == {"a", "b"}


# The run logger ------------------------------------------------------------------------------------------


class Unspeakable:
    """Cannot be made a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@task
def says_odd_things() -> str:
    """Log what is hard to log."""
    logger = get_run_logger()
    logger.info("%s of %d", "one", 2)
    logger.info("two\nlines", extra={"mine": 1})
    logger.info("none", extra=None)
    logger.warning("%d apples", "many")
    logger.error(Unspeakable())
    logger.info("file \udcff")
    logger.info("100 %")
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        logger.exception("it failed with %s", "args")
    logger.debug("below the level")
    return "done"


def test_nothing_that_is_logged_is_lost(
    runner: TaskRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    """Odd messages arrive as well as they can, in order, and harm neither their body nor the run."""

    @flow(task_runner=runner)
    def main() -> str:
        return says_odd_things.submit().result()

    assert main() == "done"
    said = lines()
    assert said[:3] == ["one of 2", "two\nlines", "none"]
    assert said[3].startswith("%d apples (many) (this line could not be put together")
    assert said[4].startswith("<Unspeakable, which has no readable form> (this line")
    assert said[5:7] == ["file \\udcff", "100 %"]
    assert said[7].startswith("it failed with args\nTraceback")
    assert said[7].endswith("ZeroDivisionError: by zero")
    assert len(said) == 8
    assert "Logging error" not in capsys.readouterr().err


@pytest.mark.parametrize(("level", "heard"), [("DEBUG", 3), ("WARNING", 1)])
def test_the_level_holds_everywhere(
    runner: TaskRunner, level: str, heard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is below DFLOW_LOG_LEVEL is not recorded, of flows, subflows, tasks and their prints."""
    monkeypatch.setenv("DFLOW_LOG_LEVEL", level)

    def say() -> None:
        for one in (logging.DEBUG, logging.INFO, logging.ERROR):
            get_run_logger().log(one, "level %d", one)

    @task(log_prints=True)
    def child() -> None:
        print("printed")
        say()

    @flow
    def sub() -> None:
        say()
        child.submit().result()

    @flow(task_runner=runner)
    def main() -> None:
        say()
        sub()

    main()
    said = lines()
    assert len([line for line in said if line.startswith("level")]) == 3 * heard
    assert said.count("printed") == (level == "DEBUG")


# Extra loggers ---------------------------------------------------------------------------------------------


@task
def uses_a_library(name: str) -> tuple[int, int]:
    """Let a logger of a library speak here, in a thread that knows the run, and in one that does not."""
    library, below = logging.getLogger(EXTRA), logging.getLogger(f"{EXTRA}.part")
    library.info("info of %s", name)
    below.warning("warning of %s", name)
    library.debug("debug of %s", name)
    logging.getLogger("another_of_tests").error("not asked for")
    stray = threading.Thread(target=library.info, args=("stray",))
    known = threading.Thread(
        target=contextvars.copy_context().run, args=(library.info, "known to %s", name)
    )
    for thread in (stray, known):
        thread.start()
        thread.join()
    return len(library.handlers), len(logging.getLogger().handlers)


def test_extra_loggers_speak_to_their_run(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They and those below them, each line once, with task run and worker, and nobody else's."""
    monkeypatch.setenv("DFLOW_EXTRA_LOGGERS", f"{EXTRA}, unused_of_tests")
    handlers = len(logging.getLogger().handlers)

    @flow(task_runner=runner)
    def main() -> list[tuple[int, int]]:
        logging.getLogger(EXTRA).info("the flow")
        return uses_a_library.map(["a", "b"]).result()

    found = main()
    assert [own for own, _ in found] == [0, 0]
    task_runs, logs = record()
    names = {run.id: run.name for run in task_runs.values()}
    for run_id in names:
        said = [e for e in logs if e.task_run_id == run_id]
        name = said[0].message[-1]
        assert [(e.logger, e.level, e.message) for e in said] == [
            (EXTRA, 20, f"info of {name}"),
            (f"{EXTRA}.part", 30, f"warning of {name}"),
            (EXTRA, 20, f"known to {name}"),
        ]
        assert len({(e.worker, e.attempt) for e in said}) == 1
    assert [e.message for e in logs if e.task_run_id is None] == ["the flow"]
    assert logging.getLogger(EXTRA).level == logging.NOTSET
    assert len(logging.getLogger().handlers) == handlers


class Kept(logging.Handler):
    """Keeps what comes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.said.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture
def program() -> Iterator[Kept]:
    """A program that has set up logging of its own, of level INFO."""
    kept, root = Kept(), logging.getLogger()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    yield kept
    root.removeHandler(kept)
    root.setLevel(level)


def test_a_program_with_logging_sees_each_line_once(
    program: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside and outside of runs: records of this process as ever, and of nothing twice."""
    monkeypatch.setenv("DFLOW_EXTRA_LOGGERS", EXTRA)

    @task
    def speaks() -> None:
        logging.getLogger(EXTRA).info("inside")

    @flow(task_runner=InlineTaskRunner())
    def main() -> None:
        speaks.submit().result()
        get_run_logger().info("of the flow")

    logging.getLogger(EXTRA).info("before")
    main()
    logging.getLogger(EXTRA).info("after")
    own = [line for line in program.said if line.startswith(EXTRA)]
    assert own == [f"{EXTRA}: before", f"{EXTRA}: inside", f"{EXTRA}: after"]
    shown = [line for line in program.said if line.startswith("dflow.runs")]
    assert [line for line in shown if line.endswith("inside")] == []
    assert len([line for line in shown if "of the flow" in line]) == 1
    assert lines() == ["inside", "of the flow"]


def test_what_runs_elsewhere_is_shown_here(program: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's lines come to the handlers of the driver, with the task run and the worker."""
    monkeypatch.setenv("DFLOW_EXTRA_LOGGERS", EXTRA)

    @flow(task_runner=ONE_WORKER)
    def main() -> None:
        uses_a_library.submit("a").result()

    main()
    [shown] = [line for line in program.said if "info of a" in line]
    assert re.search(r"INFO +uses[-_]a[-_]library\S* @ tcp://\S+ \| info of a$", shown)


@pytest.mark.parametrize("given", ["a,b.c , ,d", '["a", "b.c", "d"]', "  a, b.c,d  "])
def test_extra_loggers_are_set(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with commas between them, or a list in JSON."""
    from dflow import settings  # lazy: beside its test

    monkeypatch.setenv("DFLOW_EXTRA_LOGGERS", given)
    assert settings.load().extra_loggers == ("a", "b.c", "d")
    assert settings.origins()["extra_loggers"] == "DFLOW_EXTRA_LOGGERS"


@pytest.mark.parametrize("given", ["[a", "[1]", '{"a": 1}x"'])
def test_extra_loggers_that_cannot_be_read(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    from dflow import settings  # lazy: beside its test
    from dflow.errors import SettingsError

    monkeypatch.setenv("DFLOW_EXTRA_LOGGERS", given)
    if given.startswith("["):
        with pytest.raises(SettingsError, match="DFLOW_EXTRA_LOGGERS"):
            settings.load()


# Lost workers ----------------------------------------------------------------------------------------------


@task(max_worker_losses=1)
def dies_once(folder: str) -> int:
    """Kill the process in the first execution."""
    get_run_logger().info("here")
    if current_run().attempt == 1:
        (Path(folder) / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_a_lost_worker_is_announced(processes: TaskRunner, program: Kept, tmp_path: Path) -> None:
    """The driver's log says whose attempt died with which worker, and that it runs again."""

    @flow(task_runner=processes)
    def main() -> int:
        return dies_once.submit(str(tmp_path)).result()

    main()
    task_runs, _ = record()
    [run] = task_runs.values()
    lost = [a for a in run.attempts if a.ending is Ending.LOST]
    shown = [line for line in program.said if ": LOST " in line]
    assert len(shown) == len(lost) == 1
    assert run.name in shown[0]
    assert lost[0].worker in shown[0]
    assert shown[0].endswith("it runs again (loss 1 of 1)")
