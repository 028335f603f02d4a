"""Validation of a flow's parameters: what is converted, what passes as it is, and what errors say."""

from __future__ import annotations

import collections
import functools
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, ParamSpec, TypeVar

import cloudpickle
import numpy as np
import numpy.typing as npt
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Field
from typing_extensions import TypedDict, Unpack

from dflow.engine.parameters import Validator
from dflow.errors import DefinitionError, ParameterError

if TYPE_CHECKING:
    from fractions import Fraction

P = ParamSpec("P")
T = TypeVar("T")
Rows: Any = NewType("Rows", Iterable[int])  # type: ignore[misc]  # people do


class Config(BaseModel):
    """A model."""

    lr: float
    layers: list[int] = []
    names: list[str] = []


@dataclass
class Point:
    """A dataclass of the standard library, with a field that pydantic does not know."""

    x: int
    where: np.ndarray = field(default_factory=lambda: np.zeros(1))


class Colour(Enum):
    """An enum."""

    RED = "red"


class Extras(TypedDict, total=False):
    """Keyword arguments, by name."""

    lr: float
    steps: int


class Tensor:
    """Like a tensor: a class of its own that hands out its data, and does not compare."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Return the data."""
        return np.zeros(2)

    def __iter__(self) -> Iterator[int]:
        """Say that it can be iterated over."""
        return iter([1, 2])

    def __eq__(self, other: object) -> Any:
        raise TypeError("ambiguous")

    __hash__ = None  # type: ignore[assignment]  # as it is with arrays


class Frame:
    """Like a data frame: iterating gives the names of its columns."""

    def __dataframe__(self) -> Any:
        """Take part in the protocol."""

    def __iter__(self) -> Iterator[str]:
        """Give the names of columns."""
        return iter(["a", "b"])


def validator(function: Callable[..., Any], what: str = "flow 'f'") -> Validator:
    """Return the validator of a function."""
    return Validator(what, function, inspect.signature(function))


def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function with validated arguments."""
    positional, named = validator(function).validated(args, kwargs)
    return function(*positional, **named)


def typed(hint: Any, value: Any) -> Any:
    """Return what becomes of a value that is given for a parameter with this annotation."""

    def function(x): ...

    function.__annotations__ = {"x": hint}
    positional, named = validator(function).validated((value,), {})
    assert positional == ()
    return named["x"]


def refused(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return the message with which arguments are refused."""
    with pytest.raises(ParameterError) as caught:
        validator(function).validated(args, kwargs)
    return str(caught.value)


def refused_as(hint: Any, value: Any) -> str:
    """Return the message with which a value is refused for this annotation."""
    with pytest.raises(ParameterError) as caught:
        typed(hint, value)
    return str(caught.value)


# What is converted --------------------------------------------------------------------------------------

CONVERTED: list[tuple[Any, Any, Any]] = [
    (int, "5", 5),
    (int, 5.0, 5),
    (float, 3, 3.0),
    (bool, "true", True),
    (Optional[int], "5", 5),  # noqa: UP045  (another class than the one below)
    (int | None, None, None),
    (int | str, "5", "5"),
    (int | list[int], ["5"], [5]),
    (Literal["a", 1], "a", "a"),
    (datetime, "2024-05-01T10:00:00Z", datetime(2024, 5, 1, 10, tzinfo=timezone.utc)),  # noqa: UP017
    (date, "2024-05-01", date(2024, 5, 1)),
    (Path, "a/b", Path("a/b")),
    (Colour, "red", Colour.RED),
    (Annotated[int, Field(gt=0)], "5", 5),
    (list[int], ("1", 2), [1, 2]),
    (tuple[int, ...], ["1"], (1,)),
    (dict[str, list[float]], {"a": [1]}, {"a": [1.0]}),
    (collections.deque[int], ["1"], collections.deque([1])),
    (Sequence[int], ["1"], [1]),
    (Mapping[str, int], {"a": "1"}, {"a": 1}),
    (Config, {"lr": "0.5"}, Config(lr=0.5)),
    (list[Config], [{"lr": 1}], [Config(lr=1)]),
    (float, np.float32(0.5), 0.5),
    (int, np.int64(7), 7),
    ("int", "5", 5),
    ("list['Config']", [{"lr": 1}], [Config(lr=1)]),
    (list["int"], ["5"], [5]),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "wanted"), CONVERTED, ids=lambda given: repr(given)[:60])
