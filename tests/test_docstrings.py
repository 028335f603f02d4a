"""Every example in a docstring is true, and everything public has one."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dflow
from tests import public_api

ROOT = Path(__file__).parents[1]
WITH_DOCSTRINGS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
FLAGS = doctest.ELLIPSIS


def examples() -> Iterator[doctest.DocTest]:
    """Yield the docstrings that have examples, of whatever in the sources has a docstring."""
    parser = doctest.DocTestParser()
    for path in sorted(path for room in public_api.OURS for path in ROOT.glob(f"{room}/**/*.py")):
        text = path.read_text(encoding="utf-8")
        if ">>> " not in text:
            continue
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(text)):
            found = ast.get_docstring(node) if isinstance(node, WITH_DOCSTRINGS) else None
            if found and ">>> " in found:
                name = f"{place}:{getattr(node, 'name', 'module')}"
                line = getattr(node, "lineno", 1)
                yield parser.get_doctest(found, {}, name, str(path), line)


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Run tasks inline, in an empty folder, and show no lines of runs; end what the example began."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFLOW_TASK_RUNNER", "inline")
    monkeypatch.setenv("DFLOW_LOG_LEVEL", "CRITICAL")
    dflow.shutdown()
    yield
    dflow.shutdown()


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_the_example_is_true(example: doctest.DocTest) -> None:
    """An example gives what it says, with the names of its module and a home of its own."""
    path = Path(example.filename or "").relative_to(ROOT).with_suffix("")
    module = importlib.import_module(".".join(path.parts).removesuffix(".__init__"))
    example.globs = {**vars(module), "__name__": "__main__"}
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append)
    assert not said, "".join(said)


def needs_example(value: Any) -> bool:
    """Tell whether something public is to have an example: errors have one together, constants none."""
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    return (inspect.isfunction(value) or isinstance(value, type)) and not is_error


def has_example(value: Any) -> bool:
    """Tell whether the docstring of something, or that of a method, has an example."""
    inside = public_api.members(value).values() if isinstance(value, type) else ()
    return any(">>> " in (inspect.getdoc(one) or "") for one in (value, *inside))


@pytest.mark.parametrize("name", public_api.MODULES)
def test_everything_public_has_an_example(name: str) -> None:
    """Each public function and class shows how it is used."""
    module = importlib.import_module(name)
    names = public_api.public(module).items()
    missing = [word for word, value in names if needs_example(value) and not has_example(value)]
    assert missing == []
    assert name != "dflow.errors" or ">>> " in (module.__doc__ or "")
