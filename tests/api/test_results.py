"""Results that are kept: what decides it, where and how they are written, on every runner."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflow import current_run, flow, runs, task, wait
from dflow.core.records import Held
from dflow.errors import DefinitionError, ResultStoreError, SerializationError
from dflow.ports import TaskRunner
from dflow.results.stores import store
from tests.api import kept
from tests.api.kept import (
    SIZE,
    cannot_be_pickled,
    held,
    large,
    large_async,
    large_async_items,
    large_items,
    not_kept,
    place,
    several,
    small,
    stored,
    text,
    total,
    tuples,
)
from tests.api.shared_flows import seen


@pytest.fixture
def by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the results of all bodies be kept that say nothing of it, however short they are."""
    monkeypatch.setenv("DFLOW_PERSIST_SECONDS", "0")


# Whether --------------------------------------------------------------------------------------------


def test_results_are_kept_that_are_asked_for(runner: TaskRunner, dflow_home: Path) -> None:
    """Of submits, maps and calls, in flows and in tasks; each in a file of its own below the run's."""
    keeping = large.with_options(persist_result=True)

    @flow(task_runner=runner)
    def main() -> float:
        mapped = keeping.map([1, 2])
        return total(total.submit([keeping.submit(0), keeping(3), *mapped]).result())

    assert main() == SIZE // 8 * 6
    root = seen().root.id
    files = [stored(f"large-{n}") for n in range(4)]
    assert {one.storage for one in files} == {f"file://{dflow_home}/results"}
    assert {one.path.rpartition("/")[0] for one in files} == {f"runs/{root}"}
    assert len({one.path for one in files}) == 4
    assert not any(one.automatic for one in files)
    assert len(store(files[0].storage).sizes(f"runs/{root}")) == 4


