"""``dflow run`` and ``dflow resume`` with flows that are coroutines or generators."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command

FLOWS = """
import asyncio
from pathlib import Path
from dflow import flow, task

@task
async def add(x: int) -> int:
    return x + 1

@flow(task_runner="threads")
async def gathers(n: int = 2) -> list[int]:
    return await asyncio.gather(*[add.submit(i) for i in range(n)])

@flow
def yields(n: int = 2):
    yield from range(n)

@flow
async def yields_later(n: int = 2):
    for i in range(n):
        yield i

@flow
async def fails(mark: Path) -> int:
    x = await add(1)
    if not mark.exists():
        raise ValueError("no mark")
    return x
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of such flows."""
    path = tmp_path / "kinds.py"
    path.write_text(FLOWS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "printed"),
    [("gathers", "[1, 2, 3]"), ("yields", "[0, 1, 2]"), ("yields_later", "[0, 1, 2]")],
)
def test_all_kinds_of_flows_run(name: str, printed: str, command: Command, file: Path) -> None:
    """Coroutines are awaited, the items of generators become a list."""
    ran = command("run", f"{file}:{name}", "--n", "3")
    assert (ran.code, ran.out) == (0, f"{printed}\n")


def test_an_async_flow_is_resumed(command: Command, file: Path, tmp_path: Path) -> None:
    """It runs again from its top, on a loop of its own."""
    mark = tmp_path / "mark"
    assert command("run", f"{file}:fails", str(mark)).code == 1
    mark.touch()
    ran = command("resume", "latest")
    assert (ran.code, ran.out) == (0, "2\n")
