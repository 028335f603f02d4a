"""What may stand in the arguments of a call, and maps, on every runner."""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import pytest

from dflow import allow_failure, flow, opaque, quote, runs, task, unmapped
from dflow.core.records import Stage
from dflow.errors import SerializationError
from dflow.ports import TaskRunner
from tests.api.test_flows_and_tasks import record


@task
def add(x: int, y: int = 1) -> int:
    """Return a sum."""
    return x + y


@task
def numbers(count: int) -> list[int]:
    """Return a list."""
    return list(range(count))


@task
def fail(text: str) -> None:
    """Raise."""
    raise KeyError(text)


class Locked(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@task
def fail_locked(text: str) -> None:
    """Raise what cannot travel."""
    raise Locked(text)


@task
def die() -> None:
    """End the worker."""
    os._exit(1)


@task
def big(n: int) -> bytes:
    """Return n bytes."""
    return bytes(n)


@task
def told(x: Any) -> str:
    """Return what came, in words; of exceptions what they say, of bytes their number."""
    if isinstance(x, list | tuple):
        return ", ".join(told.fn(item) for item in x)
    if isinstance(x, Exception):
        return f"{type(x).__name__} {x}"
    return f"{len(x)} bytes" if isinstance(x, bytes) else repr(x)


class Point(NamedTuple):
    """A named tuple."""

    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Box:
    """A dataclass."""

    content: Any


class Model(pydantic.BaseModel):
    """A model."""

    content: Any
    _secret: Any = pydantic.PrivateAttr(None)


@task
def opened(box: Box, model: Model, point: Point, more: dict[Any, Any]) -> list[Any]:
    """Return what is inside."""
    return [box.content, model.content, model._secret, *point, more]


@task
def count_in_flight(folder: str, number: int) -> int:
    """Return how many of these were at work at some moment of this one's."""
    mine = Path(folder) / str(number)
    mine.touch()
    seen = 0
    for _ in range(2000):
        seen = max(seen, len(list(Path(folder).iterdir())))
    mine.unlink()
    return seen


@task
def nested_failures(x: int) -> list[str]:
    """Let children fail and give their failures to other children."""
    bad, locked, good = fail.submit("k"), fail_locked.submit("l"), add.submit(x)
    return [
        told([allow_failure(bad), good]),
        told.submit([allow_failure(bad), good]).result(),
        told.submit(allow_failure(locked)).result(),
        *told.map(allow_failure([bad, good])).result(),
    ]


@task
def nested_maps(count: int) -> list[int]:
    """Map over lists that are still to come, with and without looking."""
    add.map(numbers.submit(count), unmapped(100))
    once = add.map(numbers.submit(count))
    return add.map(once, unmapped(10), max_in_flight=1).result()


def test_a_failure_may_be_given_to_a_task(runner: TaskRunner) -> None:
    """Submitted, called and mapped, alone and in lists, whether its exception can travel or not."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        bad, locked, good = fail.submit("k"), fail_locked.submit("l"), add.submit(1)
        never = add.submit(fail.submit("root"))
        futures = [
            told.submit(allow_failure(bad)),
            told.submit([allow_failure(locked)]),
            told.submit(allow_failure([good, never, 5])),
            told.submit(1, wait_for=[allow_failure(bad)]),
            *told.map(allow_failure([bad, good])),
        ]
        found = [future.result() for future in futures]
        return [*found, told(allow_failure(bad)), told(allow_failure([locked, good]))]

    found = main()
    assert found[0] == "KeyError 'k'"
    assert found[1].startswith(("Locked l", "TaskFailedError 'fail_locked-0' raised"))
    assert found[1].endswith("l")
    assert found[2:4] == ["2, KeyError 'root', 5", "1"]
    assert found[4:7] == ["KeyError 'k'", "2", "KeyError 'k'"]
    assert found[7].endswith("l, 2")
    record()


def test_failures_are_given_to_nested_task_runs(runner: TaskRunner) -> None:
    """Wherever the parent runs."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        return nested_failures.submit(1).result()

    found = main()
    locked = found.pop(2)
    assert found == ["KeyError 'k', 2", "KeyError 'k', 2", "KeyError 'k'", "2"]
    assert locked.startswith(("Locked", "TaskFailedError"))


def test_a_task_whose_worker_died_may_fail(processes: TaskRunner) -> None:
    """What depends on it gets a `CrashedError`, and the value of what completed beside it."""

    @flow(task_runner=processes)
    def main() -> str:
        dead = die.with_options(max_worker_losses=0).submit()
        return told.submit(allow_failure([dead, big.submit(100_000)])).result()

    assert main().startswith("CrashedError 'die-0' has ended as Crashed. 1 workers died")


def test_large_values_go_to_those_that_allow_failure(runner: TaskRunner) -> None:
    """A value that is no failure arrives as for any other task."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        large = big.submit(1_000_000)
        sizes = told.map(allow_failure([large, large]), wait_for=[allow_failure(large)])
        return [told.submit(allow_failure(large)).result(), *sizes.result()]

    assert main() == ["1000000 bytes"] * 3


def test_states_and_annotations(runner: TaskRunner) -> None:
    """States are their values, what is quoted or opaque is not looked into, unmapped means nothing here."""

    @flow(task_runner=runner)
    def main() -> list[str]:
        state = add.submit(1, return_state=True)
        failed = fail.submit("k", return_state=True)
        with pytest.raises(KeyError, match="k"):
            told.submit(failed)
        cycle: list[Any] = [1]
        cycle.append(cycle)
        futures = [
            told.submit([state, allow_failure(failed)], wait_for=[state]),
            told.submit([quote([1, 2]), opaque(add.submit(2)), opaque("text")]),
            told.submit(unmapped([add.submit(3)])),
            length.submit(quote(cycle)),
        ]
        return [future.result() for future in futures]

    assert main() == ["2, KeyError 'k'", "1, 2, 3, 'text'", "4", 2]


@task
def length(x: list[Any]) -> Any:
    """Return how many there are."""
    return len(x)


def test_futures_are_found_in_every_container(runner: TaskRunner) -> None:
    """Frozen, slotted, private, as keys; the user's own objects stay as they are."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        one, two = add.map([0, 1])
        box, model = Box([one]), Model(content=Box(two))
        model._secret = (one,)
        more = {one: deque([two], 3), "set": {one, two}, "same": [box.content, box.content]}
        found: list[Any] = opened.submit(box, model, Point(one, [two]), more).result()
        assert opened(box, model, Point(one, [two]), more) == found
        assert box.content == [one]
        return found

    more = {1: deque([2]), "set": {1, 2}, "same": [[1], [1]]}
    assert main() == [[1], Box(2), (1,), 1, [2], more]


def test_maps_over_lists_that_are_still_to_come(runner: TaskRunner) -> None:
    """Maps of maps, of several futures, of scalars and of nothing."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        mapped = add.map(numbers.submit(3), add.submit(9))
        again = add.map(mapped, numbers.submit(3))
        add.map(numbers.submit(2))
        return [again.result(), len(mapped), add.map(numbers.submit(0)).result()]

    assert main() == [[10, 12, 14], 3, []]
    task_runs, _ = record()
    assert {run.stage for run in task_runs.values()} == {Stage.COMPLETED}
    assert len(task_runs) == 5 + 3 + 3 + 2


def test_maps_over_a_list_that_fails(runner: TaskRunner) -> None:
    """To wait does not raise; the values, and what is returned, do."""

    @flow(task_runner=runner)
    def main() -> Any:
        mapped = add.map(fail.submit("k"))
        mapped.wait()
        with pytest.raises(KeyError, match="k"):
            mapped.result()
        assert told(allow_failure(mapped)) == "KeyError 'k'"
        return mapped

    with pytest.raises(KeyError, match="k"):
        main()


def test_nested_maps_over_lists_that_are_still_to_come(runner: TaskRunner) -> None:
    """In tasks, wherever they run; a task does not end before its maps are made."""

    @flow(task_runner=runner)
    def main() -> list[list[int]]:
        return nested_maps.map([2, 3]).result()

    assert main() == [[11, 12], [11, 12, 13]]
    record()
    with runs.opened(runs.find("latest")) as reader:
        task_runs = list(reader.task_runs())
    assert {run.stage for run in task_runs} == {Stage.COMPLETED}
    assert len(task_runs) == 2 + 4 + (2 + 3) * 3


def test_no_more_than_the_limit_run_at_once(runner: TaskRunner, tmp_path: Path) -> None:
    """``max_in_flight`` bounds a map; all of it runs in the end."""
    folder = tmp_path / "in-flight"
    folder.mkdir()

    @flow(task_runner=runner)
    def main() -> list[int]:
        found = count_in_flight.map(unmapped(str(folder)), range(8), max_in_flight=1)
        return found.result()

    assert main() == [1] * 8


def test_a_quoted_future_cannot_go_to_another_process(processes: TaskRunner) -> None:
    """The error names where it is, when it is submitted."""

    @flow(task_runner=processes)
    def main() -> None:
        told.submit(quote({"a": [add.submit(1)]}))

    with pytest.raises(SerializationError, match=r"argument 'x'\['a'\]\[0\] of task 'told'"):
        main()
