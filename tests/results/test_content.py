"""The content of values, for keys of caches: the same in every process, another one after any change."""

from __future__ import annotations

import collections
import datetime
import fractions
import functools
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import threading
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydantic
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from dflow import flow, task
from dflow.results import foreign, taking_apart
from dflow.results.fingerprints import NoFingerprint, content, fingerprint
from tests.results.test_fingerprints import DIFFERENT, values


class Plain:
    """An object that says nothing of its content, and holds itself."""

    def __init__(self, x: Any) -> None:
        self.x = x
        self.me = self

    def double(self) -> Any:
        """Return something."""
        return self.x * 2


class Slotted:
    """An object without a dict."""

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


class Colour(Enum):
    """An enum."""

    RED = 1


def scaled(factor: int) -> Callable[[int], int]:
    """Return a function that closes over something."""

    def scale(x: int, offset: int = 0) -> int:
        return factor * x + offset

    return scale


def counting() -> Callable[[int], int]:
    """Return a function that closes over itself."""

    def count(n: int) -> int:
        return 0 if n == 0 else 1 + count(n - 1)

    return count


def local(name: str) -> Any:
    """Return an instance of a class that is made here."""

    @dataclass
    class Config:
        name: str

        def shout(self) -> str:
            return self.name.upper()

    return Config(name)


@task
def prepared(x: int) -> int:
    """Be a task."""
    return x


def frames() -> list[Any]:
    """Return data frames and their like, if pandas and polars are installed."""
    made: list[Any] = []
    if importlib.util.find_spec("pandas"):
        import pandas as pd  # lazy: it is not needed by dflow

        made += [
            pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
            pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
            pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["p", "q"]),
            pd.DataFrame({"a": [1, 2], "c": ["x", "y"]}),
            pd.DataFrame({"b": ["x", "y"], "a": [1, 2]}),
            pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}),
            pd.DataFrame({"a": pd.array([1, 0], dtype="Int64")}), pd.DataFrame(),
            pd.Series([1, 2]), pd.Series([1, 2], name="n"), pd.Series(["x", "y"], dtype="category"),
            pd.Series(["x", "y"], dtype=pd.CategoricalDtype(["y", "x"])),
            pd.Series(["x", "y"], dtype=pd.CategoricalDtype(["x", "y"], ordered=True)),
            pd.Series(pd.date_range("2024", periods=2, tz="UTC")),
            pd.Series(pd.date_range("2024", periods=2, tz="Europe/Berlin")),
            pd.Series(pd.date_range("2024", periods=2)), pd.Index([1, 2]), pd.RangeIndex(1, 3),
            pd.MultiIndex.from_product([[1, 2], ["a"]]), pd.Series([1, "a", None, (1, 2)], dtype=object),
            pd.Series(pd.interval_range(0, 2)), pd.period_range("2024", periods=2, freq="D"),
            pd.to_timedelta([1, 2]), pd.Series(pd.arrays.SparseArray([0, 1])), pd.Timestamp("2024"), pd.NA,
        ]  # fmt: skip
    if importlib.util.find_spec("polars"):
        import polars as pl  # lazy: it is not needed by dflow

        made += [
            pl.DataFrame({"a": [1, None], "b": ["x", "y"]}), pl.DataFrame({"a": [1, 0], "b": ["x", "y"]}),
            pl.DataFrame({"a": [1, 0]}), pl.Series("a", [1, 0]), pl.Series("a", [1, 0], dtype=pl.Int32),
            pl.Series([[1], [2]]), pl.Series(["x", None]), pl.Series(["x", "y"], dtype=pl.Categorical),
            pl.Series([datetime.date(2024, 1, 1)]), pl.Series([True, None]), pl.Series([1.5]),
        ]  # fmt: skip
    return made


def tensors() -> list[Any]:
    """Return tensors and what holds them, if torch is installed."""
    if not importlib.util.find_spec("torch"):
        return []
    import torch  # lazy: it is not needed by dflow

    torch.manual_seed(0)
    return [
        torch.arange(6), torch.arange(6).reshape(2, 3), torch.arange(6).reshape(3, 2).T,
        torch.arange(6, dtype=torch.int32), torch.ones(2), torch.ones(2, dtype=torch.bfloat16),
        torch.nn.Parameter(torch.ones(2)), torch.eye(3).to_sparse(),
        torch.zeros(0), torch.tensor(1.5), torch.float32, torch.device("cpu"), torch.nn.Linear(2, 3),
        torch.nn.Linear(2, 3).state_dict(),
    ]  # fmt: skip


