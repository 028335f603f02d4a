"""What worker processes of ours do with memory that bodies have freed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from task_runners.dask.heap import REST, WORK, Keeper, is_free_to_choose
from tests.runners import bodies
from tests.runners.hosts import FakeHost, work

BLOCK, TIMES = 20_000_000, 10
PAGES = TIMES * BLOCK // os.sysconf("SC_PAGE_SIZE")
LIMIT = 1_000
PLENTY, LITTLE = 300, 500
WITH_GLIBC = pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is told")


class Asked:
    """An allocator that notes what it is asked for."""

    def __init__(self) -> None:
        self.reuses: list[bool] = []
        self.given_back = 0

    def reuse(self, wanted: bool) -> None:
        """Note it."""
        self.reuses.append(wanted)

    def give_back(self) -> None:
        """Count it."""
        self.given_back += 1


def test_what_is_free_goes_back_now_and_then() -> None:
    """Not before its time, and not where nothing was computed that could have freed anything."""
    asked = Asked()
    keeper = Keeper(asked, LIMIT)
    keeper.look(100.0, 1.0, PLENTY)
    assert asked.given_back == 1
    keeper.look(100.0 + REST / 2, 2.0, PLENTY)
    assert asked.given_back == 1
    keeper.look(100.0 + REST, 2.0, PLENTY)
    assert asked.given_back == 2
    keeper.look(100.0 + 9 * REST, 2.0 + WORK / 2, PLENTY)
    assert asked.given_back == 2
    assert asked.reuses == [True]


def test_when_memory_gets_tight_nothing_is_kept() -> None:
    """Larger blocks go back at once, the others at each look; when there is plenty they are kept again."""
    asked = Asked()
    keeper = Keeper(asked, LIMIT)
    for number in range(1, 4):
        keeper.look(100.0 + number / 10, float(number), LITTLE)
        assert asked.given_back == number
    assert asked.reuses == [True, False]
    keeper.look(101.0, 9.0, PLENTY)
    assert asked.reuses == [True, False, True]


@pytest.mark.parametrize(
    ("environment", "free"),
    [
        ({}, True),
        ({"MALLOC_TRIM_THRESHOLD_": "65536"}, True),
        ({"MALLOC_TRIM_THRESHOLD_": "0"}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "1000000"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=128"}, False),
    ],
)
def test_what_users_have_said_holds(environment: dict[str, str], free: bool) -> None:
    """Only where all is as Dask sets it are there settings of ours."""
    assert is_free_to_choose(environment) is free


SCRIPT = """
import json, resource
from task_runners.dask.heap import Glibc, Keeper, resident
from tests.runners.bodies import pages_for

found = []
keeper = Keeper(Glibc(), 10**12)
found.append(pages_for(20_000_000, 10))
blocks = [bytearray(1_000_000) for _ in range(100)]
before = resident()
del blocks[:-1]  # the last one is at the end of the heap, and keeps what is before it
kept = before - resident()
keeper.look(1000.0, 1000.0, 0)
found += [kept, before - resident()]
keeper.look(2000.0, 2000.0, 10**12)
found.append(pages_for(20_000_000, 10))
print(json.dumps(found))
"""


@WITH_GLIBC
def test_the_allocator_does_as_it_is_told() -> None:
    """Blocks are used again, until they are to go back; what is free amid the heap can go back, too."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    reused, kept, given_back, fresh = json.loads(done.stdout)
    assert reused < PAGES / 4
    assert kept < 20_000_000
    assert given_back > 80_000_000
    assert fresh > reused


@WITH_GLIBC
def test_workers_use_blocks_again(processes: Any, host: FakeHost) -> None:
    """A body in a worker process of ours does not get new pages for each large block."""
    asked = work(processes, bodies.pages_for, BLOCK, TIMES)
    processes.dispatch([asked])
    assert host.end(asked)
    assert processes.fetch(asked.info.key) < PAGES / 4
