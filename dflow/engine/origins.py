"""Where the flow of a run is found again: by its name in its module or script, if by anything."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MethodType, ModuleType
from typing import Any

from dflow.engine.defined import Defined
from dflow.results.pickling import MAIN_NAMES

Entrypoint = Mapping[str, Any]
"""What is recorded of it: `module`, `file` and `qualname`, and why no name leads to it, if none does.

`run_as` is the name of a module that was run by ``python -m``.
"""


def entrypoint(flow: Defined[..., Any, Any]) -> Entrypoint:
    """Return where a flow is found again."""
    function = flow.function
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None)
    in_main = function.__module__ in MAIN_NAMES
    made: dict[str, Any] = {
        "module": "__main__" if in_main else function.__module__,
        "file": os.path.abspath(file) if file else "",
        "qualname": getattr(function, "__qualname__", ""),
    }
    spec = getattr(module, "__spec__", None)
    if in_main and spec is not None:
        made["run_as"] = spec.name
    name = name_in(module, flow)
    made["qualname"] = name or made["qualname"]
    if (reason := nameless(made)) is not None:
        made["nameless"] = reason
    elif name is None and "<locals>" in made["qualname"]:
        made["nameless"] = "it was defined inside of a function"
    elif name is None:
        made["nameless"] = f"its module '{made['module']}' has no name for it"
    return made


def nameless(place: Entrypoint) -> str | None:
    """Return why no name leads to a flow, or None if one does, as far as is recorded."""
    if place["module"] == "__main__" and not place["file"].endswith(".py"):
        return "it was defined in a notebook or at a prompt"
    return place.get("nameless")


def name_in(module: ModuleType | None, flow: Defined[..., Any, Any]) -> str | None:
    """Return the name by which a module has a flow, or another one of the same function."""
    if module is None:
        return None
    qualname = getattr(flow.function, "__qualname__", "")
    found = found_in(module, qualname)
    same = _same_function(found, flow)
    if found is flow or (same and flow._bound):
        return qualname
    names = [name for name, item in vars(module).items() if item is flow]
    names += [qualname] if same else []
    names += [name for name, item in vars(module).items() if _same_function(item, flow)]
    return names[0] if names else None


def _same_function(found: Any, flow: Defined[..., Any, Any]) -> bool:
    return isinstance(found, type(flow)) and found.function is flow.function


def defined_as(place: Entrypoint) -> Any:
    """Return what a module of this process has under the recorded name, or None."""
    main = place["module"] == "__main__"
    for module in MAIN_NAMES if main else (place["module"],):
        found = found_in(sys.modules.get(module), place["qualname"])
        if found is not None:
            return found
    return None


def found_in(module: ModuleType | None, qualname: str) -> Any:
    """Return what a module has under a name, or None.

    From Python 3.13 on a class method around a flow is a method of the flow: then the flow.
    """
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    inner = found.__func__ if isinstance(found, MethodType) else None
    return inner if isinstance(inner, Defined) else found


def is_same(place: Entrypoint, flow: Defined[..., Any, Any]) -> bool:
    """Tell whether a flow is of the function that was recorded, whatever name it goes by now."""
    here = entrypoint(flow)
    return all(here[key] == place.get(key) for key in ("module", "qualname"))


def called_by(place: Entrypoint) -> str:
    """Return what a flow is called where it was defined; of a method, its own name."""
    qualname = str(place.get("qualname", ""))
    name = (
        qualname.rpartition("<locals>.")[2].rpartition(".")[2]
        if "<locals>" in qualname
        else qualname
    )
    return "my_flow" if "<lambda>" in name else name or "my_flow"


def search_path() -> list[str]:
    """Return the folders from which modules of the user's are imported here."""
    return list(_users(tuple(os.path.abspath(entry) for entry in sys.path)))


@lru_cache(maxsize=16)
def _users(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return those folders that are not Python's own, nor of installed packages."""
    installed = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    ours = tuple(os.path.join(prefix, "") for prefix in installed)
    return tuple(each for each in folders if not os.path.realpath(each).startswith(ours))


def lengthen_search_path(folders: Iterable[str]) -> None:
    """Let modules be found that were found when a run began; what is found here already comes first."""
    for folder in folders:
        if folder not in sys.path and os.path.isdir(folder):
            sys.path.append(folder)


def interactive() -> bool:
    """Tell whether somebody types what runs here: in a notebook, or at a prompt."""
    return hasattr(sys, "ps1") or hasattr(builtins, "__IPYTHON__")