def test_results_of_every_kind_of_task_are_kept(runner: TaskRunner) -> None:
    """Async ones, and what generators yield: as a list, though it was handed out item by item."""
    kinds: list[Any] = [
        one.with_options(persist_result=True)
        for one in (large_async, large_items, large_async_items)
    ]

    @flow(task_runner=runner)
    async def main() -> list[Any]:
        one, items, async_items = kinds
        handed_out = [await one(1), list(items(2)), [item async for item in async_items(3)]]
        return [*handed_out, *[task.submit(4).result() for task in kinds]]

    values = asyncio.run(main())
    shapes = [np.shape(value) for value in values]
    assert shapes == [(SIZE // 8,), (3, SIZE // 8), (3, SIZE // 8)] * 2
    names = ["large_async", "large_items", "large_async_items"]
    for number in (0, 1):
        assert {stored(f"{name}-{number}").size > SIZE for name in names} == {True}


def test_small_results_stay_in_the_record(runner: TaskRunner) -> None:
    """They are kept there anyway."""

    @flow(task_runner=runner)
    def main() -> Any:
        return small.with_options(persist_result=True).submit(1).result()

    assert main() == {"number": 1}
    assert held("small-0") == (Held.JOURNAL, None)


@pytest.mark.usefixtures("by_themselves")
def test_nothing_is_kept_that_shall_not_be(runner: TaskRunner) -> None:
    """Whatever its flow says, and however long it took."""

    @flow(task_runner=runner, persist_result=True)
    def main() -> float:
        return total(large.with_options(persist_result=False).submit(1))

    main()
    assert not_kept("large-0")


@pytest.mark.usefixtures("by_themselves")
def test_long_results_are_kept_by_themselves(runner: TaskRunner, monkeypatch) -> None:
    """Where nobody has said anything; a short body's are not."""

    @flow(task_runner=runner)
    def main() -> float:
        return total([large.submit(1), large_async.submit(1)])

    main()
    assert stored("large-0").automatic
    assert stored("large_async-0").automatic
    monkeypatch.setenv("DFLOW_PERSIST_SECONDS", "60")
    main()
    assert not_kept("large-0")


def test_what_a_task_leaves_unset_is_its_flows(runner: TaskRunner, tmp_path: Path) -> None:
    """Also in tasks on workers and in subflows, unless those say it themselves."""

    @flow
    def below() -> float:
        return total([large.submit(10), large.with_options(persist_result=False).submit(11)])

    other = below.with_options(result_storage=tmp_path / "other", name="other")

    @flow(
        task_runner=runner, result_storage=tmp_path / "kept", result_serializer="compressed/pickle"
    )
    def main() -> float:
        return several.submit([1, 2, 3]).result() + below() + other()

    main()
    runs = [run for run in seen().tasks if run.task_name == "large"]
    names = {run.id: run.flow_name for run in seen().flows}
    found = [(names[run.flow_run_id], run.stored and run.stored.storage) for run in runs]
    here, there = f"file://{tmp_path}/kept", f"file://{tmp_path}/other"
    assert sorted(found, key=str) == sorted(
        [("main", here)] * 3
        + [("below", here), ("below", None), ("other", there), ("other", None)],
        key=str,
    )
    assert {run.stored.serializer for run in runs if run.stored} == {"compressed/pickle"}


@pytest.mark.usefixtures("by_themselves")
def test_a_quota_bounds_what_is_kept_by_itself(runner: TaskRunner, monkeypatch, caplog) -> None:
    """Beyond it nothing is, which is said once; what was asked for is kept all the same."""
    monkeypatch.setenv("DFLOW_RESULT_QUOTA", str(int(2.5 * SIZE)))

    @flow(task_runner=runner)
    def main() -> None:
        for number in range(5):
            large.submit(number).wait()
        large.with_options(persist_result=True).submit(5).wait()

    main()
    where = [held(f"large-{n}")[0] for n in range(6)]
    assert where == [Held.STORED] * 2 + [Held.RUNNER] * 3 + [Held.STORED]
    said = [
        record.getMessage() for record in caplog.records if "RESULT_QUOTA" in record.getMessage()
    ]
    assert len(said) == 1
    assert "of the 250,000 bytes that a run keeps by itself" in said[0]
    assert any("RESULT_QUOTA" in line for line in seen().lines)


@pytest.mark.usefixtures("by_themselves")
def test_the_quota_holds_for_what_is_sent_out_together(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map whose items were all told of the same quota keeps no more than that in each process."""
    monkeypatch.setenv("DFLOW_RESULT_QUOTA", str(int(2.5 * SIZE)))

    @flow(task_runner=runner)
    def main() -> None:
        large.map(range(12)).wait()

    main()
    kept = sum(held(f"large-{n}")[0] is Held.STORED for n in range(12))
    assert 2 <= kept <= 4  # there are at most two processes


def test_who_names_a_place_or_a_form_wants_it_kept(tmp_path: Path) -> None:
    """As does who names a file; unless it is said otherwise."""
    for options in (
        {"result_storage": tmp_path},
        {"result_serializer": "json"},
        {"result_storage_key": "a"},
    ):
        named = task(**options)(lambda: None)
        assert named._results.persist is True
    assert (
        task(result_storage=tmp_path, persist_result=False)(lambda: None)._results.persist is False
    )
    assert flow(result_storage=tmp_path)(lambda: None)._results.persist is True


# Where and how ----------------------------------------------------------------------------------------


def test_a_result_is_found_under_the_name_that_was_chosen(
    runner: TaskRunner, tmp_path: Path
) -> None:
    """Made of parameters, those from futures too, and of names; Python's own pickle reads it."""
    named = total.with_options(
        result_storage=tmp_path, result_storage_key="sums/{flow_run.name}/{parameters[arrays]}.pkl"
    )

    @flow(task_runner=runner, flow_run_name="sunday")
    def main() -> list[float]:
        return [named.submit(small_number.submit(3)).result(), named(5)]

    assert main() == [3.0, 5.0]
    for number in (3, 5):
        file = tmp_path / f"sums/sunday/{number}.pkl"
        assert pickle.loads(file.read_bytes()) == number
        assert place(f"total-{0 if number == 3 else 1}") == file


@task
def small_number(number: int) -> int:
    """Return a number."""
    return number


def test_each_run_writes_its_file_anew(runner: TaskRunner, tmp_path: Path) -> None:
    """The last one is there in the end, whole."""

    @task(result_storage=tmp_path, result_storage_key="best.json", result_serializer="json")
    def best(number: int) -> list[int]:
        return [number] * 3

    @flow(task_runner=runner)
    def main() -> None:
        for number in range(3):
            best.submit(number).wait()

    main()
    assert json.loads((tmp_path / "best.json").read_bytes()) == [2, 2, 2]


@pytest.mark.parametrize("serializer", ["pickle", "compressed/pickle", "json", "compressed/json"])
def test_results_are_written_in_many_forms(
    runner: TaskRunner, serializer: str, tmp_path: Path
) -> None:
    """By every serializer they come back the same; JSON is for others to read."""
    value = {"rows": list(range(SIZE // 5)), "name": "grüße"}

    @task(result_storage=tmp_path, result_serializer=serializer)
    def rows() -> Any:
        return value

    @flow(task_runner=runner)
    def main() -> bool:
        first = rows.submit()
        return bool(first.result() == value)

    assert main()
    assert stored("rows-0").serializer == serializer
    if serializer == "json":
        assert json.loads(place("rows-0").read_bytes()) == value


def test_users_serializers_write_results(runner: TaskRunner) -> None:
    """One that the module of the task registers is known on workers."""

    @flow(task_runner=runner)
    def main() -> int:
        return len(text.submit().result())

    assert main() == SIZE // 3 * 3
    assert place("text-0").read_bytes().startswith(b"cbacba")


def test_with_options_keeps_and_clears(tmp_path: Path) -> None:
    """What is not named stays; None clears, also what followed from it."""
    one = large.with_options(result_storage=tmp_path, result_serializer="json")
    assert one.with_options(name="other")._results == one._results
    cleared = one.with_options(result_storage=None, result_serializer=None)
    assert cleared._results == large._results
    keeping = flow(persist_result=True)(lambda: None)
    assert keeping.with_options(name="other")._results.persist is True
    assert keeping.with_options(persist_result=None)._results.persist is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"persist_result": "yes"}, "persist_result= must be True, False or None"),
        ({"result_storage": 5}, "result_storage= must be a folder or a URL"),
        ({"result_storage": "simplecache::s3://a"}, "is a chain of file systems"),
        ({"result_serializer": kept.Backwards()}, "register_serializer"),
        ({"result_storage_key": "{lr}.pkl"}, r"uses 'lr', which is not known.*\{parameters\[x\]\}"),
        ({"result_storage_key": "{parameters[lr]}"}, "'lr' is no parameter; its parameters: 'x'"),
        ({"result_storage_key": "{task_run.nothing}"}, "cannot be filled in"),
        ({"result_storage_key": "../{task_run.name}"}, "without '..'"),
        ({"result_storage_key": "/etc/passwd"}, "must be a relative path"),
        ({"result_storage_key": "runs/{task_run.name}"}, "dflow's own"),
        ({"result_storage_key": "a", "persist_result": False}, "Leave out one of them"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_definition(options: Any, said: str) -> None:
    """With an error that names the option."""
    with pytest.raises(DefinitionError, match=said):
        task(**options)(lambda x: x)


# What goes wrong ---------------------------------------------------------------------------------------


def blocked(tmp_path: Path) -> Path:
    """Return a folder in which no result can be written: a file is in the place of theirs."""
    place = tmp_path / "blocked"
    place.mkdir()
    (place / "runs").write_text("a file")
    return place


def test_a_failed_write_is_a_failed_attempt(runner: TaskRunner, tmp_path: Path) -> None:
    """The error names the store; a retry that can write has a result."""
    folder = blocked(tmp_path)
    keeping = making_room.with_options(result_storage=folder)

    @flow(task_runner=runner)
    def main() -> Any:
        bad = keeping.submit(str(folder), room_for_attempt=9)
        bad.wait()
        good = keeping.with_options(retries=1).submit(str(folder), room_for_attempt=2)
        good.wait()
        return bad.result(raise_on_failure=False), float(good.result().sum())

    error, value = main()
    assert isinstance(error, ResultStoreError)
    assert "could not be written" in str(error)
    assert f"'file://{folder}'" in str(error)
    assert value == SIZE // 8
    (bad, good) = seen().tasks
    assert (bad.state_name, len(bad.attempts)) == ("Failed", 1)
    assert (good.state_name, len(good.attempts), good.held) == ("Completed", 2, Held.STORED)


@task
def making_room(folder: str, room_for_attempt: int) -> np.ndarray[Any, Any]:
    """Take away what is in the way of a folder, in one of the attempts."""
    if current_run().attempt == room_for_attempt:
        (Path(folder) / "runs").unlink()
    return np.ones(SIZE // 8)


@pytest.mark.usefixtures("by_themselves")
def test_a_failed_write_that_nobody_asked_for_is_a_warning(
    runner: TaskRunner, tmp_path: Path, monkeypatch
) -> None:
    """The value is there as it would be otherwise."""
    monkeypatch.setenv("DFLOW_RESULT_STORAGE", str(blocked(tmp_path)))

    @flow(task_runner=runner)
    def main() -> float:
        return total(large.submit(1))

    assert main() == SIZE // 8
    assert not_kept("large-0")
    said = [line for line in seen().lines if "could not be written" in line]
    assert len(said) == 1


def test_a_full_disk_fails_the_attempt(runner: TaskRunner, small_disk: Path) -> None:
    """Nothing half is left, the error says what to do, and once there is room a retry succeeds."""
    (small_disk / "ballast").write_bytes(bytes(4_000_000))
    keeping = freeing.with_options(result_storage=small_disk / "kept", retries=1)

    @flow(task_runner=runner)
    def main() -> list[Any]:
        never = keeping.submit(str(small_disk), 9)
        never.wait()
        second = keeping.submit(str(small_disk), 2)
        return [never.result(raise_on_failure=False), float(second.result().sum())]

    error, value = main()
    assert isinstance(error, ResultStoreError)
    assert "No space left on device" in str(error)
    assert "Make room there" in str(error)
    assert value == 10 * SIZE
    files = [path for path in (small_disk / "kept").rglob("*") if path.is_file()]
    assert files == [place("freeing-1")]


@task
def freeing(folder: str, in_attempt: int) -> np.ndarray[Any, Any]:
    """Make room on a disk, in one of the attempts."""
    if current_run().attempt == in_attempt:
        (Path(folder) / "ballast").unlink()
    return np.ones(10 * SIZE, "u1")


def test_what_cannot_be_written_says_so(runner: TaskRunner) -> None:
    """Where it was asked for: with its type, and it is not tried again."""
    asked = cannot_be_pickled.with_options(persist_result=True, retries=3)
    as_json = tuples.with_options(result_serializer="json")

    @flow(task_runner=runner)
    def main() -> list[Any]:
        both = [asked.submit(), as_json.submit()]
        return [future.result(raise_on_failure=False) for future in both]

    first, second = main()
    assert isinstance(first, SerializationError)
    assert "'builtins.list'" in str(first)
    assert isinstance(second, SerializationError)
    assert "it[0] is a 'tuple', which JSON does not give back" in str(second)
    assert [len(run.attempts) for run in seen().tasks] == [1, 1]


@pytest.mark.usefixtures("by_themselves")
def test_what_cannot_be_written_and_need_not_be_is_no_failure(runner: TaskRunner) -> None:
    """It stays where it is; nothing is said of what could not travel either."""

    @flow(task_runner=runner)
    def main() -> str:
        future = cannot_be_pickled.submit()
        future.wait()
        return future.state.name

    assert main() == "Completed"
    assert not_kept("cannot_be_pickled-0")
    assert [line for line in seen().lines if "kept" in line] == []


@task(result_serializer="json")
def as_json(value: Any) -> Any:
    """Return what it gets, by way of JSON."""
    return value


@task(result_serializer="backwards")
def backwards(text: str) -> str:
    """Return what it gets, by a serializer that says when it has been used."""
    return text


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, {1: "a"}, np.float64(0.5)])
def test_a_serializer_decides_for_small_values_too(runner: TaskRunner, value: Any) -> None:
    """What it cannot write is an error whatever the size, of a submit and of a call, and of a flow."""

    @flow(result_serializer="json")
    def keeps() -> Any:
        return value

    @flow(task_runner=runner)
    def main(wrong: Any) -> Any:
        return as_json.submit(wrong).result()

    @flow(task_runner=runner)
    def calls(wrong: Any) -> Any:
        return as_json(wrong)

    for wrong in (value, [value, "x" * 20_000]):
        for one in (main, calls):
            with pytest.raises(SerializationError, match="JSON does not give back"):
                one(wrong)
    with pytest.raises(SerializationError, match="JSON does not give back"):
        keeps()


def in_journal(name: str) -> bytes:
    """Return what the journal keeps of the value of a task run of the latest run."""
    (run,) = [run for run in seen().tasks if run.name == name]
    with runs.opened(runs.find("latest")) as reader:
        return reader.value(run.id) or b""


def test_small_values_are_read_by_their_serializer(runner: TaskRunner, tmp_path: Path) -> None:
    """The journal keeps what the serializer made; what is read later is as of a large one."""
    gate = tmp_path / "gate"

    @flow(task_runner=runner)
    def main() -> Any:
        texts = [backwards.submit("abc").result(), as_json.submit({"a": [1, None]}).result()]
        return texts if gate.exists() else gate.read_text()

    assert main(return_state=True).is_failed()
    gate.touch()
    for name, made in (("backwards-0", b"cba"), ("as_json-0", b'{"a": [1, null]}')):
        assert held(name) == (Held.JOURNAL, None)
        assert made in in_journal(name)
    assert main.resume("latest") == ["abc", {"a": [1, None]}]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"result_serializer": "nobodys"},
            SerializationError,
            "'nobodys' is not registered in this",
        ),
        (
            {"result_serializer": "compresed/pickle"},
            SerializationError,
            "'compresed/pickle' is not",
        ),
        ({"result_storage": "nope://x"}, ResultStoreError, "Protocol not known: nope"),
        ({"result_storage": "/proc/nope/x"}, ResultStoreError, "nothing can be kept"),
    ],
)
def test_where_nothing_can_be_kept_is_found_before_the_body(
    options: dict[str, Any], error: type[Exception], said: str, runner: TaskRunner, tmp_path: Path
) -> None:
    """Of tasks that are submitted, called, and asked for by tasks, and of flows: no hour of work is lost."""
    oracle = tmp_path / "oracle"
    oracle.touch()
    wrong: Any = large.with_options(**options)

    @task
    def asks() -> Any:
        return wrong.submit(2, str(oracle)).result()

    @flow(**options)
    def keeps() -> int:
        oracle.write_text("ran")
        return 1

    @flow(task_runner=runner)
    def main(how: int) -> Any:
        calls: list[Any] = [
            wrong.submit(1, str(oracle)).result,
            lambda: wrong(1, str(oracle)),
            asks,
            asks.submit().result,
        ]
        return [*calls, keeps][how]()

    for how in range(5):
        with pytest.raises(error, match=said):
            main(how)
    with pytest.raises(error, match=said):
        keeps()
    assert oracle.read_text() == ""


