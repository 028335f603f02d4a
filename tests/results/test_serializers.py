"""Serializers: what they write comes back the same, or is refused; containers are pickles, too."""

from __future__ import annotations

import gzip
import json
import marshal
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.errors import DefinitionError, SerializationError
from dflow.results import containers, register_serializer
from dflow.results.pickling import dumps_apart
from dflow.results.serializers import find, in_parts
from tests.attempts.shapes import Box, Model

arrays = st.tuples(
    st.sampled_from(["u1", "f8", "c16", "U3", "M8[s]"]), st.lists(st.integers(0, 5), max_size=3)
).map(lambda made: np.zeros(made[1], made[0]))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def whole(name: str, value: Any) -> bytearray:
    """Return a value as the bytes of a file."""
    return bytearray(b"".join(in_parts(find(name).dumps(value))))


def again(name: str, value: Any) -> Any:
    """Return a value after it was written and read."""
    return find(name).loads(whole(name, value))


@pytest.mark.parametrize("name", ["pickle", "json", "compressed/pickle", "compressed/json"])
@given(value=plain)
def test_plain_values_come_back(name, value) -> None:
    """By every serializer, whatever is in them."""
    assert again(name, value) == value


@pytest.mark.parametrize("name", ["pickle", "compressed/pickle"])
@given(value=st.lists(arrays))
def test_arrays_come_back(name, value) -> None:
    """Of every kind and shape, the empty ones too."""
    for array, other in zip(value, again(name, value), strict=True):
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        assert np.array_equal(array, other)


@pytest.mark.parametrize("name", ["pickle", "compressed/pickle"])
def test_arrays_can_be_changed_if_they_could_be(name) -> None:
    """One that was read is as writeable as it was; so are views into memory of another order."""
    fixed = np.zeros(10_000)
    fixed.flags.writeable = False
    turned = np.arange(10_000.0).reshape(100, 100).T
    array, read_only, other = again(name, [np.ones(10_000), fixed, turned])
    array[0] = 5.0
    assert (array[0], read_only.flags.writeable) == (5.0, False)
    assert np.array_equal(other, turned)
    assert array.flags.aligned


def test_objects_come_back() -> None:
    """Instances of classes, models, and functions that have no module."""
    assert again("pickle", [Box(1), Model(content=2)]) == [Box(1), Model(content=2)]
    assert again("pickle", lambda x: x + 1)(1) == 2


def test_data_frames_come_back() -> None:
    """For those of pandas nothing needs to be set."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(10_000), "b": ["x"] * 10_000})
    assert again("pickle", frame).equals(frame)


def test_tensors_come_back() -> None:
    """For those of PyTorch nothing needs to be set."""
    torch = pytest.importorskip("torch")
    tensor = torch.arange(10_000.0)
    assert torch.equal(again("pickle", {"weights": tensor})["weights"], tensor)


# Containers ------------------------------------------------------------------------------------------


@given(st.lists(arrays, max_size=4))
def test_a_container_is_a_pickle(value) -> None:
    """Python reads it by itself, where dflow is installed."""
    for array, other in zip(value, pickle.loads(whole("pickle", value)), strict=True):
        assert np.array_equal(array, other)


def test_a_container_is_not_copied() -> None:
    """Neither when it is made nor when it is read; its arrays are at multiples of 64 bytes."""
    array = np.arange(1000.0)
    pickled, apart = dumps_apart([array, array + 1, b"x"])
    parts = containers.parts(pickled, apart)
    assert np.shares_memory(np.frombuffer(parts[4]), array)
    data = bytearray(b"".join(parts))
    found, buffers = containers.parse(data)
    assert found == pickled
    for number, buffer in enumerate(buffers):
        read = np.frombuffer(buffer)
        assert np.shares_memory(read, np.frombuffer(data, "u1"))
        assert np.array_equal(read, array + number)
        assert (
            read.__array_interface__["data"][0] - np.frombuffer(data, "u1").ctypes.data
        ) % 64 == 0


@given(st.integers(0, 2000), st.binary(max_size=20))
def test_what_is_no_container_is_refused(cut, rest) -> None:
    """One that was cut, or has something else in it, gives an error and no parts."""
    data = whole("pickle", [np.arange(200), "text"])
    for foreign in (data[: min(cut, len(data) - 1)], rest, data + rest + b"!"):
        with pytest.raises(ValueError, match=r"no result of dflow|cut short"):
            containers.parse(foreign)


# JSON ------------------------------------------------------------------------------------------------


def test_json_can_be_read_by_others() -> None:
    """It is plain text, and in the compressed form what gzip understands."""
    value = {"grüße": [1, 2.5, None, True, "\ud800"]}
    assert json.loads(whole("json", value)) == value
    assert "grüße" in whole("json", {"grüße": 1}).decode()
    assert json.loads(gzip.decompress(whole("compressed/json", value))) == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1, 2), "it is a 'tuple'"),
        ({"a": [{"b": (1,)}]}, r"it\['a'\]\[0\]\['b'\] is a 'tuple'"),
        ({1: 2}, "the key 1 of it is a 'int'"),
        ({"a": {1, 2}}, "is a 'set'"),
        ([np.float64(1.0)], r"it\[0\] is a 'float64'"),
        (b"bytes", "'bytes'"),
    ],
)
def test_json_refuses_what_would_come_back_as_something_else(value, said) -> None:
    """A tuple would be a list, a number as a key a text: the error names the place."""
    with pytest.raises(TypeError, match=said):
        find("json").dumps(value)


# Those of users ---------------------------------------------------------------------------------------


class Upside:
    """A serializer of a user's: in several parts."""

    def dumps(self, value: Any) -> list[bytes]:
        """Return a text, backwards, letter by letter."""
        return [letter.encode() for letter in reversed(value)]

    def loads(self, data: bytearray) -> Any:
        """Return it."""
        assert type(data) is bytearray
        return data.decode()[::-1]


