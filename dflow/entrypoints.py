"""Finding a flow by ``FILE.py:FLOW``, and again the flow of a recorded run.

A file is loaded the way multiprocessing loads the main script in its children: under the name
``__mp_main__``, without running what is inside its main guard. So the worker processes that we start load
the same file under the same name, and results whose classes live in it can be read again.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import cloudpickle

from dflow.engine import origins, recorded
from dflow.engine.calls import called
from dflow.errors import EntrypointError
from dflow.flows import Flow
from dflow.ports import RunEntry
from dflow.results.pickling import MAIN_NAMES


def load(text: str) -> Flow[Any, Any]:
    """Return the flow that ``FILE.py:FLOW`` (or ``package.module:FLOW``) names.

    ``:FLOW`` may be left out where the file has only one flow. Raises `EntrypointError`.
    """
    place, _, name = text.partition(":")
    is_file = place.endswith(".py") or os.sep in place
    module = load_file(Path(place)) if is_file else _import(place)
    return _flow_in(module, name, place)


def load_recorded(entry: RunEntry) -> Flow[Any, Any]:
    """Return the flow of a recorded run: from its module, or from its file. Raises `EntrypointError`.

    It has the options with which the run began.
    """
    place: origins.Entrypoint = entry.details["entrypoint"]
    found = _at_hand(place)
    if found is None:
        origins.lengthen_search_path(entry.details.get("path", ()))
        found = _loaded(place, entry.name)
    return recorded.with_options(found, entry.details)


def _at_hand(place: origins.Entrypoint) -> Flow[Any, Any] | None:
    """Return the flow if the program that runs here is the one that defines it."""
    file = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    if place["module"] != "__main__" or (file and os.path.abspath(file)) != place["file"]:
        return None
    found = origins.defined_as(place)
    return found if isinstance(found, Flow) else None


def _loaded(place: origins.Entrypoint, run: str) -> Flow[Any, Any]:
    """Return a flow from its module or file. Raises `EntrypointError` that says how to go on without it."""
    call = f'{origins.called_by(place)}.resume("{run}")'
    nameless = origins.nameless(place)
    if nameless is not None:
        raise EntrypointError(
            f"The flow of run '{run}' cannot be found by its name: {nameless}. "
            f"Go on in a program that has it, with: {call}"
        )
    module_name, file = place["module"], Path(place["file"])
    try:
        if module_name == "__main__":
            module = load_file(file, place.get("run_as"))
        else:
            origins.lengthen_search_path([_root_folder(file, module_name)])
            module = _import(module_name)
        return _flow_in(module, place["qualname"], module_name)
    except EntrypointError as error:
        raise EntrypointError(
            f"{str(error).rstrip()}\nWhen run '{run}' began, its flow was '{place['qualname']}' in '{file}'. "
            f"Put that back, or go on in a program that has the flow, with: {call}"
        ) from error


def load_file(path: Path, run_as: str | None = None) -> types.ModuleType:
    """Run a Python file as ``__mp_main__`` and return its module. Raises `EntrypointError`.

    `run_as` is the name of the module that it is, if it is run as ``python -m`` does it.
    """
    file = path.expanduser().absolute()
    loaded = sys.modules.get("__mp_main__")
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    try:
        code = compile(file.read_bytes(), str(file), "exec")
    except OSError as error:
        raise EntrypointError(
            f"'{path}' cannot be read: {error.strerror}. Name the file that defines the flow."
        ) from None
    except (SyntaxError, ValueError) as error:
        raise EntrypointError(f"'{path}' is not valid Python: {error}.") from None
    module = types.ModuleType("__mp_main__")
    module.__file__ = str(file)
    if run_as is not None:
        module.__spec__ = _spec(run_as)
        module.__package__ = run_as.rpartition(".")[0]
    before = {name: sys.modules.get(name) for name in MAIN_NAMES}
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        for name, previous in before.items():
            if previous is None:
                del sys.modules[name]
            else:
                sys.modules[name] = previous
        shown = "".join(traceback.format_exception(type(error), error, _below(error)))
        raise EntrypointError(f"'{path}' raised an error while it was loaded:\n\n{shown}") from None
    # Where it is not loaded, on the workers of others, what is in it goes by value, as from `__main__`.
    cloudpickle.register_pickle_by_value(module)
    return module


def _spec(name: str) -> ModuleSpec | None:
    """Return what Python knows of a module that was run as a script; its package is imported for it."""
    try:
        return importlib.util.find_spec(name)
    except Exception as error:
        raise EntrypointError(f"The module '{name}' cannot be found: {error!r}.") from error


def _below(error: BaseException) -> types.TracebackType | None:
    """Return the traceback without our own frame at its top."""
    return error.__traceback__.tb_next if error.__traceback__ is not None else None


def _import(name: str) -> types.ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise EntrypointError(
            f"The module '{name}' cannot be imported: {error!r}. "
            "Name a file as FILE.py:FLOW, or a module that can be imported from here."
        ) from error


def _root_folder(file: Path, module_name: str) -> str:
    """Return the folder from which a module was imported."""
    levels = module_name.count(".") + (file.name == "__init__.py")
    return str(file.parents[min(levels, len(file.parents) - 1)]) if file.name else ""


def _flow_in(module: types.ModuleType, name: str, place: str) -> Flow[Any, Any]:
    flows = {key: value for key, value in vars(module).items() if isinstance(value, Flow)}
    own = {id(flow): flow for flow in flows.values() if flow.fn.__module__ == module.__name__}
    if not name and len(own) == 1:  # what it has imported does not count
        return next(iter(own.values()))
    found = origins.found_in(module, name)
    if isinstance(found, Flow):
        return found
    by_name = [flow for flow in flows.values() if name in (flow.name, called(flow.fn))]
    if by_name:
        return by_name[0]
    if not flows:
        raise EntrypointError(f"'{place}' has no flows. Write @flow above a function in it.")
    wanted = (
        f"has no flow '{name}'" if name else "does not say which flow: name one as FILE.py:FLOW"
    )
    raise EntrypointError(f"'{place}' {wanted}. It has: {', '.join(sorted(flows))}.")
