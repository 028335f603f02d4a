"""What is recorded with a root flow run, so that it can be explained and run again."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dflow.engine import origins, recorded
from dflow.engine.identity import RULE
from dflow.engine.recorded import AnyFlow, Arguments
from dflow.settings import Settings

MAX_SHOWN = 500
"""How many characters of a parameter are shown."""
PACKAGES = ("dflow-dask", "dask", "distributed")
"""Packages whose versions are recorded."""


def describe(
    flow: AnyFlow, arguments: Arguments, settings: Settings, run_id: str, rerun_of: str | None
) -> dict[str, Any]:
    """Return what is needed to call a flow again: where it is, and with what."""
    bound = flow._signature.bind(*arguments[0], **arguments[1])
    bound.apply_defaults()
    place = origins.entrypoint(flow)
    return {
        "entrypoint": place,
        "path": origins.search_path(),
        "parameters": {key: _shown(value) for key, value in bound.arguments.items()},
        **recorded.parameters(flow, arguments, settings.home / recorded.FOLDER, run_id),
        **recorded.options(flow, place),
        **recorded.runner(flow._options.task_runner, settings.task_runner),
        **({} if rerun_of is None else {"rerun_of": rerun_of}),
        "trigger": {"command": sys.argv, "folder": os.getcwd()},
        "identity": RULE,
        "versions": _versions(),
        "git": _git_commit(Path.cwd()),
    }


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