def test_a_value_is_converted(hint: Any, value: Any, wanted: Any) -> None:
    """What pydantic converts arrives converted, and of the type that is annotated."""
    got = typed(hint, value)
    assert got == wanted
    assert type(got) is type(wanted)


@given(st.integers(), st.floats(allow_nan=False), st.lists(st.integers()), st.text())
def test_text_becomes_numbers_and_what_fits_stays(
    whole: int, real: float, several: list[int], text: str
) -> None:
    """For any values: their texts are read as numbers, and values of the right type come out equal."""

    def function(a: int, b: float, c: list[int], d: str, e: int | None = None) -> Any:
        return a, b, c, d, e

    assert called(function, str(whole), repr(real), several, text, whole) == (
        whole, real, several, text, whole,
    )  # fmt: skip


@given(st.dictionaries(st.sampled_from("abcde"), st.integers().map(str)), st.booleans())
def test_only_what_is_given_is_validated(given_values: dict[str, str], by_place: bool) -> None:
    """For any choice of arguments: those become numbers, and the others are not among the arguments."""

    def function(
        a: int = "x", b: int = "x", c: int = "x", *, d: int = "x", e: int = "x"  # type: ignore[assignment]  # wrong on purpose
    ) -> None: ...  # fmt: skip

    args: tuple[str, ...] = ()
    if by_place and "a" in given_values:
        args = (given_values["a"],)
        given_values = {name: value for name, value in given_values.items() if name != "a"}
    positional, named = validator(function).validated(args, given_values)
    wanted = {name: int(value) for name, value in given_values.items()}
    assert (positional, named) == ((), wanted | ({"a": int(args[0])} if args else {}))


def test_a_dict_becomes_a_dataclass() -> None:
    """Its fields are validated, those that pydantic does not know by their class, and none is dropped."""
    where = np.ones(3)
    point = typed(Point, {"x": "1", "where": where})
    assert isinstance(point, Point)
    assert point.x == 1
    assert point.where is where
    assert "'x.colour'" in refused_as(Point, {"x": 1, "colour": "red"})
    assert "'x.where': Input should be an instance of ndarray" in refused_as(
        Point, {"x": 1, "where": [1]}
    )


def test_every_kind_of_parameter() -> None:
    """Positional-only, several, keyword-only and named ones are validated, and arrive where they belong."""

    def function(a: int, /, b: int, *args: int, c: int, d: int = 9, **kwargs: float) -> Any:
        return a, b, args, c, d, kwargs

    assert called(function, "1", "2", "3", "4", c="5", lr="0.5", a="7") == (
        1, 2, (3, 4), 5, 9, {"lr": 0.5, "a": 7.0},
    )  # fmt: skip
    said = refused(function, "1", "2", "3", "x", c="y", lr="z")
    for place in ("'args[1]': ", "'c': ", "'lr': "):
        assert place in said


def test_named_arguments_by_a_typed_dict() -> None:
    """``**kwargs: Unpack[…]`` validates each name by its own type, and refuses others."""

    def function(**kwargs: Unpack[Extras]) -> Any:
        return kwargs

    assert called(function, lr="0.5", steps="3") == {"lr": 0.5, "steps": 3}
    said = refused(function, lr="x", speed=1)
    assert "'lr': " in said
    assert "'speed': " in said


def test_odd_names() -> None:
    """Names that mean something to pydantic, or that it refuses in models, are names like others."""

    def function(
        _x: int, __y: int, schema: int, model_config: int, model_fields: int, json: int,
        copy: int, validate: int, x: int, loc: int, **model_dump: int,
    ) -> Any:  # fmt: skip
        return locals()

    names = list(inspect.signature(function).parameters)[:-1]
    got = called(function, **dict.fromkeys([*names, "self", "extra"], "1"))
    assert got.pop("model_dump") == {"self": 1, "extra": 1}
    assert got == dict.fromkeys(names, 1)


# What passes as it is -----------------------------------------------------------------------------------

