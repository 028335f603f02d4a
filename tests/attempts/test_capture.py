"""Exceptions in words and back, however odd they are."""

from __future__ import annotations

import asyncio
import copyreg
import importlib
import os
import pickle
import sys
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dflow.attempts import body
from dflow.attempts.calls import Call
from dflow.attempts.capture import MAX_BLOB, MAX_TEXT, MAX_TRACEBACK, capture, rebuild
from dflow.core.events import AttemptRaised
from dflow.core.records import ErrorInfo
from dflow.errors import TaskFailedError
from dflow.results.pickling import dumps_error
from tests.attempts.recorder import Recorder, info


class Plain(Exception):
    """An exception of a user."""

    def __init__(self, message: str, *, code: Any = 0) -> None:
        super().__init__(message)
        self.code = code


class NeedsTwo(Exception):
    """Comes back from a pickle only with what it does not keep."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class NoReduce(Exception):
    """Raises when it is pickled."""

    def __reduce__(self) -> Any:
        """Refuse."""
        raise RuntimeError("no pickling")


class ExitingReduce(Exception):
    """Ends the process when it is pickled."""

    def __reduce__(self) -> Any:
        """Be rude."""
        raise SystemExit(3)


class NoText(Exception):
    """Has no text."""

    def __str__(self) -> str:
        """Refuse."""
        raise RuntimeError("no text")


class ExitingText(Exception):
    """Ends the process when it is shown."""

    def __str__(self) -> str:
        """Be rude."""
        raise SystemExit(3)


class Liar(Exception):
    """Comes back from a pickle as something else."""

    def __reduce__(self) -> Any:
        """Lie."""
        return ValueError, ("other",)


def iter_of(*values: int) -> Any:
    """Return a generator, which cannot be pickled."""
    return (value for value in values)


def cyclic() -> Exception:
    """Return an exception that holds itself, and is its own cause."""
    error = Plain("cyclic")
    error.args = (error,)
    error.__cause__ = error
    return error


ODD: dict[str, Callable[[], BaseException]] = {
    "unpicklable": lambda: Plain("no", code=iter_of(0)),
    "lost on the way": lambda: NeedsTwo("a", "b"),
    "raises when pickled": lambda: NoReduce("x"),
    "exits when pickled": lambda: ExitingReduce("x"),
    "without text": lambda: NoText("x"),
    "exits when shown": lambda: ExitingText("x"),
    "liar": lambda: Liar("x"),
    "cyclic": cyclic,
    "huge": lambda: Plain("x" * 5_000_000),
    "hostile": lambda: Plain("\0\n\udcff\ud800 🦉 [red]"),
    "group": lambda: ExceptionGroup("several", [Plain("a"), ValueError("b")]),
    "exit": lambda: SystemExit(2),
    "interrupt": KeyboardInterrupt,
    "generator exit": GeneratorExit,
}


@pytest.mark.parametrize("kind", ODD)
def test_every_exception_is_captured(kind: str) -> None:
    """Nothing gets out of `capture`, its sizes are kept, and what comes back is an Exception."""
    error = ODD[kind]()
    captured = capture(error)
    assert captured.type_name.endswith(type(error).__name__)
    assert len(captured.text) <= MAX_TEXT
    assert len(captured.traceback) <= MAX_TRACEBACK + 10
    assert captured.blob is None or len(captured.blob) <= MAX_BLOB
    rebuilt = rebuild(captured, "'prepare-0'")
    assert type(rebuilt) is type(error) or isinstance(rebuilt, TaskFailedError)


def test_an_exception_comes_back_as_itself() -> None:
    """Type, arguments, attributes and notes survive, and the traceback is its cause."""
    error = Plain("bad", code=7)
    error.add_note("a note")
    rebuilt = rebuild(capture(raised(error)), "x")
    assert isinstance(rebuilt, Plain)
    assert (rebuilt.args, rebuilt.code, rebuilt.__notes__) == (("bad",), 7, ["a note"])
    assert "def" not in str(rebuilt)
    assert "raise error" in str(rebuilt.__cause__)
    assert "raise error" in "".join(traceback.format_exception(rebuilt))


@pytest.mark.parametrize(
    "kind", ["unpicklable", "lost on the way", "without text", "cyclic", "exit"]
)
def test_what_cannot_be_rebuilt_keeps_its_words(kind: str) -> None:
    """A `TaskFailedError` stands for it: with the run, the type, the text and the traceback."""
    error = ODD[kind]()
    rebuilt = rebuild(capture(raised(error)), "'prepare-0'")
    if not isinstance(rebuilt, TaskFailedError):
        # Where Dask is loaded, it has taught pickle to rebuild an exception without its __init__.
        assert kind == "without text" or (kind == "lost on the way" and "tblib" in sys.modules)
        return
    assert str(rebuilt).startswith("'prepare-0' raised ")
    assert type(error).__name__ in rebuilt.type_name
    assert rebuilt.text in str(rebuilt)
    assert "raise error" in rebuilt.traceback
    assert "raise error" in str(rebuilt.__cause__)


def test_a_blob_that_cannot_be_read_here_says_why() -> None:
    """A class that is missing in this process leaves a `TaskFailedError` that says so."""
    broken = ErrorInfo("lib.Odd", "bad", "trace", blob=b"\x80\x05cno_such_module\nOdd\n.")
    rebuilt = rebuild(broken, "'a-0'")
    assert isinstance(rebuilt, TaskFailedError)
    assert "'a-0' raised lib.Odd: bad (it cannot be rebuilt here" in str(rebuilt)
    assert "no_such_module" in str(rebuilt)


def raised(error: BaseException) -> BaseException:
    """Return an exception that was raised, with its traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def outer() -> None:
    """Raise from deeper, with a cause."""
    try:
        dict[str, int]()["missing"]
    except KeyError as problem:
        raise Plain("could not") from problem


