"""Scripts that start worker processes at their top level, where each worker would run them again."""

from __future__ import annotations

import ast
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType

from dflow.errors import MissingMainGuard


@dataclass(frozen=True, slots=True)
class Script:
    """What worker processes load as this process's script: a file, or a module by its name."""

    path: str | None = None
    name: str | None = None


def script_of(main: ModuleType | None) -> Script | None:
    """Return what multiprocessing makes its children load in the place of `main`, or None."""
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return None if name == "__main__" or name.endswith(".__main__") else Script(name=name)
    path = getattr(main, "__file__", None)
    return Script(path=path) if path is not None and path.endswith(".py") else None


def check() -> None:
    """Raise `MissingMainGuard` if the script is at a line that its workers would run again."""
    main = sys.modules.get("__main__")
    if main is None or script_of(main) is None:
        return
    line = _line_of(main)
    path = getattr(main, "__file__", None)
    if line is None or path is None:
        return
    try:
        source = Path(path).read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return
    lines = source.splitlines()
    if line <= len(lines) and not _guarded(tree, line):  # else something else was run in its name
        raise MissingMainGuard(_message(path, line, lines[line - 1].strip()))


def _line_of(main: ModuleType) -> int | None:
    """Return the line at which the top level of the script is, if it is what the main thread runs."""
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _guarded(tree: ast.AST, line: int) -> bool:
    """Tell whether a line is in a block that runs only where ``__name__`` is ``"__main__"``."""
    return any(
        isinstance(node, ast.If)
        and _asks_for_main(node.test)
        and node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0)
        for node in ast.walk(tree)
    )


def _asks_for_main(test: ast.expr) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
            sides = [node.left, *node.comparators]
            names = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
            texts = any(
                isinstance(side, ast.Constant) and side.value == "__main__" for side in sides
            )
            if names and texts:
                return True
    return False


def _message(path: str, line: int, text: str) -> str:
    return (
        f'"{path}", line {line}: worker processes are started here, and each of them loads this script '
        "again, which would start more of them. Put what the script does under a guard:\n\n"
        '    if __name__ == "__main__":\n'
        f"        {text}\n"
    )
