"""What users see of flows and tasks, on every runner."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dflow
from dflow import as_completed, flow, get_run_logger, runs, task, unmapped, wait
from dflow.core.records import Ending, Stage, TaskRun
from dflow.errors import SerializationError
from dflow.messages import LogEntry
from dflow.ports import TaskRunner
from tests.api import shared_globals
from tests.api.conftest import ONE_WORKER
from tests.records import sound


@task
def add(x: int, y: int = 1) -> int:
    """Return a sum."""
    return x + y


@task
def total(numbers: list[int]) -> int:
    """Return the sum of many."""
    return sum(numbers)


@task
def fail(text: str) -> None:
    """Raise."""
    raise KeyError(text)


@task(retries=2)
def fails_once(folder: str, value: int) -> int:
    """Raise in the first execution: a file tells which it is, in whatever process."""
    marker = Path(folder) / f"tried-{value}"
    if not marker.exists():
        marker.touch()
        raise ValueError(f"not at once: {value}")
    return value


@task(log_prints=True)
def speak(words: str) -> int:
    """Print a line, log another, and return the pid."""
    print("printed", words)
    get_run_logger().warning("logged %s", words)
    return os.getpid()


@task
def nested(depth: int) -> int:
    """Submit the same task, one level deeper, and wait for it."""
    return 0 if depth == 0 else nested.submit(depth - 1).result() + 1


@task
def calls_directly(x: int) -> int:
    """Call another task twice."""
    return add(x, 10) + add(x, 20)


@task
def mapped_inside(n: int) -> int:
    """Map another task."""
    return sum(add.map(range(n), unmapped(0)).result())


@task
def rescue(x: int) -> str:
    """Catch the failure of another task."""
    try:
        return str(fail.submit("inner").result())
    except KeyError as error:
        return f"rescued {error.args[0]} {x}"


@task
def big(n: int) -> bytes:
    """Return n bytes."""
    return bytes(n)


@task
def size_of(data: bytes) -> int:
    """Return the size."""
    return len(data)


@dataclass
class Pair:
    """Holds two things."""

    left: Any
    right: Any


@task
def join(pair: Pair, more: dict[str, Any]) -> list[Any]:
    """Return what is inside."""
    return [pair.left, pair.right, more["deep"][0]["x"]]


def record(name: str = "latest") -> tuple[dict[str, TaskRun], list[LogEntry]]:
    """Return the task runs by name and the log lines of a run, whose invariants must hold."""
    with runs.opened(runs.find(name)) as reader:
        table = sound(reader)
        logs = list(reader.logs())
    return {run.name: run for run in table.task_runs.values()}, logs


def test_values_flow_along_the_graph(runner: TaskRunner) -> None:
    """Submits, maps, futures in containers and chains give the values of plain Python."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        mapped = add.map([1, 2, 3], unmapped(10))
        summed = total.submit(mapped)
        chain = summed
        for _ in range(10):
            chain = add.submit(chain)
        return [summed.result(), chain.result(), *mapped.result()]

    assert main() == [36, 46, 11, 12, 13]
    task_runs, _ = record()
    assert {run.stage for run in task_runs.values()} == {Stage.COMPLETED}
    assert len(task_runs) == 14


