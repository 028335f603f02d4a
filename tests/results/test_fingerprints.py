"""Fingerprints: equal content gives equal bytes in every process, and nothing else does."""

from __future__ import annotations

import copy
import enum
import functools
import itertools
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.messages import Ref
from dflow.results.fingerprints import NoFingerprint, fingerprint
from dflow.results.plain_values import SIZE
from dflow.tasks import task


class Colour(enum.Enum):
    """An enum."""

    RED = 1
    GREEN = 2


class Number(enum.IntEnum):
    """An enum of numbers."""

    ONE = 1


class Rights(enum.Flag):
    """Flags, whose combinations have names of their own, and none at all no name."""

    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    """A named tuple."""

    a: Any
    b: Any


@dataclass
class Point:
    """A dataclass."""

    a: Any
    b: Any = 0


@dataclass(frozen=True, slots=True)
class OtherPoint:
    """A dataclass with the same fields."""

    a: Any
    b: Any = 0


class Loaded(Point):
    """Keeps more than its fields say."""


class Model(pydantic.BaseModel):
    """A model."""

    model_config = pydantic.ConfigDict(extra="allow")

    a: Any
    b: Any = 0
    _hidden: int = pydantic.PrivateAttr(default=0)


def with_more(**more: int) -> Loaded:
    """Return a dataclass with attributes that are no fields, in this order."""
    made = Loaded(1, 2)
    vars(made).update(more)
    return made


def model(hidden: int) -> Model:
    """Return a model with a private attribute."""
    made = Model(a=1)
    made._hidden = hidden
    return made


def named(x: int) -> int:
    """Return what came."""
    return x


def other(x: int) -> int:
    """Return what came."""
    return x


@task
def prepared(x: int) -> int:
    """Be a task: its function is found through it."""
    return x


MOMENT = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))

DIFFERENT: list[Any] = [
    None,
    1, True, 1.0, "1", b"1", bytearray(b"1"), 1 + 0j, Decimal(1), np.int64(1), np.int32(1), np.True_,
    np.array(1), np.array([1]), np.array([[1]]), np.array([1], "i4"), np.array([1.0]), Number.ONE,
    0, False, 0.0, -0.0, "", b"", math.inf, -math.inf, math.nan, 10**5000, -(10**5000),
    [], (), set(), {}, [[]], [()], [[], []], [[[]]], {"": []}, {"": {}}, range(0), slice(None),
    ["ab"], ["a", "b"], "ab", ("ab",), ("a", "b"), [["a"], "b"], ["a", ["b"]], [["a", "b"]], {"ab"},
    {"a", "b"}, {"a": "b"}, {"b": "a"}, [("a", "b")], [{"a"}, {"b"}], [{"a", "b"}, set()],
    {"a": {"b"}, "c": set()}, {"a": {"b", "c"}}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {1: "a"}, {"1": "a"},
    {True: "a"}, "a\0b", "a", "a\0", "\udcff", b"\xff", "ü", "u\u0308",
    range(3), range(0, 3, 2), [0, 1, 2], slice(3), slice(0, 3), slice(0, 3, 1), (0, 3, 1),
    date(2024, 1, 2), datetime(2024, 1, 2), datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02", time(2),  # noqa: DTZ001  (on purpose)
    time(2, tzinfo=UTC), timedelta(days=1), timedelta(seconds=1), MOMENT, MOMENT.replace(fold=1),
    MOMENT.astimezone(timezone(timedelta(hours=2))), MOMENT.astimezone(UTC),
    Path("a"), Path("b"), UUID(int=1), UUID(int=2), Colour.RED, Colour.GREEN, Colour, Rights.READ,
    Rights.READ | Rights.WRITE, Rights(0), re.IGNORECASE, "RED",
    Pair(1, 2), Point(1, 2), OtherPoint(1, 2), Loaded(1, 2), with_more(x=1), with_more(x=2), Model(a=1, b=2),
    Model(a=1), Model.model_validate({"a": 1, "c": 2}), model(5), (1, 2), [1, 2], {"a": 1, "b": 3}, Point,
    named, other, prepared.fn, len, print, math.sin, int, str, np, math,
    functools.partial(named, 1), functools.partial(named, 2), functools.partial(named, x=1),
    Ref("a"), Ref("b"),
    np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6), np.zeros((2, 3), "f4"), np.zeros((2, 3), ">f8"),
    np.zeros(0), np.zeros((0, 2)), np.zeros(0, "f4"), np.array("ab"), np.array(["a", "b"]),
    np.array([("a", 1)], [("x", "U1"), ("y", "i8")]), np.array([("a", 1)], [("z", "U1"), ("y", "i8")]),
    np.zeros(1, np.dtype({"names": ["x", "y"], "formats": ["i4", "i4"], "offsets": [0, 0]})),
    np.array(["2024-01-01"], "M8[D]"), np.array(["2024-01-01"], "M8[s]"), np.zeros(3, "V0"),
]  # fmt: skip


def test_no_two_look_alikes_collide() -> None:
    """Of values that differ in type, nesting or content, no two have the same fingerprint."""
    seen: dict[bytes, Any] = {}
    for value in DIFFERENT:
        made = fingerprint(value)
        assert len(made) == SIZE
        assert made not in seen, f"{value!r} has the fingerprint of {seen[made]!r}"
        seen[made] = value


