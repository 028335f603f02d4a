"""How a function travels: by reference where the other side can import it, by value where it cannot.

By reference the function is ``module:qualname``, found again on the other side in the module itself, so
that the functions of one module share its globals there as they do here. By value it is a pickle, known
by the hash of its content, and unpickled once per process: its globals then live in that pickle.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from dflow.errors import SerializationError
from dflow.results.pickling import MAIN_NAMES, dumps_by_value, loads, main_attribute, script


@dataclass(frozen=True, slots=True)
class ByReference:
    """A function that is found as `qualname` in `module`; the script that was run is ``__main__``."""

    module: str
    qualname: str


@dataclass(frozen=True, slots=True)
class ByValue:
    """A pickled function, and the hash of the pickle."""

    digest: str
    data: bytes


FunctionRef = ByReference | ByValue


def refer(
    function: Callable[..., Any], importable: Callable[[ModuleType], bool], script_there: bool
) -> FunctionRef:
    """Return how `function` travels to a process in which `importable` tells what can be imported.

    `script_there` says whether that process has loaded the script that runs here. Raises
    `SerializationError` for a function that must go by value and cannot be pickled.
    """
    name = getattr(function, "__module__", None) or ""
    module = sys.modules.get(name)
    qualname = getattr(function, "__qualname__", "")
    if name in MAIN_NAMES:
        if script_there and script() is not None and _plain(_find(script(), qualname)) is function:
            return ByReference("__main__", qualname)
    elif module is not None:
        found = _plain(_find(module, qualname)) is function
        if (found or isinstance(function, FunctionType)) and not importable(module):
            return _by_value(function, module)
        if found:
            return ByReference(name, qualname)
    return _by_value(function, None)


def resolve(ref: FunctionRef) -> Callable[..., Any]:
    """Return the function that `ref` speaks of, in this process.

    Raises `SerializationError` when it is not here: its module is missing, or has changed.
    """
    if isinstance(ref, ByValue):
        return _unpickled(ref)
    try:
        if ref.module == "__main__":
            found = _plain(main_attribute(ref.qualname))
        else:
            found = _plain(_find(importlib.import_module(ref.module), ref.qualname))
    except Exception as error:
        raise SerializationError(
            f"The worker cannot load '{ref.qualname}' from module '{ref.module}': {error!r}. "
            "Install the module where the workers run, or put it next to the script."
        ) from error
    if not callable(found):
        raise SerializationError(
            f"Module '{ref.module}' on the worker has no function '{ref.qualname}'. "
            "Restart the workers so that they load the module as it is now."
        )
    function: Callable[..., Any] = found
    return function


_by_digest: dict[str, Callable[..., Any]] = {}


def _unpickled(ref: ByValue) -> Callable[..., Any]:
    if ref.digest not in _by_digest:
        try:
            _by_digest[ref.digest] = loads(ref.data)
        except Exception as error:
            raise SerializationError(
                f"The worker cannot load a function that was sent to it: {error!r}. "
                "Check that the workers have the same packages as the driver."
            ) from error
    return _by_digest[ref.digest]


def _by_value(function: Callable[..., Any], module: ModuleType | None) -> ByValue:
    registered = (
        module is not None and module.__name__ not in cloudpickle.list_registry_pickle_by_value()
    )
    if registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = dumps_by_value(function)
    except Exception as error:
        raise SerializationError(
            f"The function '{getattr(function, '__qualname__', function)}' cannot travel to a worker: "
            f"{error}. "
            "Move it to a module, or open what it holds (locks, connections, files) inside its body."
        ) from error
    finally:
        if registered:
            cloudpickle.unregister_pickle_by_value(module)
    return ByValue(blake2b(data, digest_size=16).hexdigest(), data)


def _find(module: Any, qualname: str) -> Any:
    target = module
    for part in qualname.split("."):
        target = getattr(target, part, None)
    return target


def _plain(found: Any) -> Any:
    """Return the plain function behind a task or a flow; the name in the module is that of the task."""
    if isinstance(found, FunctionType | type):
        return found
    return getattr(found, "function", found)
