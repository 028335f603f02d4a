"""The walls of the house, as far as import-linter and ruff cannot see them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diagrams import PAGE, drawn

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for room in ("dflow", "task_runners") for path in ROOT.glob(f"{room}/**/*.py")
)
FACADES = [ROOT / "dflow/__init__.py", ROOT / "task_runners/__init__.py"]

HOMES = {
    "dask": "task_runners/dask",
    "distributed": "task_runners/dask",
    "sqlite3": "dflow/journal",
}
"""Packages that one folder alone may know."""

PURE = ("dflow/core/*.py", "dflow/states.py", "dflow/errors.py")
PURE_IMPORTS = {
    "__future__", "bisect", "collections", "dataclasses", "datetime", "dflow", "enum", "functools",
    "heapq", "itertools", "math", "msgspec", "operator", "re", "string", "types", "typing",
}  # fmt: skip

LONGEST = 400
LONGER = {
    "dflow/core/machine.py": 600
}  # all that changes a task run is meant to be read in one file


def name(path: Path) -> str:
    """Return a source's path as people write it."""
    return path.relative_to(ROOT).as_posix()


each_source = pytest.mark.parametrize("path", SOURCES, ids=name)


def tree(path: Path) -> ast.Module:
    """Return a source as a syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, top package) for each import in a source, by statement or by ``import_module``."""
    for node in ast.walk(tree(path)):
        modules: list[str] = []
        match node:
            case ast.Import(names=aliases):
                modules = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                modules = [module]
        for module in modules:
            yield getattr(node, "lineno", 0), module.partition(".")[0]


@each_source
def test_dask_and_sqlite_stay_in_their_rooms(path: Path) -> None:
    """No source but those of one folder imports Dask or SQLite, by statement or by name."""
    room = path.parent.relative_to(ROOT)
    strays = [
        f"line {line}: {package}"
        for line, package in imports(path)
        if package in HOMES and not room.is_relative_to(HOMES[package])
    ]
    assert not strays


@pytest.mark.parametrize("path", [p for glob in PURE for p in sorted(ROOT.glob(glob))], ids=name)
def test_the_core_imports_little(path: Path) -> None:
    """The core imports nothing but a few modules that hold no clock, luck, I/O or threads."""
    assert {package for _, package in imports(path)} <= PURE_IMPORTS


@pytest.mark.parametrize("path", [p for p in SOURCES if p not in FACADES], ids=name)
def test_imports_are_at_the_top(path: Path) -> None:
    """A function imports only where a comment on the line says why: ``# lazy: …``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = [n for f in ast.walk(tree(path)) if isinstance(f, functions) for n in ast.walk(f)]
    found = [n for n in inside if isinstance(n, ast.Import | ast.ImportFrom)]
    statements = ["\n".join(lines[n.lineno - 1 : n.end_lineno]).strip() for n in found]
    assert [statement for statement in statements if "# lazy: " not in statement] == []


@each_source
def test_has_a_docstring(path: Path) -> None:
    """Every module says what it owns."""
    assert ast.get_docstring(tree(path))


@each_source
def test_is_short(path: Path) -> None:
    """No source is longer than somebody can read at night."""
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= LONGER.get(name(path), LONGEST)


def test_the_page_lists_every_room() -> None:
    """The table of rooms in ARCHITECTURE.md names the packages and modules that exist, and no others."""
    rows = re.findall(
        r"^\| `((?:dflow|task_runners)(?:\.\w+)?)` \|", PAGE.read_text("utf-8"), re.MULTILINE
    )
    rooms = {path.parent.name for path in FACADES}
    for facade in FACADES:
        modules = {p.stem for p in facade.parent.glob("*.py") if p != facade}
        packages = {p.parent.name for p in facade.parent.glob("*/__init__.py")}
        rooms |= {f"{facade.parent.name}.{room}" for room in modules | packages}
    assert sorted(rows) == sorted(rooms)


def test_the_page_draws_the_tables() -> None:
    """The diagrams in ARCHITECTURE.md are those of the tables; ``make diagrams`` draws them."""
    page = PAGE.read_text("utf-8")
    assert drawn(page) == page


@pytest.mark.parametrize("facade", ["dflow", "task_runners"])
def test_importing_costs_nothing(facade: str) -> None:
    """Importing a facade loads nothing heavy and starts no thread."""
    heavy = {
        "cloudpickle",
        "cyclopts",
        "dask",
        "distributed",
        "fsspec",
        "numpy",
        "pydantic",
        "rich",
    }
    program = (
        f"import sys, threading, {facade}\n"
        f"print(sorted({heavy} & set(sys.modules)), threading.active_count())"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert fresh.stdout == "[] 1\n"


def test_lowest_versions_are_the_lower_bounds() -> None:
    """constraints/lowest.txt names the lower bound of each requirement that users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    users = [row for extra in sorted(extras) if extra != "dev" for row in extras[extra]]
    bounds = [re.split(">=|,", row)[:2] for row in project["dependencies"] + users]
    pinned = re.findall(
        r"^([\w-]+)==(\S+)$", (ROOT / "constraints/lowest.txt").read_text(), re.MULTILINE
    )
    assert sorted(pinned) == sorted((package, bound) for package, bound in bounds)