def test_futures_are_found_inside_containers(runner: TaskRunner) -> None:
    """Futures in dataclasses and nested dicts and lists are replaced by their values."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        a, b, c = add.map([1, 2, 3])
        joined: list[Any] = join.submit(Pair(a, [b]), {"deep": [{"x": c}]}).result()
        return joined

    assert main() == [2, [3], 4]


def test_returned_futures_decide_the_state_and_give_their_values(runner: TaskRunner) -> None:
    """A flow that returns futures returns their values; a failure among them is its own."""

    @flow(task_runner=runner)
    def good() -> Any:
        return {"a": add.submit(1), "b": [add.submit(2)]}

    @flow(task_runner=runner)
    def bad() -> Any:
        return [add.submit(1), fail.submit("x"), add.submit(2)]

    assert good() == {"a": 2, "b": [3]}
    with pytest.raises(KeyError, match="x"):
        bad()
    state: Any = bad(return_state=True)
    assert (state.name, state.message) == ("Failed", "1/3 task runs failed.")


def test_a_retry_and_its_downstream_come_out_right(runner: TaskRunner, tmp_path: Path) -> None:
    """A task that raises once shows two attempts, the first with its traceback; what hangs on it too."""

    @flow(task_runner=runner)
    def main() -> int:
        first = fails_once.submit(str(tmp_path), 5)
        return total.submit([add.submit(first), add.submit(first, 2)]).result()

    assert main() == 13
    task_runs, _ = record()
    attempts = task_runs["fails_once-0"].attempts
    assert [a.ending for a in attempts] == [Ending.RAISED, Ending.SUCCEEDED]
    assert attempts[0].error is not None
    assert "ValueError: not at once: 5" in attempts[0].error.traceback
    assert "in fails_once" in attempts[0].error.traceback
    assert [len(task_runs[name].attempts) for name in ("add-0", "add-1", "total-0")] == [1, 1, 1]


def test_a_retry_waits_its_delay_and_holds_no_worker(runner: TaskRunner, tmp_path: Path) -> None:
    """While a retry waits, other task runs use the only slots there are."""
    delayed = fails_once.with_options(retry_delay_seconds=1.0)

    @flow(task_runner=runner)
    def main() -> list[int]:
        waiting = [delayed.submit(str(tmp_path), n) for n in range(4)]
        return [*add.map(range(8)).result(), *[w.result() for w in waiting]]

    assert main() == [1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3]
    task_runs, _ = record()
    for n in range(4):
        first, second = task_runs[f"fails_once-{n}"].attempts
        assert first.ended_at is not None
        assert second.started_at - first.ended_at > 0.9


def test_a_chain_of_upstream_failures_names_its_root(runner: TaskRunner) -> None:
    """What never ran says "c ← b ← a"; the exception of the root is what is caught."""

    @flow(task_runner=runner)
    def main() -> tuple[str, list[str], str]:
        a = fail.submit("root")
        b = add.submit(a)
        c = add.submit(1, b)
        c.wait()
        with pytest.raises(KeyError, match="root") as caught:
            c.result()
        return c.state.name, list(caught.value.__notes__), c.state.message

    name, notes, message = main()
    assert name == "UpstreamFailed"
    assert "add-1 ← add-0 ← fail-0" in message
    assert "add-1 ← add-0 ← fail-0" in notes[0]
    task_runs, _ = record()
    assert task_runs["add-1"].attempts == ()


def test_wait_for_orders_without_passing_a_value(runner: TaskRunner, tmp_path: Path) -> None:
    """A task run goes after those in wait_for, and not at all if one of them failed."""

    @flow(task_runner=runner)
    def main() -> tuple[int, str]:
        late = add.submit(1, wait_for=[fails_once.submit(str(tmp_path), 1)])
        never = add.submit(2, wait_for=[fail.submit("x")])
        never.wait()
        return late.result(), never.state.name

    assert main() == (2, "UpstreamFailed")


def test_prints_and_logs_reach_the_journal(runner: TaskRunner) -> None:
    """Prints and log lines of a task are recorded with their task run, attempt and worker."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        return speak.map(["a", "b"]).result()

    main()
    task_runs, logs = record()
    said = {(line.task_run_id, line.message, line.level, line.attempt) for line in logs}
    for name, word in (("speak-0", "a"), ("speak-1", "b")):
        run_id = task_runs[name].id
        assert {(run_id, f"printed {word}", 20, 1), (run_id, f"logged {word}", 30, 1)} <= said


def test_nested_work_is_recorded_and_does_not_deadlock(runner: TaskRunner) -> None:
    """Tasks that submit and wait, deeper than there are slots, complete; each level is recorded."""

    @flow(task_runner=runner)
    def main() -> int:
        return nested.submit(12).result()

    assert main() == 12
    record()
    with runs.opened(runs.find("latest")) as reader:
        everything = list(reader.task_runs())
    assert len(everything) == 13
    parents = {run.id: run.parent_id for run in everything}
    assert sum(parent in parents for parent in parents.values()) == 12


def test_tasks_may_call_map_and_rescue_others(runner: TaskRunner) -> None:
    """In a task, direct calls, maps and caught failures of other tasks work and are recorded."""

    @flow(task_runner=runner)
    def main() -> list[Any]:
        return [
            calls_directly.submit(1).result(),
            mapped_inside.submit(4).result(),
            rescue.submit(7).result(),
        ]

    assert main() == [32, 6, "rescued inner 7"]
    with runs.opened(runs.find("latest")) as reader:
        assert len(list(reader.task_runs())) == 3 + 2 + 4 + 1


def test_large_values_go_from_task_to_task(runner: TaskRunner) -> None:
    """A value that is too large for the journal is an argument like any other, and can be fetched."""

    @flow(task_runner=runner)
    def main() -> tuple[int, int]:
        data = big.submit(1_000_000)
        return size_of.submit(data).result(), len(data.result())

    assert main() == (1_000_000, 1_000_000)


