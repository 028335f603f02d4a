"""The public names and their signatures as text, ``public_api.txt``: ``python -m tests.public_api --write``.

A name stands under the first of the modules that has it.
"""

from __future__ import annotations

import argparse
import enum
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).with_suffix(".txt")

MODULES = (
    "dflow",
    "dflow.states",
    "dflow.cache_policies",
    "dflow.futures",
    "dflow.runtime",
    "dflow.runs",
    "dflow.results",
    "dflow.errors",
    "dflow.testing",
    "task_runners",
)
"""The modules that users import from."""

OURS = ("dflow", "task_runners")
WORDS = ("__call__", "__await__", "__getitem__")
"""The methods with underscores that users call, by writing something else."""

WIDTH = 100


def public(module: ModuleType) -> dict[str, Any]:
    """Return the public names of a module with what they stand for."""
    return {name: getattr(module, name) for name in sorted(module.__all__)}


def members(kind: type) -> dict[str, Any]:
    """Return the public methods and properties of a class, those that it inherits from ours included."""
    found: dict[str, Any] = {}
    for owner in reversed(kind.__mro__):
        if owner.__module__.partition(".")[0] in OURS:
            found.update(vars(owner))
    shown = {n: found[n] for n in sorted(found) if n in WORDS or not n.startswith("_")}
    return {name: value for name, value in shown.items() if is_described(value)}


def is_described(value: Any) -> bool:
    """Tell whether something is to have a docstring: a function, a class, a property, an object of ours."""
    ours = type(value).__module__.partition(".")[0] in OURS and not isinstance(value, enum.Enum)
    named = property | type | classmethod | staticmethod
    return ours or inspect.isfunction(value) or isinstance(value, named)


def drawn() -> str:
    """Return the page."""
    seen: set[int] = set()
    lines = [
        "The public names of dflow. After a change that is meant: python -m tests.public_api --write"
    ]
    for name in MODULES:
        lines += ["", f"{name} {'-' * (WIDTH - len(name))}"]
        for word, value in public(importlib.import_module(name)).items():
            if is_described(value) and id(value) in seen:
                continue
            seen.add(id(value))
            lines += described(word, value)
    return "\n".join(lines) + "\n"


def described(name: str, value: Any) -> Iterator[str]:
    """Yield the lines for one public name."""
    if isinstance(value, type) and issubclass(value, enum.Enum):
        yield f"{name}: {' '.join(value.__members__)}"
    elif (
        isinstance(value, type)
        and issubclass(value, BaseException)
        and "__init__" not in vars(value)
    ):
        yield f"{name}(message)"
    elif isinstance(value, type):
        yield from signature(name, value)
        for member, inside in members(value).items():
            yield from indented(of_member(f".{member}", inside))
    elif inspect.isfunction(value):
        yield from signatures(name, value)
    else:
        yield f"{name}: {type(value).__name__}"


def of_member(name: str, value: Any) -> Iterator[str]:
    """Yield the lines for a method or property."""
    if isinstance(value, property):
        yield f"{name} -> {inspect.signature(typing.cast(Any, value.fget)).return_annotation}"
    elif isinstance(value, classmethod | staticmethod):
        yield from signatures(name, value.__func__)
    elif inspect.isfunction(value):
        yield from signatures(name, value)
    else:
        yield f"{name}: {type(value).__name__}"


def signatures(name: str, function: Callable[..., Any]) -> Iterator[str]:
    """Yield the lines for a function: one signature, or its overloads."""
    for one in typing.get_overloads(function) or [function]:
        yield from signature(name, one)


def signature(name: str, value: Callable[..., Any]) -> Iterator[str]:
    """Yield a signature in one line, or a line for each parameter if that is too long."""
    found = inspect.signature(value)
    shown = [_Parameter(each) for each in found.parameters.values() if is_shown(each)]
    kinds = [parameter.kind for parameter in shown]
    words = [parameter.text() for parameter in shown]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        words.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    if inspect.Parameter.POSITIONAL_ONLY in kinds:
        words.insert(kinds.count(inspect.Parameter.POSITIONAL_ONLY), "/")
    nothing = found.return_annotation in (found.empty, None, "None")
    end = "" if nothing else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(words)}){end}"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{name}("
    yield from indented(f"{word}," for word in words)
    yield f"){end}"


def is_shown(parameter: inspect.Parameter) -> bool:
    """Tell whether users see a parameter: no plain ``self``, and nothing that begins with ``_``."""
    plain = parameter.name in ("self", "cls") and parameter.annotation is parameter.empty
    return not plain and not parameter.name.startswith("_")


class _Parameter:
    """A parameter, as people write it."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self._of = parameter
        self.kind = parameter.kind

    def text(self) -> str:
        """Return the parameter with its type and its default."""
        stars: dict[Any, str] = {self._of.VAR_POSITIONAL: "*", self._of.VAR_KEYWORD: "**"}
        text: str = stars.get(self.kind, "") + self._of.name
        typed = self._of.annotation is not self._of.empty
        if typed:
            text += f": {self._of.annotation}"
        if self._of.default is not self._of.empty:
            default = self._of.default
            shown = str(default) if isinstance(default, enum.Enum) else repr(default)
            text += f" = {shown}" if typed else f"={shown}"
        return text


def indented(lines: typing.Iterable[str]) -> Iterator[str]:
    """Yield lines further to the right."""
    return (f"    {line}" for line in lines)


def main() -> int:
    """Compare the page with the code, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the page instead of comparing")
    options = parser.parse_args()
    if options.write:
        PAGE.write_text(drawn(), encoding="utf-8")
    return 0 if PAGE.read_text(encoding="utf-8") == drawn() else 1


if __name__ == "__main__":
    sys.exit(main())
