"""The names that users give to the files of results: templates, as ``"models/{parameters[lr]}.pkl"``.

A template may use ``parameters``, ``task_run`` (``id``, ``name``, ``task_name``, ``run_count``) and
``flow_run`` (``id``, ``name``, ``flow_name``). It is checked when the task is defined, and made into a name
before the body runs: what is wrong with it must not show after hours of work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dflow.attempts.names import Anything
from dflow.errors import DefinitionError, ResultStoreError
from dflow.messages import AttemptInfo
from dflow.results.files import RUNS
from dflow.results.stores import checked

ARGUMENT: Final = "result_storage_key"


@dataclass(frozen=True, slots=True)
class _TaskRun:
    id: Any
    name: Any
    task_name: Any
    run_count: Any


@dataclass(frozen=True, slots=True)
class _FlowRun:
    id: Any
    name: Any
    flow_name: Any


class _Parameters:
    """Has a value of any kind for each parameter, and none for other names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def __getitem__(self, name: object) -> Anything:
        if name not in self._names:
            known = ", ".join(f"'{one}'" for one in self._names) or "none"
            raise LookupError(f"'{name}' is no parameter; its parameters: {known}")
        return Anything()


def check(what: str, template: Any, parameters: Iterable[str]) -> str:
    """Return a template that can name results of a function with these parameters, or `DefinitionError`."""
    names = tuple(parameters)
    example = {
        "parameters": _Parameters(names),
        "task_run": _TaskRun(*[Anything()] * 4),
        "flow_run": _FlowRun(*[Anything()] * 3),
    }
    if not isinstance(template, str):
        raise DefinitionError(f"{what}: {ARGUMENT}= must be a text, not {template!r:.100}.")
    return _checked(what, template, _filled(what, template, example), template)


def made(template: str, info: AttemptInfo, parameters: Mapping[str, Any]) -> str:
    """Return the path in the store that a template gives. Raises `DefinitionError`."""
    values = {
        "parameters": parameters,
        "task_run": _TaskRun(info.task_run_id, info.task_run_name, info.task_name, info.attempt),
        "flow_run": _FlowRun(info.flow_run_id, info.flow_run_name, info.flow_name),
    }
    what = f"task '{info.task_name}'"
    path = _filled(what, template, values)
    return _checked(what, template, path, path)


def _filled(what: str, template: str, values: Mapping[str, Any]) -> str:
    try:
        return template.format_map(values)
    except KeyError as error:
        raise DefinitionError(
            f"{what}: {ARGUMENT}={template!r:.200} uses {error}, which is not known there. Write "
            "{parameters[x]} for the parameter x, {task_run.name} or {flow_run.name}."
        ) from None
    except Exception as error:
        raise DefinitionError(
            f"{what}: {ARGUMENT}={template!r:.200} cannot be filled in: {error}. Write {{parameters[x]}} for "
            "the parameter x, {task_run.name} or {flow_run.name}, and braces that are meant as such twice."
        ) from error


def _checked(what: str, template: str, path: str, result: str) -> str:
    try:
        checked(path)
    except ResultStoreError as error:
        raise DefinitionError(f"{what}: {ARGUMENT}={template!r:.200}: {error}") from None
    if path.partition("/")[0] == RUNS:
        raise DefinitionError(
            f"{what}: {ARGUMENT}={template!r:.200} would lie in the folder '{RUNS}', which is dflow's own. "
            "Choose another one."
        )
    return result
