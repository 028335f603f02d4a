"""Values as files: what was written is read, and what is damaged, foreign or gone is told by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dflow.core.records import Stored
from dflow.errors import MissingResult, ResultDamaged, SerializationError
from dflow.results import files
from dflow.results.stores import store

VALUE: dict[str, Any] = {"weights": np.arange(1000.0), "name": "a model"}
PATH = f"{files.folder_of('root')}/task.1.abcd"


def kept(url: str, path: str = PATH, serializer: str = "pickle") -> Stored:
    """Write a value."""
    return files.write(files.pack(VALUE, serializer), url, path)


@pytest.mark.parametrize("serializer", ["pickle", "compressed/pickle"])
def test_a_value_comes_back_from_its_store(url, serializer) -> None:
    """The record says where it is, how large, and by what it was written."""
    stored = kept(url, serializer=serializer)
    assert (stored.path, stored.serializer) == (PATH, serializer)
    assert stored.size == store(url).size(PATH)
    again = files.read(stored, "train")
    assert np.array_equal(again["weights"], VALUE["weights"])
    assert files.fault(stored) is None
    assert files.fault(stored, deep=True) is None


def test_what_is_gone_is_missing(url) -> None:
    """The error names the run, the file, the store, and what to do."""
    stored = kept(url)
    store(url).delete(PATH)
    with pytest.raises(
        MissingResult, match=r"The value of 'train' is gone: 'runs/root/task.1.abcd'"
    ):
        files.read(stored, "train")
    for deep in (False, True):
        assert "is not there. Resume the run" in (files.fault(stored, deep=deep) or "")


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_byte_gives_a_wrong_value(position, change) -> None:
    """Whichever it is, the value is refused."""
    url = "memory://changed"
    stored = kept(url)
    data = store(url).read(PATH)
    data[position % len(data)] ^= change
    store(url).write(PATH, [data])
    with pytest.raises(ResultDamaged, match="holds other bytes than were written"):
        files.read(stored, "train")
    assert files.fault(stored) is None  # by its size alone it is sound
    assert "other bytes" in (files.fault(stored, deep=True) or "")


@given(st.integers(0, 10**6))
def test_no_file_that_was_cut_gives_a_value(length) -> None:
    """Neither one that has grown."""
    url = "memory://cut"
    stored = kept(url)
    data = bytes(store(url).read(PATH))
    for other in (data[: length % len(data)], data + b"more"):
        store(url).write(PATH, [other])
        with pytest.raises(ResultDamaged, match=f"bytes instead of {len(data)}"):
            files.read(stored, "train")
        assert "bytes instead of" in (files.fault(stored) or "")


def test_a_foreign_file_is_refused_before_anything_is_unpickled(tmp_path: Path) -> None:
    """A pickle that would do harm is never loaded."""
    stored = kept(f"file://{tmp_path}")
    harm = b"cbuiltins\nexit\n(tR."
    (tmp_path / PATH).write_bytes(harm + bytes(stored.size - len(harm)))
    with pytest.raises(ResultDamaged):
        files.read(stored, "train")


def test_what_cannot_be_loaded_here_says_so(url) -> None:
    """Such as what was written by a serializer that is not here, or by another one."""
    stored = kept(url)
    with pytest.raises(SerializationError, match="'nobodys' is not registered in this process"):
        files.read(replace(stored, serializer="nobodys"), "train")
    with pytest.raises(SerializationError, match=r"'train' cannot be loaded here from 'runs/root"):
        files.read(replace(stored, serializer="json"), "train")


@pytest.mark.parametrize("count", [2, 30])
def test_what_is_gone_is_found_out_for_many(url, count) -> None:
    """By name and by size, in several folders; it need not be read."""
    files_of = {f"{n}": kept(url, f"runs/{n % 2}/task.{n}") for n in range(count)}
    files_of["named"] = kept(url, "best.pkl")
    assert files.gone(files_of) == set()
    store(url).delete("runs/0/task.0")
    store(url).write("runs/1/task.1", [b"half"])
    assert files.gone(files_of) == {"0", "1"}
    store(url).delete_folder("runs")
    assert files.gone(files_of) == set(files_of) - {"named"}


def test_ten_thousand_files_need_one_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not looked at one by one."""
    here = store(tmp_path)
    (tmp_path / "runs/root").mkdir(parents=True)
    names = [f"runs/root/{n}.1.ab" for n in range(10_000)]
    for name in names:
        (tmp_path / name).touch()
    records = {name: Stored(here.url, name, 0, "", "pickle") for name in names}
    monkeypatch.setattr(type(here), "size", None)
    assert files.gone(records) == set()


def test_the_files_of_a_run_are_deleted_together(url) -> None:
    """Those of other runs stay, and those that their users have named."""
    kept(url)
    kept(url, "runs/other/task.1.abcd")
    kept(url, "models/best.pkl")
    files.delete_run([url, url], "root")
    files.delete_run([url], "root")
    assert store(url).sizes(files.folder_of("root")) == {}
    assert store(url).size("runs/other/task.1.abcd")
    assert store(url).size("models/best.pkl")
