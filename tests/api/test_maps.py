"""What a map maps over, what it returns, and what it costs, on every runner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pydantic
import pytest

from dflow import flow, runs, task, unmapped
from dflow.core.events import MapCreated
from dflow.errors import ParameterError
from dflow.futures import TaskFutureList
from dflow.ports import TaskRunner
from tests.api.test_futures import AWAY, hold
from tests.api.test_tasks import latest


class Model(pydantic.BaseModel):
    """A model, which can be iterated over."""

    a: int = 1


@task
def told(x: Any, y: Any = None) -> str:
    """Return what came."""
    return f"{x!r} {y!r}"


@task
def add_all(x: int, more: tuple[int, ...]) -> int:
    """Add."""
    return x + sum(more)


@task
def fail_odd(x: int) -> int:
    """Raise for odd numbers."""
    if x % 2:
        raise KeyError(x)
    return x


def test_every_iterable_is_mapped(runner: TaskRunner) -> None:
    """Lists, tuples, ranges, sets and generators; what is no collection is the same for each."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        iterables: list[Any] = [[1, 2], (1, 2), range(1, 3), {1, 2}, (x for x in (1, 2))]
        for each in iterables:
            assert sorted(told.map(each).result()) == ["1 None", "2 None"]
        assert told.map([], "text").result() == []
        return [told.map([1, 2], ["a", "b"]).result(), told.map([1], y=5).result()]

    assert main() == [["1 'a'", "2 'b'"], ["1 5"]]


@pytest.mark.parametrize("value", ["text", b"bytes", {"a": 1}, Model(), unmapped([7, 8])], ids=str)
def test_some_iterables_are_values(runner: TaskRunner, value: Any) -> None:
    """Strings, bytes, dicts and models are the same for every item, unless they are in a list."""
    plain = value.value if hasattr(value, "value") else value

    @flow(task_runner=runner)
    def main() -> list[Any]:
        inside = told.map([1], [plain]).result()
        return [*told.map([1, 2], value).result(), *inside]

    assert main() == [f"1 {plain!r}", f"2 {plain!r}", f"1 {plain!r}"]


def test_lengths_must_agree(runner: TaskRunner) -> None:
    """The error names the arguments and their lengths; with nothing to map over it says so."""

    @flow(task_runner=runner)
    def main() -> None:
        with pytest.raises(ParameterError, match=r"(?s)'x'.*3.*'y'.*2"):
            told.map([1, 2, 3], [1, 2])
        with pytest.raises(ParameterError, match="nothing to map over"):
            told.map(1, "text")

    main()
    assert latest() == []


def test_a_map_gives_a_list_of_futures(runner: TaskRunner) -> None:
    """It waits, gives values and states in the order of the items, and failures as asked."""

    @flow(task_runner=runner)
    def main() -> None:
        futures = fail_odd.map(range(4))
        assert isinstance(futures, TaskFutureList)
        futures.wait()
        assert [state.name for state in futures.states] == ["Completed", "Failed"] * 2
        with pytest.raises(KeyError, match="1"):
            futures.result()
        values = futures.result(raise_on_failure=False)
        assert [repr(value) for value in values] == ["0", "KeyError(1)", "2", "KeyError(3)"]
        assert [futures[2].result(), len(futures[1:])] == [2, 3]

    main()


@pytest.mark.parametrize("runner", AWAY, indirect=True)
def test_a_map_does_not_block(runner: TaskRunner, tmp_path: Path) -> None:
    """It returns while its bodies run."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        futures = hold.map([str(tmp_path)] * 2, [1, 2])
        assert not any(future.done() for future in futures)
        (tmp_path / "go").touch()
        return futures.result(timeout=60)

    assert main() == [1, 2]


def test_a_map_is_one_message(runner: TaskRunner) -> None:
    """However many items it has: one event of the record asks for all of them."""

    @flow(task_runner=runner)
    def main() -> int:
        return sum(add_all.map(range(200), unmapped((1, 2))).result())

    assert main() == sum(range(200)) + 200 * 3
    with runs.opened(runs.find("latest")) as reader:
        made = [event for _, event in reader.events() if isinstance(event, MapCreated)]
    assert [len(event.items) for event in made] == [200]


PICKLED: list[int] = []


class Counted:
    """Notes in this process how often it is pickled."""

    def __reduce__(self) -> Any:
        """Note it."""
        PICKLED.append(os.getpid())
        return Counted, ()


@task
def takes(x: int, _: Counted) -> int:
    """Return the number."""
    return x


def test_what_is_unmapped_travels_once(processes: TaskRunner) -> None:
    """A constant is not pickled for each item."""

    @flow(task_runner=processes)
    def main() -> list[int]:
        return takes.map(range(100), unmapped(Counted())).result()

    PICKLED.clear()
    assert main() == list(range(100))
    assert len(PICKLED) < 10