def capture_in_body(function: Callable[..., Any], timeout: float | None = None) -> ErrorInfo:
    """Return what is captured of what a body raises."""
    outcome, _ = body.run(info(timeout=timeout), lambda: (Call(function), {}), Recorder())
    assert isinstance(outcome, AttemptRaised)
    return outcome.error


async def outer_async() -> None:
    """Raise the same on a loop."""
    await asyncio.sleep(0)
    outer()


def outer_items() -> Iterator[int]:
    """Raise the same after an item."""
    yield 1
    outer()


@pytest.mark.parametrize("function", [outer, outer_async, outer_items])
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_traceback_has_the_users_frames_only(
    function: Callable[..., Any], timeout: float | None
) -> None:
    """It begins with the user's function, goes on through causes, and has no line of ours."""
    lines = capture_in_body(function, timeout).traceback
    assert lines.rpartition("direct cause")[2].count(f"in {function.__name__}\n") == 1
    assert os.sep + os.path.join("dflow", "attempts") + os.sep not in lines.replace(__file__, "")
    assert "asyncio" not in lines.replace("asyncio.sleep", "")
    assert "in outer" in lines
    assert "KeyError: 'missing'" in lines
    assert "direct cause" in lines


def test_a_long_traceback_keeps_both_ends() -> None:
    """With a huge message the user's frames are still there, as is the end of the message."""

    def fail() -> None:
        raise Plain("begin" + "x" * 1_000_000 + "end")

    lines = capture_in_body(fail).traceback
    assert "in fail" in lines
    assert lines.rstrip().endswith("end")


def test_an_endless_recursion_is_captured() -> None:
    """A RecursionError leaves room enough for it to be told."""

    def dig() -> None:
        dig()

    captured = capture_in_body(dig)
    assert captured.type_name == "RecursionError"
    assert "in dig" in captured.traceback


def _plain() -> None:
    raise ValueError("the first" + " line\nand a second one")


def _noted() -> None:
    error = KeyError("k")
    error.add_note("look here")
    raise error


def _chained() -> None:
    try:
        _plain()
    except ValueError as error:
        raise OSError("after that") from error


def _meanwhile() -> None:
    try:
        _plain()
    finally:
        raise OSError("meanwhile")


def _deep(levels: int = 9) -> None:
    _deep(levels - 1) if levels else _plain()


class _Empty(Exception):
    """One that is false."""

    def __len__(self) -> int:
        """Return nothing."""
        return 0


def _behind_nothing() -> None:
    raise OSError("after that") from _Empty("nothing")


def _grouped() -> None:
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


def _misspelt() -> None:
    compile("a b", "script.py", "exec")


def _unknown() -> None:
    sorted_numbers = sorted([2, 1])
    print(sorted_nmbers)  # type: ignore[name-defined]  # noqa: F821  (a slip of the pen)
    del sorted_numbers


