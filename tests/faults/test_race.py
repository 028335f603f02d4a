"""That the campaign of races would notice two writers."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from dflow.core import machine
from dflow.engine import system
from dflow.journal import SqliteJournal
from dflow.ports import Batch
from tests.faults import race
from tests.journal.world import RUN, entry, task_created


@pytest.mark.parametrize(
    ("written", "said", "fault"),
    [
        (["1-7-0", "2-8-0"], ["7 wrote 1 1 1-7-0", "8 wrote 2 2 2-8-0"], ""),
        (
            ["1-7-0"],
            ["7 wrote 1 1 1-7-0", "8 wrote 1 2 1-8-0"],
            "event 2 was acknowledged as 1-8-0",
        ),
        (["1-7-0"], ["7 wrote 1 1 1-7-0", "8 wrote 2 1 2-8-0"], "two were told the same number"),
        (["1-7-0", "2-8-0", "1-7-1"], [], "an earlier epoch wrote after a later one"),
        (["1-7-0", "1-8-0"], [], "two have written in one epoch"),
        (["1-7-0"], ["7 claimed 1", "8 claimed 1"], "two got the same epoch"),
    ],
)
def test_two_writers_would_be_found(
    tmp_path: Path, written: list[str], said: list[str], fault: str
) -> None:
    """What two writers leave, in the record or in what they say, is named."""
    game = race.Round(tmp_path, random.Random(0))
    with closing(SqliteJournal(tmp_path, is_alive=system.is_alive)) as journal:
        journal.catalog.create(entry())
        events = [task_created(name) for name in written]
        journal.write(RUN, 1).append(Batch(events, [machine.create(e)[0] for e in events]))
    (tmp_path / "said").write_text("\n".join(said))
    found = race.broken(game)
    assert any(fault in sentence for sentence in found) if fault else found == []
