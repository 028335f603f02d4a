"""The reader of system calls: what is shown before it is synced is noticed."""

from __future__ import annotations

import pytest

from tests.faults.syncs import too_early

WRITE = '7 pwrite64(5</h/journal.sqlite-wal>, "..."..., 24, 32) = 24'
SYNC = "7 fdatasync(5</h/journal.sqlite-wal>) = 0"
FAILED = "7 fdatasync(5</h/journal.sqlite-wal>) = -1 EIO (Input/output error) (INJECTED)"
BEGINS = "7 fdatasync(5</h/journal.sqlite-wal> <unfinished ...>"
ENDS = "7 <... fdatasync resumed>) = 0"
SHOWN = r'1 write(8</h/oracle>, "{\"what\": \"shown\", \"pid\": 1, "..., 115) = 115'
OTHER = "7 fdatasync(6</h/catalog.sqlite>) = 0"


@pytest.mark.parametrize(
    ("lines", "early"),
    [
        ([WRITE, SYNC, SHOWN], 0),
        ([SHOWN], 0),
        ([WRITE, SHOWN, SYNC], 1),
        ([WRITE, OTHER, SHOWN], 1),
        ([WRITE, FAILED, SHOWN], 1),
        ([WRITE, FAILED, WRITE, SYNC, SHOWN], 0),
        ([WRITE, BEGINS, SHOWN, ENDS], 1),
        ([WRITE, BEGINS, ENDS, SHOWN], 0),
        ([WRITE, BEGINS, WRITE, SHOWN], 1),
    ],
)
def test_the_order_of_writing_syncing_and_showing(lines: list[str], early: int) -> None:
    """Only what is shown while something is written and not synced counts."""
    assert len(list(too_early(lines))) == early