def test_what_is_inside_counts() -> None:
    """Each of these values in a container still differs from every other in the same container."""
    for wrap in (lambda v: [v], lambda v: {"k": v}, Point, lambda v: (0, (v,))):
        assert len({fingerprint(wrap(value)) for value in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        (frozenset("abc"), frozenset("cba")),
        ({1, 2}, frozenset({1, 2})),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (np.arange(6)[::2], np.array([0, 2, 4])),
        (np.float64(1.5), np.float64("1.5")),
        (Path("a/b"), Path("a") / "b"),
        (Path("a/b"), PurePosixPath("a/b")),
        (Point([1], {"x": 2}), Point([1], {"x": 2})),
        (Model(a=[1]), Model(a=[1], b=0)),
        (with_more(x=1, y=2), with_more(y=2, x=1)),
        (functools.partial(named, x=1), functools.partial(named, x=1)),
        ("a" * 1000, "".join(["a"] * 1000)),
    ],
)
def test_equal_content_is_equal(one: Any, two: Any) -> None:
    """Neither the order of dicts and sets counts, nor that of an array's memory."""
    assert fingerprint(one) == fingerprint(two)


def made_by(factor: int) -> Callable[[int], int]:
    """Return a function that calls itself `named`, and is not."""

    @functools.wraps(named)
    def wrapper(x: int) -> int:
        return factor * x

    return wrapper


class Plain:
    """An object that says nothing of its content."""

    def method(self) -> None:
        """Belong to an object."""


REFUSED: list[Any] = [
    lambda x: x, made_by(2), Plain(), Plain().method, object(), threading.Lock(), (x for x in ""),
    [].append, iter([]), np.array([object()]), np.ma.masked_array([1], mask=[True]),
    np.zeros(2).view(np.recarray),
    memoryview(b"a"), type("Local", (), {}), type("Sub", (str,), {})("a"), {1: object()}, {object()},
    Point(object()), [[lambda: 0]], Model(a=object()), functools.partial(lambda: 0),
    np.random.default_rng(0), np.add, list[int], str.upper, dict.fromkeys,
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    """Nothing is guessed: a lambda, an object, a function under another one's name have none."""
    with pytest.raises(NoFingerprint):
        fingerprint(value)


def nested(levels: int) -> Any:
    """Return so many lists in one another."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def test_a_deep_nest_is_refused() -> None:
    """Beyond a hundred levels, and for a list that holds itself, there is no endless recursion."""
    endless: list[Any] = []
    endless.append(endless)
    for value in (endless, nested(101)):
        with pytest.raises(NoFingerprint, match="nested deeper"):
            fingerprint(value)
    assert fingerprint(nested(99))


STABLE = """
import json, sys
from tests.results.test_fingerprints import stable
json.dump([value.hex() for value in stable()], sys.stdout)
"""


def stable() -> list[bytes]:
    """Return the fingerprints of everything here, in its order."""
    return [fingerprint(value) for value in DIFFERENT]


def test_other_processes_and_hash_seeds_agree() -> None:
    """Three processes with hash seeds of their own find the same bytes, for sets and dicts too."""
    found = []
    for seed in "0", "1", "4242":
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
        done = subprocess.run(
            [sys.executable, "-c", STABLE],
            env=environment,
            check=True,
            capture_output=True,
            timeout=60,
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == len(DIFFERENT)


SCRIPT = """
from dataclasses import dataclass
from dflow.results.fingerprints import fingerprint

@dataclass
class Point:
    x: int

def function():
    pass

def shown():
    print(*(fingerprint(v).hex() for v in (Point(1), Point, function)))

if __name__ == "__main__":
    shown()
"""


def test_a_script_and_its_reloaded_self_agree(tmp_path: Path) -> None:
    """What lives in a script has the same fingerprint when the script is loaded again to resume it."""
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    again = (
        "import sys, pathlib; from dflow.entrypoints import load_file; "
        "load_file(pathlib.Path(sys.argv[1])).shown()"
    )
    said = {
        subprocess.run([sys.executable, *how], check=True, capture_output=True, timeout=60).stdout
        for how in ([str(file)], ["-c", again, str(file)])
    }
    assert len(said) == 1


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.decimals(allow_nan=False)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(scalars)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=15,
)


def told_apart(value: Any) -> Any:
    """Return a text for a value that tells apart what fingerprints should."""
    if isinstance(value, dict):
        return ("dict", sorted((told_apart(k), told_apart(v)) for k, v in value.items()).__repr__())
    if isinstance(value, frozenset):
        return ("set", sorted(repr(told_apart(v)) for v in value).__repr__())
    if isinstance(value, list | tuple):
        return (type(value).__name__, repr([told_apart(v) for v in value]))
    if isinstance(value, Point):
        return ("Point", repr((told_apart(value.a), told_apart(value.b))))
    return (type(value).__name__, repr(value))


@given(values, values)
def test_fingerprints_differ_exactly_where_contents_do(one: Any, two: Any) -> None:
    """Two values have one fingerprint if, and only if, they are the same in types and content."""
    assert (fingerprint(one) == fingerprint(two)) == (told_apart(one) == told_apart(two))


@given(values)
def test_a_copy_has_the_same_fingerprint(value: Any) -> None:
    """Identity in memory plays no part."""
    assert fingerprint(copy.deepcopy(value)) == fingerprint(value)


@given(st.dictionaries(st.integers(), st.text(), max_size=4))
def test_the_order_of_a_dict_plays_no_part(value: dict[int, str]) -> None:
    """Every order of the same items gives the same bytes."""
    orders = itertools.permutations(value.items())
    assert len({fingerprint(dict(order)) for order in orders}) == 1