def more() -> list[Any]:
    """Return values that only have a content: no two of them are alike."""
    return [
        Plain(1), Plain(2), Slotted(1), Slotted(2), Plain, Slotted, Plain(1).double, Plain(2).double,
        scaled(2), scaled(3), counting(), lambda x: x, lambda x: x + 1, lambda x, y=1: x, lambda x, y=2: x,
        functools.partial(scaled(2), 1), functools.partial(scaled(2), 2), functools.lru_cache(scaled(4)),
        local("a"), local("b"), type(local("a")), prepared, prepared.with_options(name="other"),
        collections.OrderedDict(a=1), collections.defaultdict(list, a=1), collections.Counter("aab"),
        collections.deque([1]), collections.deque([1], 5), fractions.Fraction(1, 3), re.compile("a"),
        re.compile("a", re.IGNORECASE), logging.getLogger("a"), logging.getLogger("b"),
        zoneinfo.ZoneInfo("Europe/Berlin"), np.random.default_rng(0), np.random.default_rng(1),
        np.random.RandomState(0), np.add, np.mean, np.ma.masked_array([1, 2], [False, True]),
        np.array(["a", None, 1.5], dtype=object), np.array(["a", 1.5, None], dtype=object),
        np.array([(1, 2), 3], dtype=object), list[int], type("Text", (str,), {})("a"), Colour.RED,
        scipy.sparse.csr_array(np.eye(3)), scipy.sparse.csc_array(np.eye(3)),
        scipy.sparse.csr_array(np.eye(2)), scipy.sparse.coo_array(np.eye(3)),
        scipy.sparse.lil_array(np.eye(3)), scipy.sparse.dia_array(np.eye(3)),
        *frames(), *tensors(),
    ]  # fmt: skip


def test_no_two_look_alikes_collide() -> None:
    """Of values that differ in type, nesting, code or content, no two have the same content."""
    seen: dict[bytes, Any] = {}
    for value in (*DIFFERENT, *more()):
        made = content(value)
        assert made not in seen, f"{value!r} has the content of {seen[made]!r}"
        seen[made] = value


PROGRAM = """
import json, sys
from tests.results.test_content import stable
json.dump(stable(), sys.stdout)
"""


def stable() -> list[str]:
    """Return the content of everything here, in its order."""
    return [content(value).hex() for value in (*DIFFERENT, *more())]


def test_other_processes_and_hash_seeds_agree() -> None:
    """Processes with hash seeds of their own find the same: no ids, no addresses, no order of sets."""
    found = []
    for seed in "0", "4242":
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            check=True,
            capture_output=True,
            timeout=60,
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == stable()


SCRIPT = """
def helper(x):
    return x + 1

class Model:
    def fit(self, x):
        return helper(x)
"""


