"""Caching as users see it, over the runners, between runs and between processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dflow import as_completed, flow, task, unmapped
from dflow.cache_policies import INPUTS, TASK_SOURCE, CachePolicy
from dflow.ports import TaskRunner
from task_runners import ThreadPoolTaskRunner
from tests.api import shared_caching
from tests.api.shared_caching import COUNT, SAID
from tests.api.test_tasks import latest

PATIENCE = 60.0
MANY = 500
ROOT = Path(__file__).parents[2]


@pytest.fixture
def oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which bodies say that they run."""
    monkeypatch.setenv(SAID, str(tmp_path / "said"))
    (tmp_path / "said").touch()
    return tmp_path / "said"


@task(cache_policy=INPUTS)
def ran(folder: str, x: Any, size: int = 0) -> Any:
    """Leave a file for each time that it runs."""
    (Path(folder) / f"{x}-{os.urandom(4).hex()}").touch()
    return bytes(size) if size else x


@task(cache_policy=INPUTS)
async def ran_async(folder: str, x: int) -> int:
    """Be a coroutine."""
    (Path(folder) / f"{x}-{os.urandom(4).hex()}").touch()
    return x


@task(cache_policy=INPUTS)
def ran_items(folder: str, x: int) -> Iterator[int]:
    """Be a generator."""
    (Path(folder) / f"{x}-{os.urandom(4).hex()}").touch()
    yield from range(x)


@task(cache_policy=INPUTS)
async def ran_items_async(folder: str, x: int) -> AsyncIterator[int]:
    """Be an async generator."""
    (Path(folder) / f"{x}-{os.urandom(4).hex()}").touch()
    for item in range(x):
        yield item


@task
def nested(folder: str) -> list[str]:
    """Call and submit cached tasks, wherever this runs."""
    direct = ran(folder, 1, return_state=True)
    submitted = ran.submit(folder, 1, return_state=True)
    mapped = ran.map(folder=unmapped(folder), x=[1, 2])
    mapped.wait()
    return [state.name for state in (direct, submitted, *mapped.states)]


def names(futures: Any) -> list[str]:
    """Return the names of the final states of futures."""
    for future in futures:
        future.wait()
    return [future.state.name for future in futures]


def test_equal_calls_run_once(runner: TaskRunner, tmp_path: Path) -> None:
    """Direct, submitted or mapped, small values and large ones, in this run and in the next."""

    @flow(task_runner=runner)
    def main() -> Any:
        direct = ran(str(tmp_path), 1, return_state=True)
        futures = [ran.submit(str(tmp_path), 1), ran.submit(str(tmp_path), 2, size=50_000)]
        mapped = ran.map(unmapped(str(tmp_path)), [1, 3])
        values = [len(futures[1].result()), *mapped.result()]
        return [direct.name, *names(futures), *names(mapped)], values

    first = (["Completed", "Cached", "Completed", "Cached", "Completed"], [50_000, 1, 3])
    assert main() == first
    assert main() == (["Cached"] * 5, [50_000, 1, 3])
    assert len(list(tmp_path.glob("?-*"))) == 3


def test_a_chain_hits_without_a_worker(runner: TaskRunner, oracle: Path) -> None:
    """In a second run all of it is found, and the runner is given nothing."""
    chain = shared_caching.chain.with_options(task_runner=runner)
    expected = 20_000 + len("onetwothree")
    assert chain(str(oracle)) == (expected, ["Completed"] * 3)
    assert oracle.read_text().count("\n") == 3
    assert chain(str(oracle)) == (expected, ["Cached"] * 3)
    assert oracle.read_text().count("\n") == 3
    assert all(not run.attempts for run in latest())


@task
def length(value: Any, *more: Any) -> int:
    """Take values, wherever they are."""
    return sum(len(str(each)) for each in (value, *more))


@task
def made(size: int) -> bytes:
    """Return something that nobody keeps."""
    return bytes(size)


def test_a_value_that_is_kept_nowhere_is_hashed_where_it_is(
    runner: TaskRunner, tmp_path: Path
) -> None:
    """What a cached task takes of an ordinary one is known again in the next run; a map hashes it once."""

    @flow(task_runner=runner)
    def main() -> Any:
        value = made.submit(300_000)
        return names(taken.map(unmapped(str(tmp_path)), [1, 2, 3], value=unmapped(value)))

    assert main() == ["Completed"] * 3
    assert main() == ["Cached"] * 3
    assert len(list(tmp_path.glob("?-*"))) == 3