def test_wait_and_as_completed(runner: TaskRunner) -> None:
    """Futures can be waited for together and taken as they end, with submits in between."""

    @flow(task_runner=runner)
    def main() -> tuple[int, int, list[int]]:
        futures = add.map(range(5))
        done, not_done = wait(futures)
        second = [add.submit(future) for future in as_completed(futures)]
        return len(done), len(not_done), sorted(f.result() for f in second)

    assert main() == (5, 0, [2, 3, 4, 5, 6])


def test_work_outside_of_a_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks called and submitted outside of a flow belong to one session run, which shutdown ends."""
    monkeypatch.setenv("DFLOW_TASK_RUNNER", "inline")
    assert add(1) == 2
    assert add.submit(add.submit(1)).result() == 3
    dflow.shutdown()
    task_runs, _ = record()
    assert len(task_runs) == 3
    assert runs.find("latest").state_name == "Completed"


def test_a_failing_flow_cancels_what_has_not_started(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the body raises, nothing new starts, and every task run ends."""
    monkeypatch.setenv("DFLOW_STOP_GRACE", "5")

    @flow(task_runner=runner)
    def main() -> None:
        add.map(range(300))
        raise RuntimeError("the body")

    with pytest.raises(RuntimeError, match="the body"):
        main()
    task_runs, _ = record()
    assert {run.stage for run in task_runs.values()} <= {Stage.COMPLETED, Stage.CANCELLED}
    assert runs.find("latest").state_name == "Failed"


def test_subflows_share_the_journal_and_the_runner(runner: TaskRunner) -> None:
    """A flow called in a flow is a child run; its failure can be caught."""

    @flow
    def child(x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return add.submit(x).result()

    @flow(task_runner=runner)
    def main() -> list[int]:
        with pytest.raises(ValueError, match="negative"):
            child(-1)
        return [child(1), child(2)]

    assert main() == [2, 3]
    with runs.opened(runs.find("latest")) as reader:
        flow_runs = list(reader.flow_runs())
    assert [run.state_name for run in flow_runs] == [
        "Completed",
        "Failed",
        "Completed",
        "Completed",
    ]
    assert {run.parent_id for run in flow_runs[1:]} == {flow_runs[0].id}


def test_two_tasks_of_one_module_share_its_globals() -> None:
    """On a worker, the functions of a module see what others have set in it."""

    @flow(task_runner=ONE_WORKER)
    def main() -> list[Any]:
        return [
            shared_globals.remember.submit("x").result(),
            shared_globals.recall.submit().result(),
        ]

    assert main() == [None, "x"]


def test_an_argument_that_cannot_travel_is_named(processes: TaskRunner) -> None:
    """The error comes from submit, and names the parameter, the path inside it and the type."""

    @flow(task_runner=processes)
    def main() -> None:
        join.submit(1, more={"deep": [1, threading.Lock()]})

    with pytest.raises(SerializationError, match=r"'more'\['deep'\]\[1\].*lock"):
        main()
    assert runs.find("latest").state_name == "Failed"


def test_a_result_that_cannot_travel_fails_once(processes: TaskRunner) -> None:
    """A task whose result cannot be pickled has one attempt, and its error names the type."""

    @flow(task_runner=processes)
    def main() -> Any:
        return returns_lock.submit().result()

    with pytest.raises(SerializationError, match="lock"):
        main()
    task_runs, _ = record()
    assert len(task_runs["returns_lock-0"].attempts) == 1


@task
def returns_lock() -> Any:
    """Return what cannot be pickled."""
    return threading.Lock()


def test_bodies_run_in_worker_processes(processes: TaskRunner) -> None:
    """The pid of a body is not ours, and the attempt names its worker."""

    @flow(task_runner=processes)
    def main() -> list[int]:
        return speak.map(["a", "b", "c"]).result()

    assert os.getpid() not in main()
    task_runs, logs = record()
    assert all(run.attempts[0].worker for run in task_runs.values())
    assert all(line.worker for line in logs)


@task
def exits() -> None:
    """Leave the process."""
    sys.exit(2)


def test_sys_exit_in_a_body_is_a_failure_and_the_worker_lives(runner: TaskRunner) -> None:
    """A body that calls sys.exit fails; those after it complete."""

    @flow(task_runner=runner)
    def main() -> tuple[str, int]:
        gone = exits.submit()
        gone.wait()
        return gone.state.name, add.submit(1).result()

    assert main() == ("Failed", 2)
