"""Calls as bytes: they come back, and what cannot travel is named."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dflow.attempts.calls import Call
from dflow.attempts.functions import ByReference
from dflow.attempts.packing import PackedCall, Packer, unpack
from dflow.errors import SerializationError
from dflow.messages import Ref
from dflow.results.pickling import dumps
from tests.attempts.shapes import Box, SlottedBox

LOCK = threading.Lock()


def add(x: Any, y: Any = 0) -> Any:
    """Return the sum."""
    return x + y


def everywhere(_: ModuleType) -> bool:
    """Say that any module can be imported over there."""
    return True


@pytest.fixture
def packer() -> Packer:
    """Return a packer for workers that have every module."""
    return Packer(everywhere, script_there=False)


def test_a_call_comes_back(packer: Packer) -> None:
    """Function, arguments, shared arguments and references are the same on the other side."""
    call = Call(add, (Ref("a"),), {"y": [1]}, {"z": 2}, has_refs=True)
    assert unpack(packer.pack(call)) == call


def test_what_is_shared_is_pickled_once(packer: Packer) -> None:
    """The items of a map carry one and the same bytes, which need be unpickled only once."""
    shared = {"y": list(range(1000))}
    one, two = (packer.pack(Call(add, (), {"x": x}, shared)) for x in (1, 2))
    assert one.shared is two.shared
    assert one.function is two.function
    assert unpack(two, {"y": 5}).shared == {"y": 5}
    assert packer.pack(Call(add, (), {"x": 1}, {"y": 3})).shared == dumps({"y": 3})


CULPRITS = {
    "'x'": LOCK,
    "'x'[1]": [0, LOCK],
    "'x'[0]['deep']": ({"deep": LOCK},),
    "'x'.content": Box(LOCK),
    "'x'.content.content": SlottedBox(Box(LOCK)),
    "'x'.inner[2]": SimpleNamespace(inner=[1, 2, LOCK]),
}


@pytest.mark.parametrize("path", CULPRITS)
@pytest.mark.parametrize("shared", [False, True])
def test_what_cannot_travel_is_named(packer: Packer, path: str, shared: bool) -> None:
    """The error has the parameter, the path in it, the type and the task, for shared arguments too."""
    given = {"x": CULPRITS[path], "y": 1}
    call = Call(add, (), {}, given) if shared else Call(add, (), given)
    with pytest.raises(SerializationError) as caught:
        packer.pack(call)
    assert f"The argument {path} of task 'add' cannot travel" in str(caught.value)
    assert "it is a '_thread.lock'" in str(caught.value)


def test_a_positional_argument_is_named_by_its_place(packer: Packer) -> None:
    """Arguments of ``*args`` have no name, so they have a number, from 1."""
    with pytest.raises(SerializationError, match="The argument '#2' of task 'add'"):
        packer.pack(Call(add, (1, LOCK)))


@pytest.mark.parametrize("value", [(x for x in "ab"), open(sys.executable, "rb")])  # noqa: SIM115  (closed below)
def test_generators_and_files_cannot_travel(packer: Packer, value: Any) -> None:
    """What lives in one process only is refused when it is submitted."""
    with pytest.raises(SerializationError, match="'x'"):
        packer.pack(Call(add, (), {"x": value}))
    value.close()


class Unreadable:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self) -> Any:
        """Be pickled as something that raises when it is called."""
        return int, ("no number",)


def test_what_cannot_be_loaded_is_said(packer: Packer) -> None:
    """On the other side the error names the task, be it an argument or a shared one."""
    for call in (Call(add, (Unreadable(),)), Call(add, (), {}, {"x": Unreadable()})):
        with pytest.raises(SerializationError, match="arguments of task 'add' cannot be loaded"):
            unpack(packer.pack(call))
    with pytest.raises(SerializationError, match="no_module"):
        unpack(PackedCall(ByReference("no_module", "f"), dumps(((), {}))))