@task(cache_policy=INPUTS)
def taken(folder: str, x: int, value: bytes) -> int:
    """Leave a file for each time that it runs."""
    (Path(folder) / f"{x}-{os.urandom(4).hex()}").touch()
    return len(value)


def test_what_follows_a_hit_gets_its_value(runner: TaskRunner, tmp_path: Path) -> None:
    """Small or large, as an argument of what is not cached, inside of a container, or only waited for."""

    @flow(task_runner=runner)
    def main() -> Any:
        small, large = ran.submit(str(tmp_path), 7), ran.submit(str(tmp_path), 8, size=30_000)
        after = length.submit("waited", wait_for=[small, large])
        return length.submit(small, [large]).result(), after.result()

    first = main()
    assert first[1] == 6
    assert main() == first
    assert len(list(tmp_path.glob("?-*"))) == 2


def test_nested_calls_are_cached(runner: TaskRunner, tmp_path: Path) -> None:
    """Tasks that tasks ask for are looked up as any others."""

    @flow(task_runner=runner)
    def main() -> Any:
        return nested.submit(str(tmp_path)).result()

    assert main() == ["Completed", "Cached", "Cached", "Completed"]
    assert main() == ["Cached"] * 4
    assert len(list(tmp_path.glob("?-*"))) == 2


def test_functions_of_all_kinds_are_cached(runner: TaskRunner, tmp_path: Path) -> None:
    """Coroutines and generators, called and submitted."""
    where = str(tmp_path)

    @flow(task_runner=runner)
    async def main() -> Any:
        items = [item async for item in ran_items_async(where, 3)]
        return (
            await ran_async(where, 1),
            await ran_async.submit(where, 1),
            list(ran_items(where, 2)),
            await ran_items.submit(where, 2),
            items,
            await ran_items_async.submit(where, 3),
        )

    expected = (1, 1, [0, 1], [0, 1], [0, 1, 2], [0, 1, 2])
    assert asyncio.run(main()) == expected
    assert asyncio.run(main()) == expected
    assert Counter(path.name[0] for path in tmp_path.glob("?-*")) == {"1": 1, "2": 1, "3": 1}


def test_hits_come_in_order_of_completion(runner: TaskRunner, tmp_path: Path) -> None:
    """`as_completed` gives what is cached like anything that has completed."""

    @flow(task_runner=runner)
    def main() -> Any:
        futures = ran.map(unmapped(str(tmp_path)), [1, 2, 3])
        return sorted(future.result() for future in as_completed(futures))

    assert main() == main() == [1, 2, 3]
    assert len(list(tmp_path.glob("?-*"))) == 3