@pytest.mark.usefixtures("by_themselves")
def test_where_nothing_can_be_kept_by_itself_is_said_once(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever process notices it: the task runs complete."""
    monkeypatch.setenv("DFLOW_RESULT_STORAGE", "nope://x")

    @flow(task_runner=runner)
    def main() -> float:
        return total(total.submit(large.map(list(range(6)))).result())

    assert main() > 0
    assert len([line for line in seen().lines if "not kept" in line]) == 1


def test_a_name_that_leads_out_of_the_store_fails_before_the_body(
    runner: TaskRunner, tmp_path: Path
) -> None:
    """Whatever the parameters are, nothing is written elsewhere, and no hour of work is lost."""
    oracle = tmp_path / "oracle"
    oracle.touch()
    named = large.with_options(
        result_storage=tmp_path / "kept", result_storage_key="{parameters[oracle]}.pkl"
    )

    @flow(task_runner=runner)
    def main() -> Any:
        return named.submit(1, f"../{oracle.name}").result()

    with pytest.raises(DefinitionError, match="must be a relative path without"):
        main()
    assert oracle.read_text(encoding="utf-8") == ""
    assert list(tmp_path.rglob("*.pkl")) == []


def test_storing_a_value_does_not_count_for_the_deadline(
    runner: TaskRunner,
) -> None:
    """A body that has ended in its time has not timed out, however long its result takes to be written."""

    @flow(task_runner=runner)
    def main() -> tuple[str, float]:
        quick = slow_to_store.with_options(timeout_seconds=None, result_serializer=None)
        wait([quick.submit() for _ in range(4)])  # workers have loaded this file then
        future = slow_to_store.submit()
        future.wait()
        return future.state.name, float(future.result().sum())

    assert main() == ("Completed", SIZE // 8)
    assert {len(run.attempts) for run in seen().tasks} == {1}


@task(result_serializer="slow", timeout_seconds=0.4)
def slow_to_store() -> np.ndarray[Any, Any]:
    """Return at once what takes long to be written."""
    return np.ones(SIZE // 8)
