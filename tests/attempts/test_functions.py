"""How functions travel: by reference where they are found again, else by value."""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dflow.attempts.functions import ByReference, ByValue, refer, resolve
from dflow.errors import SerializationError
from dflow.tasks import task


def double(x: int) -> int:
    """Return twice as much."""
    return 2 * x


@task
def tripled(x: int) -> int:
    """Be a task: the module has it under the name of its function."""
    return 3 * x


class Tools:
    """Holds a function."""

    @staticmethod
    def halve(x: int) -> float:
        """Return half."""
        return x / 2


def everywhere(_: ModuleType) -> bool:
    """Say that any module can be imported over there."""
    return True


def nowhere(_: ModuleType) -> bool:
    """Say that no module can be imported over there."""
    return False


@pytest.mark.parametrize("function", [double, tripled.fn, Tools.halve, Path.joinpath, len])
def test_functions_of_modules_go_by_reference(function: Callable[..., Any]) -> None:
    """What is found under its name, be it as a task, is named only, and is the same object again."""
    ref = refer(function, everywhere, script_there=False)
    assert ref == ByReference(function.__module__, function.__qualname__)
    assert resolve(ref) is function


@pytest.mark.parametrize(
    "function", [double, tripled.fn, lambda x: 2 * x, functools.partial(double, 2)]
)
def test_other_functions_go_by_value(function: Callable[..., Any]) -> None:
    """What cannot be imported there, or has no name, travels whole and works."""
    ref = refer(function, nowhere, script_there=False)
    assert isinstance(ref, ByValue)
    args = () if isinstance(function, functools.partial) else (2,)
    assert resolve(ref)(*args) == function(*args)


def test_a_closure_takes_what_it_holds_along() -> None:
    """A function made in a function has no name to be found under."""
    factor = 7
    ref = refer(lambda x: factor * x, everywhere, script_there=False)
    assert resolve(ref)(2) == 14


def test_one_value_is_unpickled_once() -> None:
    """The same bytes give the same function: its globals are shared by all that are called here."""
    ref = refer(lambda: 0, nowhere, script_there=False)
    assert resolve(ref) is resolve(ref)


def test_a_function_that_was_replaced_goes_by_value() -> None:
    """A name that means something else by now is not used."""
    original = functools.wraps(double)(lambda x: x)
    assert isinstance(refer(original, everywhere, script_there=False), ByValue)


def test_what_holds_a_lock_cannot_travel() -> None:
    """The error names the function, and says what to do."""
    lock = threading.Lock()

    def guarded() -> None:
        with lock:
            pass

    with pytest.raises(SerializationError, match=r"guarded.*cannot travel.*inside its body"):
        refer(guarded, everywhere, script_there=False)


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[ModuleType]:
    """Make a module that can be changed and forgotten."""
    file = tmp_path / "changing_module.py"
    file.write_text("FACTOR = 2\ndef scale(x):\n    return FACTOR * x\n")
    spec = importlib.util.spec_from_file_location("changing_module", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["changing_module"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("changing_module", None)


def test_by_value_takes_the_globals_of_a_module_along(changing: ModuleType) -> None:
    """A module that is not there over there need not be: its function brings what it uses."""
    ref = refer(changing.scale, nowhere, script_there=False)
    del sys.modules["changing_module"]
    assert resolve(ref)(4) == 8


def test_a_missing_module_or_name_is_said(changing: ModuleType) -> None:
    """The error names the function and the module, and what to do."""
    ref = refer(changing.scale, everywhere, script_there=False)
    del changing.scale
    with pytest.raises(SerializationError, match="has no function 'scale'"):
        resolve(ref)
    with pytest.raises(SerializationError, match=r"'f' from module 'no_such_module'.*Install"):
        resolve(ByReference("no_such_module", "f"))
    with pytest.raises(SerializationError, match="not in the script"):
        resolve(ByReference("__main__", "no_such_function"))


def test_a_function_that_cannot_be_unpickled_is_said(changing: ModuleType) -> None:
    """A function by value that needs a module which is missing gives no bare error of pickle."""
    changing.scale.__defaults__ = (changing,)
    ref = refer(lambda f=changing.scale: f, everywhere, script_there=False)
    del sys.modules["changing_module"]
    with pytest.raises(SerializationError, match="cannot load a function"):
        resolve(ref)
