"""Pickles: small ones, those with arrays apart, and classes of the script that is running."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.results import pickling
from dflow.results.pickling import dumps, dumps_apart, dumps_error, dumps_small, loads
from tests.attempts.shapes import Box, Model

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.builds(Box, inner),
    max_leaves=20,
)


@given(values)
def test_whatever_is_pickled_comes_back(value: Any) -> None:
    """All three ways of pickling give back an equal value."""
    assert loads(dumps(value)) == value
    assert loads(dumps(value, script_by_reference=False)) == value
    assert loads(*dumps_apart(value)) == value


@given(values, st.integers(0, 500))
def test_small_pickles_keep_to_their_limit(value: Any, limit: int) -> None:
    """A pickle within the limit is whole; beyond it there is none; never one that is too large."""
    data = dumps_small(value, limit)
    if data is None:
        assert len(dumps(value)) + 100 > limit
    else:
        assert len(data) <= limit
        assert loads(data) == value


def test_errors_of_a_package_that_travels_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who registers a package means its modules, too: nobody needs it to read what was pickled."""
    package = tmp_path / "travelling"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "errors.py").write_text("class Bad(Exception): pass")
    monkeypatch.syspath_prepend(tmp_path)
    error = importlib.import_module("travelling.errors").Bad("text", 1)
    cloudpickle.register_pickle_by_value(sys.modules["travelling"])
    try:
        data = dumps_error(error, 10_000)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules["travelling"])
    monkeypatch.delitem(sys.modules, "travelling")
    monkeypatch.delitem(sys.modules, "travelling.errors")
    monkeypatch.setattr(sys, "path", [])
    assert repr(loads(data or b"")) == "Bad('text', 1)"


@pytest.mark.parametrize("size", [0, 1, 15_900, 16_384, 20_000, 10_000_000])
@pytest.mark.parametrize("make", [bytes, lambda n: "ü" * n, lambda n: np.zeros(n, "u1")])
def test_the_limit_counts_arrays_and_texts(make: Any, size: int) -> None:
    """The memory of arrays counts as all else does, though pickle would keep it apart."""
    data = dumps_small(make(size), 16_384)
    assert (data is not None) == (len(dumps(make(size))) <= 16_384)
    if data is not None:
        assert np.array_equal(loads(data), make(size))


class Counted:
    """Counts how many of its kind were pickled."""

    pickled = 0

    def __reduce__(self) -> Any:
        """Be pickled."""
        Counted.pickled += 1
        return (int, (1000,))


def test_a_large_value_is_not_pickled_whole() -> None:
    """Soon after the limit is passed nothing more is pickled: a million items cost a few thousand."""
    Counted.pickled = 0
    assert dumps_small([Counted() for _ in range(100_000)], 1000) is None
    assert Counted.pickled < 20_000


def test_a_large_array_is_refused_before_it_is_copied() -> None:
    """An array in a list is refused by its size, whatever its order or type."""
    for array in (np.zeros((300, 300)), np.zeros((300, 300), order="F"), np.zeros(90_000)[::2]):
        assert dumps_small([array], 16_384) is None


@pytest.mark.parametrize("inside", [False, True])
def test_large_bytes_are_copied_once(inside: bool) -> None:
    """Arguments of many megabytes take as much memory again while they are packed, and no more."""
    size = 8_000_000
    data = bytes(size)
    value = {"a": [data]} if inside else data
    tracemalloc.start()
    try:
        assert len(dumps(value)) >= size
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert dumps_small(value, 1000) is None
        _, refused = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * size
    assert refused < size / 10


def test_arrays_go_apart_without_a_copy() -> None:
    """The memory of an array is handed out itself, and the array comes back over it."""
    array = np.arange(1000.0)
    data, apart = dumps_apart({"a": array})
    assert len(data) < 1000
    assert np.shares_memory(np.frombuffer(memoryview(apart[0])), array)
    assert np.array_equal(loads(data, apart)["a"], array)


@pytest.mark.parametrize("value", [threading.Lock(), (x for x in "ab"), sys._getframe()])
def test_what_cannot_be_pickled_raises(value: Any) -> None:
    """A lock is no small value, and no large one: it is an error, also inside a container."""
    with pytest.raises((TypeError, pickle.PicklingError)):
        dumps_small([1, value], 100)
    with pytest.raises((TypeError, pickle.PicklingError)):
        dumps(value)


def test_lambdas_and_models_travel() -> None:
    """Functions without a name and models of pydantic come back alive."""
    assert loads(dumps(lambda x: x + 1))(1) == 2
    assert loads(dumps_small(Model(content=[1]), 1000) or b"") == Model(content=[1])


def test_what_has_no_file_is_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook, a prompt, and a main module whose file is None are no scripts."""
    for file in (None, "", "<stdin>"):
        monkeypatch.setattr(sys.modules["__main__"], "__file__", file, raising=False)
        assert pickling.script() is None


SCRIPT = """
import pickle, runpy, sys
from dataclasses import dataclass
from pathlib import Path
from dflow.attempts.functions import ByReference, ByValue, refer, resolve
from dflow.results.pickling import dumps, dumps_small, lives_in_script, loads
from dflow.tasks import task

@dataclass
class Point:
    x: int

    class Inner:
        pass

@task
def double(point):
    return Point(2 * point.x)

def plain():
    return 1

if __name__ == "__main__":
    there = lambda module: True
    data = dumps([Point(1), Point.Inner, plain])
    assert b"Point" in data and b"dataclass" not in data, data
    assert type(loads(data)[0]) is Point
    assert dumps_small(Point(1), 200) is not None
    assert loads(dumps(double.fn)) is not None
    assert refer(double.fn, there, script_there=True) == ByReference("__main__", "double")
    assert refer(plain, there, script_there=True) == ByReference("__main__", "plain")
    assert resolve(ByReference("__main__", "double")) is double.fn
    for function in (double.fn, plain):
        assert isinstance(refer(function, there, script_there=False), ByValue)
    Path(sys.argv[1]).write_bytes(data)
    Path(sys.argv[2]).write_bytes(dumps(Point(5), script_by_reference=False))
"""

READER = """
import sys
from pathlib import Path
from dflow.attempts.functions import ByReference, resolve
from dflow.results.pickling import loads
from dflow.entrypoints import load_file
module = load_file(Path(sys.argv[3]))
point, inner, plain = loads(Path(sys.argv[1]).read_bytes())
assert type(point) is module.Point and inner is module.Point.Inner and plain is module.plain
assert resolve(ByReference("__main__", "double")) is module.double.fn
assert type(module.double.fn(point)) is module.Point
"""

STRANGER = """
import sys
from pathlib import Path
from dflow.results.pickling import loads
assert loads(Path(sys.argv[2]).read_bytes()).x == 5
try:
    loads(Path(sys.argv[1]).read_bytes())
except Exception as error:
    assert "is not in the script that is running here" in str(error), error
else:
    raise AssertionError("it was read without its script")
"""


def test_classes_of_a_script_are_the_same_in_the_next_process(tmp_path: Path) -> None:
    """What a script pickled is read by whoever loads it again, with its own classes; others are told."""
    files = [str(tmp_path / name) for name in ("by_reference", "by_value", "script.py")]
    Path(files[2]).write_text(SCRIPT)
    subprocess.run([sys.executable, files[2], *files], check=True, timeout=60)
    for code in (READER, STRANGER):
        subprocess.run([sys.executable, "-c", code, *files], check=True, timeout=60)