MODEL, POINT, ARRAY, TENSOR = Config(lr=1), Point("no number"), np.ones(3), Tensor()  # type: ignore[arg-type]  # wrong on purpose
SAME: list[tuple[Any, Any]] = [
    (Config, MODEL),
    (Point, POINT),
    (Config | None, MODEL),
    (np.ndarray, ARRAY),
    (npt.NDArray[np.float64], ARRAY),
    (npt.ArrayLike, ARRAY),
    (np.ndarray | list[float], ARRAY),
    (dict[str, np.ndarray], {"a": ARRAY}),
    (inspect.Parameter.empty, ARRAY),
    (Any, ARRAY),
    (object, ARRAY),
    (T, ARRAY),
    (Tensor, TENSOR),
    (Tensor | None, TENSOR),
    (Callable[[int], int], abs),
    (type[Config], Config),
    (len, "not checked: a function, not a class"),
    ("Fraction", "only known to type checkers"),
    ("list[Fraction]", ARRAY),
    ("this is no Python", "x"),
    ("1 / 0", "x"),
    (5, "x"),
    ((int, str), "x"),
    (..., "x"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.* is not a Python type:UserWarning")
@pytest.mark.parametrize(("hint", "value"), SAME, ids=lambda given: repr(given)[:60])
def test_a_value_passes_as_it_is(hint: Any, value: Any) -> None:
    """Objects of their type are not copied; what cannot be checked is not checked."""
    got = typed(hint, value)
    if isinstance(value, dict):
        got, value = got["a"], value["a"]
    assert got is value


def test_one_annotation_that_means_nothing_leaves_the_others() -> None:
    """The other parameters are validated all the same."""

    def function(a: Fraction, b: int, c: int) -> Any:
        return a, b, c

    assert called(function, "1/2", "2", "3") == ("1/2", 2, 3)
    assert "'c': " in refused(function, "1/2", "2", "x")


def test_an_incomplete_model_leaves_the_others() -> None:
    """A model that speaks of a class that nobody knows has no schema: its dict passes as it is."""

    class Incomplete(BaseModel):
        a: Nowhere  # type: ignore[name-defined]  # noqa: F821  (nobody knows it)

    def function(x: Incomplete, y: int) -> Any:
        return x, y

    function.__annotations__["x"] = Incomplete
    assert called(function, {"a": 1}, "2") == ({"a": 1}, 2)


def test_a_local_class_in_a_closure_is_found() -> None:
    """A class that the function itself uses is known by its closure; one that it does not use passes."""

    class Known(BaseModel):
        a: int

    class Unknown(BaseModel):
        a: int

    def function(x: Known, y: Unknown) -> Any:
        assert issubclass(Known, BaseModel)
        return x, y

    assert called(function, {"a": "1"}, {"a": "1"}) == (Known(a=1), {"a": "1"})


def test_a_closure_without_a_value_yet() -> None:
    """A name that is only bound later does no harm."""

    def function(x: int) -> Any:
        return x, later

    assert validator(function).validated(("1",), {}) == ((), {"x": 1})
    later = 1


def test_defaults_are_the_functions_own() -> None:
    """They are neither validated nor filled in, and giving the default None is as good as giving none."""

    def function(x: int = None, y: int = "y", *args: int, z: int = "z") -> Any:  # type: ignore[assignment]  # noqa: RUF013  (wrong on purpose)
        return x, y, args, z

    assert called(function) == (None, "y", (), "z")
    assert called(function, None) == (None, "y", (), "z")
    assert called(function, z="1", x="2") == (2, "y", (), 1)
    assert "'z': " in refused(function, z=None)


class Trainer:
    """Has flows among its methods."""

    rate = 0.5

    def train(self, x: int) -> Any:
        """Be a method."""
        return self, x

    def annotated(self: int, x: int) -> Any:  # type: ignore[misc]  # wrong on purpose
        """Say something odd of self."""
        return self, x

    @classmethod
    def build(cls: type[int], x: int) -> Any:  # type: ignore[misc]  # the same
        """Be a class method."""
        return cls, x

    def __call__(self, x: Config) -> Any:
        """Be called itself."""
        return x


def test_methods() -> None:
    """The object or class of a method passes as it is, bound or not; the others are validated."""
    trainer = Trainer()
    assert called(Trainer.train, trainer, "1") == (trainer, 1)
    assert called(trainer.train, "1") == (trainer, 1)
    assert called(Trainer.annotated, trainer, "1") == (trainer, 1)
    assert called(Trainer.__dict__["build"].__func__, Trainer, "1") == (Trainer, 1)
    build: Any = Trainer.build  # type: ignore[misc]  # as above
    assert called(build, "1") == (Trainer, 1)


def test_functions_in_wrappings() -> None:
    """The names of annotations are looked up where the function was written, whatever is round it."""

    def plain(x: Config, y: int) -> Any:
        return x, y

    wrapper: Callable[..., Any] = eval(
        "lambda *args, **kwargs: plain(*args, **kwargs)", {"plain": plain}
    )
    wrapped = functools.wraps(plain)(wrapper)
    for function in (plain, wrapped, functools.partial(plain), functools.partial(wrapped, y=2)):
        assert called(function, {"lr": 1}, y="2") == (Config(lr=1), 2)
    assert called(Trainer(), {"lr": 1}) == Config(lr=1)


def test_a_wrapper_of_any_arguments() -> None:
    """``*args: P.args`` says nothing of values."""

    def handing_on(inner: Callable[P, Any]) -> Callable[P, Any]:
        def function(*args: P.args, **kwargs: P.kwargs) -> Any:
            return inner(*args, **kwargs)

        return function

    def plain(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert called(handing_on(plain), "1", a="2") == (("1",), {"a": "2"})


# Streams and arrays -------------------------------------------------------------------------------------

STREAMS: list[Any] = [
    Iterable, Iterable[int], collections.abc.Iterable, Optional[Iterable[int]], Rows,  # noqa: UP045
    Annotated[Iterable[int], "words"], str | Iterable[int], "Iterable[int]",
]  # fmt: skip


@pytest.mark.parametrize("hint", STREAMS, ids=str)
def test_an_iterable_passes_as_it_is(hint: Any) -> None:
    """A list stays that list, to be read more than once; a generator is not begun; an array stays one."""
    generator = (number for number in [1, 2])
    for value in ([1, 2], (1, 2), {1: 2}, ARRAY, generator):
        assert typed(hint, value) is value
    assert list(generator) == [1, 2]
    assert "'x" in refused_as(hint, 5)


def test_iterables_in_containers_pass_as_they_are() -> None:
    """So it is at any depth of containers."""
    rows = [1, 2]
    assert typed(list[Iterable[int]], [rows])[0] is rows
    assert typed(dict[str, Iterable[int] | None], {"a": rows, "b": None})["a"] is rows
    assert typed(tuple[Iterable[int], int], (rows, "1")) == (rows, 1)
    assert typed(Sequence[Iterable[str]], [rows])[0] is rows


@pytest.mark.parametrize("hint", [Iterator[int], Generator[int, None, None]], ids=str)
def test_a_list_is_no_generator(hint: Any) -> None:
    """A generator passes and is not begun; what is none is refused, not made one."""
    generator = (number for number in [1, 2])
    assert typed(hint, generator) is generator
    assert "'x': Input should be an instance of" in refused_as(hint, [1, 2])


LISTS: list[Any] = [
    list, list[float], tuple[float, ...], set[float], Sequence[float], Sequence,
    Annotated[list[float], Field(min_length=1)], list[float] | None,
]  # fmt: skip


@pytest.mark.parametrize(
    "value", [np.ones(2), TENSOR, Frame()], ids=lambda each: type(each).__name__
)
@pytest.mark.parametrize("hint", LISTS, ids=str)
def test_an_array_is_not_taken_for_a_list(hint: Any, value: Any) -> None:
    """An array, a tensor or a data frame is refused with a way out, not taken apart."""
    said = refused_as(hint, value)
    assert "'x': An array or a data frame is not taken for a list: convert it" in said


def test_an_array_is_not_taken_for_a_list_inside() -> None:
    """Nor is it in a container, and the error names the place."""
    assert "'x[a][1]'" not in (
        said := refused_as(dict[str, list[list[float]]], {"a": [[1], ARRAY]})
    )
    assert "'x.a[1]': An array or a data frame" in said


# What errors say ----------------------------------------------------------------------------------------


def test_every_wrong_field_is_named() -> None:
    """One error names all of them, each with its place, what was given, and why it does not fit."""

    def function(a: int, b: Config, c: int, d: Annotated[int, Field(gt=0)], e: Colour) -> None: ...

    said = refused(function, "x", {"lr": [], "names": ["one", 2]}, 1, -1, e="blue")
    first, *reasons, last = said.splitlines()
    assert first == "The parameters of flow 'f' do not fit:"
    assert reasons == [
        "  'a': Input should be a valid integer, unable to parse string as an integer (given: 'x')",
        "  'b.lr': Input should be a valid number (given: [])",
        "  'b.names[1]': Input should be a valid string (given: 2)",
        "  'd': Input should be greater than 0 (given: -1)",
        "  'e': Input should be 'red' (given: 'blue')",
    ]
    assert last == "Give values that fit the annotations, or change the annotations."


def test_each_branch_of_a_union_has_its_reason() -> None:
    """The error names the kinds of value that would have been possible."""
    said = refused_as(int | list[int] | Config, "x")
    assert "'x.int': Input should be a valid integer" in said
    assert "'x.list[int]': Input should be a valid list" in said
    assert "'x.Config': Input should be a valid dictionary or instance of Config" in said


def test_a_missing_field_is_named() -> None:
    """So is what a model needs and has not been given."""
    assert "'x.lr': Field required (given: {'layers': []})" in refused_as(Config, {"layers": []})


def test_a_wrong_call_shows_the_signature() -> None:
    """Arguments that the function does not take are refused with what it takes, annotated or not."""
    for function in (lambda x: x, Trainer().train):
        assert "Its parameters are (x" in refused(function, 1, 2)
        assert "missing a required argument: 'x'" in refused(function)


class Unprintable:
    """Raises whenever somebody looks at it."""

    def __repr__(self) -> str:
        raise RuntimeError("cannot look")


class Wordy:
    """Says more than anybody wants to read."""

    def __repr__(self) -> str:
        return "wordy\n" * 100_000


class Countless(list[int]):
    """Would take for ever to show whole."""

    def __iter__(self) -> Iterator[int]:
        """Never end."""
        while True:
            yield 1


GUARDED: list[tuple[Any, str]] = [
    (Unprintable(), "Unprintable"),
    ([Unprintable()], "Unprintable"),
    (Wordy(), "wordy wordy"),
    ("x" * 1_000_000, "xxx"),
    (b"x" * 1_000_000, "xxx"),
    (bytearray(1_000_000), "bytearray"),
    (10**5_000, "cannot be shown: ValueError"),
    ({"a": {"b": ["x" * 1_000] * 1_000}}, "'b'"),
    (np.zeros(1_000_000), "array("),
    ("\x1b[31m\n", r"\x1b[31m\n"),
    ("\udcff", r"\udcff"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "said"), GUARDED, ids=lambda given: type(given).__name__)
def test_values_are_shown_shortened(value: Any, said: str) -> None:
    """Whatever was given, its line in the error is short, is one line, and does not fail."""
    message = refused_as(Config, value)
    assert len(message.splitlines()) == 3
    assert len(message) < 600
    assert said in message
    message.encode()


def test_a_large_list_is_not_read_to_its_end() -> None:
    """Showing a value costs little, however much it holds."""
    assert "(given: [0, 1, 2, 3, 4, 5, ...])" in refused_as(Config, list(range(1_000_000)))


def test_many_wrong_items_are_counted() -> None:
    """Of many errors in one parameter the first are shown; every parameter is named."""

    def function(a: list[int], b: int) -> None: ...

    said = refused(function, ["x"] * 10_000, "y")
    assert "'a[9]': " in said
    assert "'a[10]'" not in said
    assert "'a': … and 9990 more" in said
    assert "'b': " in said


def test_long_places_and_reasons_are_shortened() -> None:
    """Keys and messages of the user's own may be of any length."""

    def angry(_value: Any) -> Any:
        raise ValueError("angry\n" * 10_000)

    said = refused_as(dict[str, Annotated[int, BeforeValidator(angry)]], {"k\n" * 10_000: 1})
    assert len(said) < 1_200
    assert len(said.splitlines()) == 3


class Mute(Exception):
    """Cannot say what it is about."""

    def __str__(self) -> str:
        raise RuntimeError("mute")


@pytest.mark.parametrize(
    "error", [KeyError("k"), Mute(), pydantic.PydanticUserError("u", code=None)]
)
def test_a_validator_of_the_users_own_that_breaks(error: Exception) -> None:
    """What it raises names the parameter too, beside all others, and is the cause of the error."""

    def broken(_value: Any) -> Any:
        raise error

    def function(a: int, b: Annotated[int, BeforeValidator(broken)]) -> None: ...

    function.__annotations__ = {"a": int, "b": Annotated[int, BeforeValidator(broken)]}
    with pytest.raises(ParameterError) as caught:
        validator(function).validated(("x", 1), {})
    said = str(caught.value)
    assert "'a': Input should be a valid integer" in said
    assert f"'b': its validation raised {type(error).__name__}: " in said
    assert "(given: 1)" in said
    assert caught.value.__cause__ is error


def test_interrupts_go_through() -> None:
    """Ctrl-C while values are validated is no wrong parameter."""

    def interrupted(_value: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        typed(Annotated[int, BeforeValidator(interrupted)], 1)


def test_no_pages_of_pydantic() -> None:
    """Neither the message nor what is shown with it leads to pydantic's pages."""
    for hint, value in ((int, "x"), (Config, {}), (list[int], ["x"]), (int | list[int], "x")):
        with pytest.raises(ParameterError) as caught:
            typed(hint, value)
        assert "errors.pydantic.dev" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_error_is_one_of_definition_and_survives_pickle() -> None:
    """It can be caught as what it is, also by whoever expects a TypeError."""
    with pytest.raises(ParameterError) as caught:
        typed(int, "x")
    assert isinstance(caught.value, DefinitionError)
    assert isinstance(caught.value, TypeError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# When it is built ---------------------------------------------------------------------------------------


def test_nothing_is_loaded_without_annotations() -> None:
    """A function without annotations is called without pydantic, whose import takes its time."""
    program = (
        "import inspect, sys\n"
        "from dflow.engine.parameters import Validator\n"
        "def f(self, x, *args, y=1, **kwargs): ...\n"
        "made = Validator('f', f, inspect.signature(f))\n"
        "assert made.validated((1, 2, 3), {'z': 4}) == ((1, 2, 3), {'z': 4})\n"
        "print([name for name in sys.modules if name.startswith('pydantic')])\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert fresh.stdout == "[]\n"


def test_it_is_built_at_the_first_call_and_kept() -> None:
    """What an annotation speaks of may come after the function, and is looked up only once."""
    names: dict[str, Any] = {}
    exec("def function(x: 'Later'): ...", names)
    made = validator(names["function"])
    names["Later"] = int
    assert made.validated(("1",), {}) == ((), {"x": 1})
    names["Later"] = str
    assert made.validated(("1",), {}) == ((), {"x": 1})


def test_threads_build_it_once() -> None:
    """Threads that call while it is built wait for it: all get valid arguments, from one building."""
    built = []
    results: list[Any] = []
    others = [threading.Thread(target=lambda: results.append(call())) for _ in range(3)]

    class Counted:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            """Count how often a schema is asked for, and let the other threads ask, too."""
            built.append(source)
            if len(built) == 1:
                for thread in others:
                    thread.start()
                others[0].join(timeout=0.2)  # it would end here if nobody held it up
            return handler(int)

    def function(x): ...

    function.__annotations__ = {"x": Counted}
    made = validator(function)

    def call() -> Any:
        return made.validated(("1",), {})

    results.append(call())
    for thread in others:
        thread.join()
    assert results == [((), {"x": 1})] * 4
    assert built == [Counted]


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_it_travels(dumps: Callable[[Any], bytes]) -> None:
    """A validator survives pickle, before and after its first call."""
    made = validator(Trainer.train)
    for _ in range(2):
        again = pickle.loads(dumps(made))
        assert again.validated((None, "1"), {}) == made.validated((None, "1"), {})