def test_what_cannot_be_hashed_runs_with_a_warning(
    runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the task and the argument; nothing fails."""
    if getattr(runner, "own", None) is not None and runner.own.processes:  # type: ignore[attr-defined]
        pytest.skip("a lock cannot travel to another process")

    @task(cache_policy=INPUTS)
    def guarded(lock: Any) -> int:
        with lock:
            return 1

    @flow(task_runner=runner)
    def main() -> list[int]:
        return [guarded.submit(threading.Lock()).result() for _ in range(2)]

    assert main() == [1, 1]
    said = [entry.getMessage() for entry in caplog.records if "guarded" in entry.getMessage()]
    assert len(said) == 1
    assert "'lock'" in said[0]


def test_a_policy_of_the_users_own(runner: TaskRunner, tmp_path: Path) -> None:
    """A subclass with `compute_key`, and a key function, with futures among the arguments."""
    by_size = ran.with_options(cache_policy=BySize())
    by_key = ran.with_options(cache_policy=None, cache_key_fn=by_x)

    @flow(task_runner=runner)
    def main() -> Any:
        first = ran.submit(str(tmp_path), 3)
        return names([by_size.submit(str(tmp_path), first), by_key.submit(str(tmp_path), first)])

    assert main() == ["Completed", "Completed"]
    assert main() == ["Cached", "Cached"]


class BySize(CachePolicy):
    """A policy of the user's own."""

    def compute_key(
        self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any
    ) -> str | None:
        """Return a key."""
        return f"{task_ctx.task.name} {inputs['x']} {flow_parameters} {sorted(kwargs)}"


def by_x(context: Any, parameters: dict[str, Any]) -> str:
    """Return a key."""
    return f"{context.task.name} {parameters['x']}"


def test_results_of_a_cached_task_are_where_they_are_asked_to_be(tmp_path: Path) -> None:
    """`result_storage` holds keys and values; `key_storage` holds keys elsewhere."""
    values, keys = tmp_path / "values", tmp_path / "keys"
    kept = ran.with_options(
        result_storage=values, cache_policy=(INPUTS + TASK_SOURCE).configure(key_storage=keys)
    )

    @flow
    def main() -> Any:
        return kept(str(tmp_path), 1, size=50_000, return_state=True).name

    assert [main(), main()] == ["Completed", "Cached"]
    assert len(list(keys.rglob("*.key"))) == 1
    assert [path.stat().st_size > 50_000 for path in values.rglob("*") if path.is_file()] == [True]


# Between processes -----------------------------------------------------------------------------------


def program(*arguments: str, home: Path, seed: str = "random") -> subprocess.Popen[str]:
    """Start a program that shares the cache of its home with others."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.api.shared_caching", *arguments],
        env={**os.environ, "DFLOW_HOME": str(home), "PYTHONHASHSEED": seed},
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def said_by(process: subprocess.Popen[str]) -> str:
    """Return what a program has printed at its end."""
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return out.strip()


def ended(oracle: Path) -> Counter[str]:
    """Return how often each value was computed to its end."""
    lines = oracle.read_text().splitlines()
    return Counter(line.split()[1] for line in lines if line.startswith("end"))


def test_another_process_with_another_hash_seed_hits(oracle: Path, dflow_home: Path) -> None:
    """After a restart all is found: sets and dicts among the arguments play no tricks."""
    first = said_by(program("chain", home=dflow_home, seed="1"))
    second = said_by(program("chain", home=dflow_home, seed="4242"))
    assert "Completed" in first
    assert second == first.replace("Completed", "Cached")
    assert oracle.read_text().count("\n") == 3


def test_two_processes_compute_each_key_once(oracle: Path, dflow_home: Path) -> None:
    """Two drivers that ask for the same 100 values at once, in different orders, share the work."""
    both = [program("1", "submits", home=dflow_home), program("2", "map", home=dflow_home)]
    hits = [int(said_by(one)) for one in both]
    assert sum(hits) == COUNT
    assert set(ended(oracle).values()) == {1}
    assert len(ended(oracle)) == COUNT


def test_when_one_of_two_is_killed_the_other_takes_over(oracle: Path, dflow_home: Path) -> None:
    """The keys of the dead are free at once: all is computed, and nothing twice that had come to its end."""
    killed = program("1", "submits", home=dflow_home)
    deadline = time.monotonic() + PATIENCE
    while len(ended(oracle)) < COUNT // 4 and time.monotonic() < deadline:
        assert killed.poll() is None
    other = program("3", "map", home=dflow_home)
    while len(ended(oracle)) < COUNT // 2 and time.monotonic() < deadline:
        assert killed.poll() is None
    psutil.Process(killed.pid).kill()
    killed.communicate()
    hits = int(said_by(other))
    done = ended(oracle)
    assert len(done) == COUNT
    twice = sum(count - 1 for count in done.values())
    assert twice <= 4  # those whose bodies had ended while their records were still being written
    assert hits >= COUNT // 2 - 4


def test_many_hits_take_a_moment() -> None:
    """One map of values that are all there costs no worker, and very little each."""

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def main() -> float:
        begin = time.perf_counter()
        quick.map(range(MANY)).wait()
        return time.perf_counter() - begin

    main()
    seconds = main()
    assert {run.state_name for run in latest()} == {"Cached"}
    assert seconds < MANY / 100


@task(cache_policy=INPUTS)
def quick(x: int) -> int:
    """Return what came."""
    return x


PROGRAM = """
from dflow import flow, task
from dflow.cache_policies import INPUTS

@task(cache_policy=INPUTS)
def made(x: int) -> str:
    return "{author}"

@flow(task_runner="inline")
def main() -> None:
    state = made(1, return_state=True)
    print(state.name, state.result())

main()
"""


def test_programs_of_the_same_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """Another file with other code computes; the same code elsewhere, and other code in its file, hit."""
    home = {**os.environ, "DFLOW_HOME": str(tmp_path / "home")}

    def ran(folder: str, author: str) -> str:
        script = tmp_path / folder / "train.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(PROGRAM.replace("{author}", author), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(script)],
            env=home,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    assert ran("one", "Ada") == "Completed Ada"
    assert ran("two", "Ada") == "Cached Ada"
    assert ran("three", "Bob") == "Completed Bob"
    assert ran("three", "Eve") == "Cached Bob"