@pytest.mark.parametrize(
    "body",
    [_plain, _noted, _chained, _meanwhile, _deep, _behind_nothing, _grouped, _misspelt, _unknown],
    ids=lambda f: f.__name__,
)
def test_tracebacks_are_as_python_prints_them(body: Callable[[], None]) -> None:
    """The first time and every other time, whatever kind of traceback it is."""
    for _ in range(3):
        with pytest.raises(Exception) as raised:  # noqa: PT011  (each raises another one)
            body()
        error = raised.value
        frames = error.__traceback__
        expected = "".join(traceback.format_exception(error))
        assert capture(error).traceback == expected
        assert error.__traceback__ is frames


class Met(Exception):
    """One that is pickled by two threads at once."""

    both = threading.Barrier(2)

    def __reduce__(self) -> Any:
        """Wait for the other one."""
        Met.both.wait(10.0)
        return Met, self.args


def test_two_threads_capture_one_exception() -> None:
    """Each has all of it, and the exception is as it was: others raise it, too."""
    with pytest.raises(Met) as raised:
        raise Met("x")
    error, frames = raised.value, raised.value.__traceback__
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(capture, [error, error])
    assert one == other
    assert "in test_two_threads" in one.traceback
    assert one.blob is not None
    assert error.__traceback__ is frames


def test_pickles_of_errors_have_no_tracebacks() -> None:
    """Neither its own nor that of what led to it, though Dask teaches pickle to take them along."""
    with pytest.raises(OSError, match="after that") as raised:
        _chained()
    captured = capture(raised.value)
    assert captured.blob is not None
    found = pickle.loads(captured.blob)
    while found is not None:
        assert found.__traceback__ is None
        found = found.__cause__
    assert "the first line" in captured.traceback


class Usual(Exception):
    """As most exceptions of users are."""


@pytest.mark.parametrize(
    "error",
    [
        Usual(),
        Usual("text", 7, {"a": [1.5, None]}),
        ValueError("text"),
        KeyError(("a", 1)),
        UnicodeDecodeError("utf-8", b"abc", 0, 1, "bad"),
        StopIteration(3),
        FileNotFoundError(2, "text", "name"),
        ImportError("text", name="module"),
        Plain("bad", code=7),
    ],
    ids=repr,
)
def test_exceptions_come_back_where_dask_is_loaded(error: Exception) -> None:
    """Those that pickle knows by itself, and those that need what Dask has taught it."""
    importlib.import_module("distributed")
    captured = capture(raised(error))
    rebuilt = rebuild(captured, "x")
    assert type(rebuilt) is type(error)
    assert (rebuilt.args, vars(rebuilt)) == (error.args, vars(error))
    assert str(rebuilt) == str(error)
    assert captured.blob is not None
    assert pickle.loads(captured.blob).__traceback__ is None


class Strict(Exception):
    """Wants to be told of its state, if of anything."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        """Take what must be there."""
        assert state is not None
        self.code = state["code"]


class Slotted(Exception):
    """Keeps what pickle does not find by itself."""

    __slots__ = ("code",)
    code: int


def _slotted(code: int) -> Slotted:
    error = Slotted("text")
    error.code = code
    return error


def test_nobody_is_given_a_state_that_it_does_not_have() -> None:
    """To look at an exception leaves it as it is."""
    rebuilt = rebuild(capture(raised(Strict("text", 3))), "x")
    assert (type(rebuilt), rebuilt.args) == (Strict, ("text", 3))


def test_the_programs_own_way_of_pickling_is_taken() -> None:
    """What it has registered for an exception counts, as it does for everything else."""
    copyreg.pickle(Slotted, lambda error: (_slotted, (error.code,)))
    try:
        rebuilt = rebuild(capture(raised(_slotted(5))), "x")
    finally:
        del copyreg.dispatch_table[Slotted]
    assert isinstance(rebuilt, Slotted)
    assert rebuilt.code == 5


def test_a_huge_exception_is_not_pickled_to_its_end() -> None:
    """However plain it is: what goes beyond the bound is not made first."""
    error = ValueError({n: ["x" * 60_000 for _ in range(20)] for n in range(20)})  # 24 MB
    tracemalloc.start()
    try:
        assert dumps_error(error, MAX_BLOB) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_BLOB
    finally:
        tracemalloc.stop()
