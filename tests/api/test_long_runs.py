"""Long runs: what has ended, and nobody needs any more, is in the journal and not in the driver's memory."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from dflow import flow, runs, task
from dflow.attempts.context import current
from dflow.core.records import Stage
from dflow.engine import driver_scope, retirement
from dflow.ports import TaskRunner
from tests.records import sound

KEPT = 20
ROUNDS, ITEMS = 6, 40


@pytest.fixture(autouse=True)
def _few_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only so many stay that might go."""
    monkeypatch.setattr(retirement, "KEPT", KEPT)
    monkeypatch.setattr(driver_scope, "OVER", 5)


@task
def noted(folder: str, x: int) -> int:
    """Return a number, and note that it was done."""
    with (Path(folder) / str(x)).open("a", encoding="utf-8") as file:
        file.write("done\n")
    return x


@task
def total(numbers: list[int]) -> int:
    """Return a sum."""
    return sum(numbers)


@flow(retries=1)
def long(folder: str) -> list[int]:
    """Work in rounds; fail at the first try, and in the second one see how many are in memory."""
    context = current()
    assert context is not None
    session = context.notes["scope"].session
    totals, sizes = [], []
    for number in range(ROUNDS):
        items = [number * 1000 + x for x in range(ITEMS)]
        totals.append(total.submit(noted.map(folder, items)).result())
        totals.append(sum(noted(folder, 100_000 + x) for x in items[:10]))
        session.tracker.commit()
        while session.ledger.retirement.due:
            time.sleep(0.02)  # the journal saves records when there is nothing else to do
        sizes.append(len(session.ledger.table.task_runs))
    if not (Path(folder) / "failed").exists():
        (Path(folder) / "failed").touch()
        assert max(sizes) <= KEPT + 5, sizes
        raise ValueError("at first")
    each = ITEMS + 11
    assert sizes[0] == each * ROUNDS, "the second try has recalled all"
    assert all(before == after for before, after in pairwise(sizes))
    return totals


def test_a_long_run(runner: TaskRunner, tmp_path: Path) -> None:
    """Few records are in memory, all in the journal; a body that is tried again finds each of them."""
    totals = long.with_options(task_runner=runner)(str(tmp_path))
    firsts = [number * 1000 for number in range(ROUNDS)]
    sums = [sum(range(first, first + ITEMS)) for first in firsts]
    direct = [sum(range(100_000 + first, 100_010 + first)) for first in firsts]
    assert totals == [each for pair in zip(sums, direct, strict=True) for each in pair]
    done = [file.read_text("utf-8") for file in tmp_path.iterdir() if file.name.isdigit()]
    assert done == ["done\n"] * (ROUNDS * (ITEMS + 10))
    with runs.opened(runs.find("latest")) as reader:
        sound(reader)
        records = list(reader.task_runs())
        assert {run.stage for run in records} == {Stage.COMPLETED}
        assert len(records) == ROUNDS * (ITEMS + 11)
        made = [run.created_at for run in records]
        assert made == sorted(made)