def test_users_register_serializers() -> None:
    """An object or a module, under a name; ``compressed/`` goes before it, too. The last one counts."""
    register_serializer("tests.upside", marshal)
    register_serializer("tests.upside", Upside())
    assert whole("tests.upside", "abc") == b"cba"
    assert again("tests.upside", "abc") == again("compressed/tests.upside", "abc") == "abc"


@pytest.mark.parametrize("name", ["", "pickle", "json", "compressed/mine", None])
def test_some_names_cannot_be_registered(name) -> None:
    """Ours, none, and those with a slash."""
    with pytest.raises(DefinitionError):
        register_serializer(name, marshal)


class Half:
    """No serializer."""

    def dumps(self, value: Any) -> bytes:
        """Return a text."""
        return str(value).encode()


def test_half_a_serializer_cannot_be_registered() -> None:
    """The error names the function that is missing."""
    with pytest.raises(DefinitionError, match="no function 'loads'"):
        register_serializer("half", Half())  # type: ignore[arg-type]  # this is what is tested


def test_a_name_that_nobody_registered_says_what_to_do() -> None:
    """It lists those that are known."""
    with pytest.raises(SerializationError, match=r"'nobodys' is not registered.*'pickle', 'json'"):
        find("compressed/nobodys")


def test_no_compressed_bytes_are_missed() -> None:
    """A gzip stream that was cut is refused."""
    data = whole("compressed/json", list(range(1000)))
    with pytest.raises(ValueError, match="cut short"):
        find("compressed/json").loads(data[:-5])


MEMORY = """
import resource, sys, tempfile
import numpy as np
from dflow.core.records import Stored
from dflow.results import files
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
what, folder = sys.argv[1:]
if what == "write":
    array = np.arange(25_000_000.0)
    before = peak()
    print(files.write(files.pack({"array": array}, "pickle"), folder, "runs/a/b"))
else:
    stored = eval(sys.stdin.read())
    before = peak()
    assert files.read(stored, "it")["array"][-1] == 24_999_999.0
print(peak() - before, file=sys.stderr)
"""


def test_a_large_array_costs_no_copy(tmp_path) -> None:
    """200 MB are written with next to no more memory, and read with as much as they need themselves."""

    def run(what: str, text: str = "") -> tuple[str, int]:
        command = [sys.executable, "-c", MEMORY, what, str(tmp_path)]
        ran = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        return ran.stdout, int(ran.stderr)

    stored, writing = run("write")
    _, reading = run("read", stored)
    assert writing < 30e6
    assert reading < 230e6
