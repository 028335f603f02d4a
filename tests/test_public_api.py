"""What is public: its names, its signatures, its docstrings, and what importing it costs."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, get_overloads

import pytest

import dflow
from dflow.engine.options import FlowOptions, TaskOptions
from tests import public_api

ROOT = Path(__file__).parents[1]

each_module = pytest.mark.parametrize("name", public_api.MODULES)

HEAVY = {
    "asyncio", "cloudpickle", "concurrent", "cyclopts", "dask", "distributed", "fsspec", "logging", "msgpack",
    "multiprocessing", "numpy", "pandas", "psutil", "pydantic", "rich", "socket", "sqlite3", "ssl",
}  # fmt: skip
"""Packages whose loading takes time, or that are not on every worker."""

COSTS = {
    "import dflow": set(),
    "import dflow.errors": set(),
    "import dflow.states": set(),
    "import task_runners": set(),
    "from task_runners import DaskTaskRunner": set(),
    "from task_runners import InlineTaskRunner, ThreadPoolTaskRunner": {
        "asyncio", "cloudpickle", "concurrent", "logging", "socket", "ssl",
    },
    "from dflow import flow, get_run_logger, task": {
        "asyncio", "cloudpickle", "concurrent", "logging", "msgpack", "multiprocessing", "psutil", "pydantic",
        "socket", "sqlite3", "ssl",
    },
}  # fmt: skip
"""What each import loads of that."""


def made(module: ModuleType) -> set[str]:
    """Return the names that a module makes itself, and does not mark as its own affair."""
    found: set[str] = set()
    for node in ast.parse(inspect.getsource(module)).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    types = {name for name in found if isinstance(getattr(module, name), TypeVar | ParamSpec)}
    return {name for name in found - types if not name.startswith("_")}


@each_module
def test_all_names_what_is_there(name: str) -> None:
    """``__all__`` is sorted, and names what exists and everything that the module makes in public."""
    module = importlib.import_module(name)
    names = module.__all__
    assert sorted(names) == sorted(set(names))
    assert [word for word in names if not hasattr(module, word)] == []
    assert set(dir(module)) >= set(names)
    assert made(module) <= set(names)


def test_the_facade_has_what_users_of_prefect_look_for() -> None:
    """The words that scripts import from the facade are there."""
    words = """flow task Flow Task State TaskFuture wait as_completed unmapped allow_failure quote opaque tags
        get_run_logger current_run get_run_context exponential_backoff resume shutdown"""
    assert set(words.split()) <= set(importlib.import_module("dflow").__all__)


def test_the_signatures_are_those_that_are_written_down() -> None:
    """A change of what users may write shows in ``public_api.txt``, on purpose."""
    page, now = public_api.PAGE.read_text(encoding="utf-8"), public_api.drawn()
    changes = difflib.unified_diff(page.splitlines(), now.splitlines(), lineterm="", n=1)
    assert page == now, "\n".join(
        ["Public signatures have changed:", *list(changes)[2:], page.splitlines()[0]]
    )


def test_an_unknown_name_is_no_attribute() -> None:
    """The facades say that they do not have a name, as modules do."""
    for facade in ("dflow", "task_runners"):
        with pytest.raises(AttributeError, match=f"module '{facade}' has no attribute 'nothing'"):
            importlib.import_module(facade).nothing  # noqa: B018  (getting it is what is tested)


@pytest.mark.parametrize(
    ("make", "options"), [(dflow.task, TaskOptions()), (dflow.flow, FlowOptions())]
)
def test_every_option_has_a_type_and_a_description(make: Any, options: Any) -> None:
    """Type checkers and readers of the docstring know the options that there are, with their defaults."""
    with_options = get_overloads(make)[-1]
    typed = {p.name: p.default for p in inspect.signature(with_options).parameters.values()}
    there = {each.name: getattr(options, each.name) for each in fields(options)}
    assert typed.items() <= there.items()
    assert there.keys() <= typed.keys()
    described = re.findall(r"[a-z_]+", inspect.getdoc(make) or "")
    assert there.keys() <= set(described)


def undocumented(name: str, value: Any) -> list[str]:
    """Return the names, inside of a public one, that have no docstring."""
    inside = public_api.members(value) if isinstance(value, type) else {}
    found = [f"{name}.{word}" for word, member in inside.items() if not inspect.getdoc(member)]
    return found if inspect.getdoc(value) else [name, *found]


@each_module
def test_everything_public_says_what_it_is(name: str) -> None:
    """Each public function, class, method and property has a docstring."""
    names = public_api.public(importlib.import_module(name)).items()
    described = [(word, value) for word, value in names if public_api.is_described(value)]
    assert [found for word, value in described for found in undocumented(word, value)] == []


@pytest.mark.parametrize("statement", COSTS)
def test_an_import_loads_little(statement: str) -> None:
    """An import loads those heavy packages that are written down here, and no other."""
    program = (
        f"import sys; before = set(sys.modules); {statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert set(done.stdout.split()) & HEAVY == COSTS[statement]
