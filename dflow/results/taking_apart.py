"""What objects, classes, functions and files consist of, as plain values: for hashing their content."""

from __future__ import annotations

import copyreg
import os
import sys
import sysconfig
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, Final

from dflow.results.foreign import NoForm
from dflow.results.pickling import MAIN_NAMES

MAX_ENTRIES: Final = 100_000
"""How many files a folder may hold to be looked at."""


# Files -----------------------------------------------------------------------------------------------


def of_path(path: Path) -> Any:
    """Return size and time of a file, or of all files in a folder; None if there is nothing."""
    try:
        if not path.is_dir():
            found = path.stat()
            return found.st_size, found.st_mtime_ns
        entries = []
        for entry in _files(str(path)):
            found = entry.stat()
            entries.append((os.path.relpath(entry.path, path), found.st_size, found.st_mtime_ns))
            if len(entries) > MAX_ENTRIES:
                raise NoForm(
                    f"the folder '{path}' has more than {MAX_ENTRIES:,} files: "
                    "pass one file that changes with them"
                )
        return sorted(entries)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise NoForm(f"'{path}' cannot be looked at: {error}") from None


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.is_file():
                yield entry


# Functions and classes -----------------------------------------------------------------------------


def closure_of(function: FunctionType) -> tuple[Any, ...]:
    """Return what a function closes over; of a name that has no value yet, nothing."""
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append((True, cell.cell_contents))
        except ValueError:
            values.append((False, None))
    return tuple(values)


@cache
def is_installed(module_name: str | None) -> bool:
    """Tell whether a module belongs to Python or to an installed package, rather than to the user."""
    if module_name in MAIN_NAMES or module_name is None:
        return False
    module = sys.modules.get(module_name)
    if module is None:
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return module_name in sys.builtin_module_names or module_name in sys.stdlib_module_names
    place = Path(os.path.realpath(str(file)))
    return bool({"site-packages", "dist-packages"} & set(place.parts)) or any(
        place.is_relative_to(folder) for folder in _stdlib()
    )


@cache
def _stdlib() -> tuple[str, ...]:
    found = sysconfig.get_paths()
    return os.path.realpath(found["stdlib"]), os.path.realpath(found["platstdlib"])


def is_users(cls: type) -> bool:
    """Tell whether a class is the user's own, so that its methods may change."""
    return not is_installed(cls.__module__)


def of_class(cls: type) -> dict[str, Any]:
    """Return the methods and attributes that a class defines."""
    found = {
        name: _undescribed(item)
        for name, item in vars(cls).items()
        if not _is_bookkeeping(name, item)
    }
    if not issubclass(cls, Enum):
        return found
    methods = {name: item for name, item in found.items() if isinstance(item, FunctionType)}
    return methods | {name: member.value for name, member in cls.__members__.items()}


def _is_bookkeeping(name: str, item: Any) -> bool:
    special = name.startswith("__") and name.endswith("__")
    return (special and not isinstance(item, FunctionType)) or name == "_abc_impl"


def _undescribed(item: Any) -> Any:
    """Return what is in a method or property, which says no more of itself."""
    if isinstance(item, staticmethod | classmethod):
        return type(item).__name__, item.__func__
    if isinstance(item, property):
        return "property", item.fget, item.fset, item.fdel
    if type(item).__name__ in ("member_descriptor", "getset_descriptor"):
        return type(item).__name__
    return item


# Objects -------------------------------------------------------------------------------------------


def _forgotten(value: Any) -> Any:
    """Return the attributes of an array of a class of its own, which its pickle leaves out."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray):
        return None
    return getattr(value, "__dict__", None)


def of_object(value: Any) -> tuple[Any, ...]:
    """Return what makes an object of a class again, and from what: as for a pickle. Raises `NoForm`."""
    kind = type(value)
    what = f"a '{kind.__module__}.{kind.__qualname__}'"
    try:
        reduce = copyreg.dispatch_table.get(kind)
        reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        if isinstance(reduced, str):
            return "", reduced, getattr(value, "__wrapped__", None)
        maker, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        arguments = tuple("class" if each is kind else each for each in arguments)
        given = list(pairs or ())
        inside = given if isinstance(value, OrderedDict) else dict(given)
        content = (arguments, state, list(items or ()), inside, _forgotten(value))
        name = f"{getattr(maker, '__module__', '')}:{getattr(maker, '__qualname__', '')}"
        if name == ":":
            raise TypeError(f"it is made by {maker!r}")
    except Exception as error:
        raise NoForm(f"{what} has no canonical form ({error})") from None
    return name, *content
