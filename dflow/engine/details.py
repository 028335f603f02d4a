"""What is recorded with a root flow run, so that it can be explained and run again."""

from __future__ import annotations

import base64
import inspect
import os
import platform
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dflow.errors import NotResumable
from dflow.results import pickling
from dflow.results.pickling import MAIN_NAMES

MAX_SHOWN = 500
"""How many characters of a parameter are shown."""
MAX_PARAMETERS = 1_000_000
"""How many bytes pickled parameters may take, to be recorded."""
PACKAGES = ("dflow-dask", "dask", "distributed")
"""Packages whose versions are recorded."""


Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The positional and the keyword arguments of a call."""


def describe(
    function: Callable[..., Any], signature: inspect.Signature, arguments: Arguments
) -> dict[str, Any]:
    """Return what is needed to call a flow again: where it is, and with what."""
    bound = signature.bind(*arguments[0], **arguments[1])
    bound.apply_defaults()
    return {
        "entrypoint": entrypoint(function),
        "parameters": {key: _shown(value) for key, value in bound.arguments.items()},
        "pickled_parameters": _pickled(arguments),
        "trigger": {"command": sys.argv, "folder": os.getcwd()},
        "versions": _versions(),
        "git": _git_commit(Path.cwd()),
    }


def entrypoint(function: Callable[..., Any]) -> dict[str, str]:
    """Return where the function of a flow is found again: its file, its module and its name there."""
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None)
    return {
        "module": "__main__" if function.__module__ in MAIN_NAMES else function.__module__,
        "file": os.path.abspath(file) if file else "",
        "qualname": getattr(function, "__qualname__", ""),
    }


def arguments_of(details: Mapping[str, Any]) -> Arguments:
    """Return the arguments that were recorded. Raises `NotResumable` if they were not, or cannot be read."""
    data = details.get("pickled_parameters")
    if data is None:
        raise NotResumable(
            "The parameters of this run could not be recorded, so it cannot be resumed by its name. "
            "Run the flow again with the same parameters."
        )
    try:
        arguments: Arguments = pickling.loads(base64.b64decode(data))
    except Exception as error:
        raise NotResumable(f"The recorded parameters cannot be read: {error!r}.") from error
    return arguments


def _pickled(arguments: Arguments) -> str | None:
    try:
        data = pickling.dumps_small(arguments, MAX_PARAMETERS)
    except Exception:
        return None  # said when somebody wants to resume it
    return None if data is None else base64.b64encode(data).decode("ascii")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        return f"<a '{type(value).__name__}' that cannot be shown: {type(error).__name__}>"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


@cache
def _git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out here, or None outside of a repository."""
    for parent in (folder, *folder.parents):
        head = parent / ".git" / "HEAD"
        if not head.is_file():
            continue
        content = head.read_text(encoding="utf-8", errors="replace").strip()
        if not content.startswith("ref: "):
            return content
        branch = parent / ".git" / content[5:]
        return branch.read_text(encoding="ascii").strip() if branch.is_file() else content[5:]
    return None