def loaded(text: str, file: Path) -> ModuleType:
    """Return a script as a module, loaded from a file."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("script", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_counts_and_nothing_round_it(tmp_path: Path) -> None:
    """A function that is an argument counts by its code, not by file, layout or comments."""
    one = loaded(SCRIPT, tmp_path / "here" / "script.py")
    other = loaded(
        "# moved\n\n" + SCRIPT.replace("x + 1", "(x\n        + 1)  # more"), tmp_path / "script.py"
    )
    changed = loaded(SCRIPT.replace("x + 1", "x + 2"), tmp_path / "changed" / "script.py")
    assert content(one.helper) == content(other.helper) != content(changed.helper)
    renamed = loaded(
        SCRIPT.replace("helper(x)\n", "helper(2 * x)\n"), tmp_path / "renamed" / "script.py"
    )
    sys.modules["script"] = one  # a class goes by its name, where it is found by it
    try:
        assert content(one.Model) == content(other.Model) != content(renamed.Model)
    finally:
        del sys.modules["script"]


def test_files_count_with_size_and_time(tmp_path: Path) -> None:
    """A path to a file, or to a folder, has another content when a file has changed; its identity has not."""
    file, folder = tmp_path / "data" / "a.csv", tmp_path / "data"
    seen = {content(file), content(folder)}
    folder.mkdir()
    (folder / "deep").mkdir()
    for change in (
        lambda: file.write_text("a"),
        lambda: file.write_text("ab"),
        lambda: os.utime(file, (1, 1)),
        lambda: (folder / "deep" / "b.csv").write_text("b"),
    ):
        change()
        seen |= {content(file), content(folder)}
    assert len(seen) == 2 + 2 + 2 + 2 + 1
    assert content(file) == content(file)
    before = fingerprint(file), content([file, Plain(1)], files=False)
    file.write_text("abc")
    assert before == (fingerprint(file), content([file, Plain(1)], files=False))


def test_a_huge_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for hours, and nothing is guessed."""
    monkeypatch.setattr(taking_apart, "MAX_ENTRIES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(NoFingerprint, match="more than 3 files"):
        content(tmp_path)


def test_the_memory_of_an_array_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that are not contiguous are read in small blocks, with the same result."""
    whole = np.arange(3 * 5 * 7).reshape(3, 5, 7)
    parts = (np.asfortranarray(whole), whole[::-1][::-1], np.flip(np.flip(whole, 1), 1))
    monkeypatch.setattr(foreign, "BLOCK", 64)
    assert {content(part) for part in parts} == {content(whole)}
    assert content(whole[:, ::2]) == content(whole[:, ::2].copy())
    assert content(whole.T) == content(whole.T.copy()) != content(whole)


def test_an_array_in_a_file_is_an_array(tmp_path: Path) -> None:
    """A memory map has the content of the array that it maps."""
    np.save(tmp_path / "a.npy", np.arange(10))
    assert content(np.load(tmp_path / "a.npy", mmap_mode="r")) != content(np.arange(9))
    assert content(np.load(tmp_path / "a.npy", mmap_mode="r")) == content(np.arange(10))


class Adapter:
    """An object that says itself what it is made from."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lock = threading.Lock()

    def __dflow_content__(self) -> Any:
        """Return what counts."""
        return self.url


def test_an_object_may_say_what_counts() -> None:
    """What could not be hashed can, by a method of its class."""
    assert content(Adapter("a")) == content(Adapter("a")) != content(Adapter("b"))


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(), (n for n in [1]), object(), Plain(threading.Lock()), [].append,
        {"deep": [Plain(object())]}, scaled(threading.Lock()),  # type: ignore[arg-type]  # on purpose
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_cannot_be_told_has_no_content(value: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(NoFingerprint):
        content(value)


def test_a_local_class_counts_with_its_methods() -> None:
    """Two classes of one name that are made in functions are told apart by their code."""

    def other(name: str) -> Any:
        @dataclass
        class Config:
            name: str

            def shout(self) -> str:
                return self.name.lower()

        Config.__qualname__ = type(local("")).__qualname__
        return Config(name)

    assert content(local("a")) == content(local("a")) != content(other("a"))


def test_models_and_estimators_count_by_their_state() -> None:
    """A pydantic model by its fields, an estimator by what it has learned."""
    from sklearn.linear_model import LinearRegression  # lazy: it takes seconds

    def fitted(slope: float) -> Any:
        return LinearRegression().fit([[0.0], [1.0]], [0.0, slope])

    class Model(pydantic.BaseModel):
        a: int

    assert content(fitted(1)) == content(fitted(1)) != content(fitted(2))
    assert content(LinearRegression()) == content(LinearRegression()) != content(fitted(1))
    assert content(Model(a=1)) == content(Model(a=1)) != content(Model(a=2))


def test_tasks_and_flows_are_their_functions() -> None:
    """A task that is an argument, or is closed over, counts with its code and its name, in every process."""

    @task
    def inner(x: int) -> int:
        return x

    @task
    def calls_inner(x: int) -> int:
        return inner(x)

    @flow
    def main() -> int:
        return calls_inner(1)

    for one in (inner, calls_inner, main):
        assert content(one) == content(one.with_options(retries=3))
    assert len({content(one) for one in (inner, calls_inner, main)}) == 3


@given(values)
def test_where_there_is_a_fingerprint_the_same_are_equal(value: Any) -> None:
    """Of plain values the content tells apart exactly what fingerprints do."""
    assert (content(value) == content([value])) is False
    assert content(value) == content(value)


@given(st.lists(st.none() | st.text() | st.integers() | st.floats(allow_nan=False), min_size=1))
def test_a_long_column_is_told_from_its_neighbours(items: list[Any]) -> None:
    """Lists of plain values are hashed all at once, and yet by type and content."""
    made = content(np.array([*items, ()], dtype=object)[:-1])
    assert made == content(np.array([*items, ()], dtype=object)[:-1])
    assert made != content(np.array([*items, "more"], dtype=object))


class Labelled(np.ndarray):
    """An array with an attribute of its own, which its pickle forgets."""

    label = ""


def test_order_counts_where_equality_says_so() -> None:
    """Ordered dicts differ with their order; other dicts are equal whatever it is, as in Python."""
    one, other = collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)
    assert content(one) != content(other)
    assert content(dict(one)) == content(dict(other))


def test_what_an_array_carries_beside_its_numbers_counts() -> None:
    """Attributes of a class derived from NumPy's array tell two of them apart."""
    one, other, same = (np.arange(3).view(Labelled) for _ in range(3))
    one.label = same.label = "a"
    other.label = "b"
    assert content(one) == content(same) != content(other)
