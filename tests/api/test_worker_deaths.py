"""Workers that die under a task: what is charged, what runs again, and how much is written about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from dflow import flow, runs, task, unmapped
from dflow.core.events import Event, UpstreamsMet
from dflow.core.records import Cause, Ending, Stage
from dflow.ports import TaskRunner
from tests.api.test_flows_and_tasks import add, record
from tests.pythons import threads_at_exit


@task(max_worker_losses=1)
def kills_its_worker(folder: str) -> int:
    """Note the execution in a file, and kill the process."""
    with (Path(folder) / "executions").open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def events() -> list[Event]:
    """Return the events of the latest run."""
    with runs.opened(runs.find("latest")) as reader:
        return [event for _, event in reader.events() if event is not None]


def test_a_poison_task_ends_and_others_complete(processes: TaskRunner, tmp_path: Path) -> None:
    """It ends CRASHED after its budget, named with the signal; the good ones all complete."""

    @flow(task_runner=processes)
    def main() -> tuple[str, str, list[int]]:
        poison = kills_its_worker.submit(str(tmp_path))
        good = add.map(range(30))
        poison.wait()
        return poison.state.name, poison.state.message, good.result()

    name, message, good = main()
    assert name == "Crashed"
    assert "2 workers died" in message
    assert "SIGKILL" in message
    assert good == list(range(1, 31))
    task_runs, _ = record()
    attempts = task_runs["kills_its_worker-0"].attempts
    assert [a.ending for a in attempts] == [Ending.LOST, Ending.LOST]
    assert {a.cause for a in attempts} == {Cause.WORKER_DIED}
    executions = (tmp_path / "executions").read_text(encoding="utf-8").split()
    assert len(executions) in (2, 3)  # one more where the first was not heard of before it died


def test_what_waits_on_a_dead_worker_is_not_sent_out_in_a_loop(
    processes: TaskRunner, tmp_path: Path
) -> None:
    """Each loss sends a dependent out once more, and no more often."""

    @flow(task_runner=processes)
    def main() -> list[str]:
        poison = kills_its_worker.submit(str(tmp_path))
        waiting = add.map([1, 2, 3], unmapped(poison))
        waiting.wait()
        return [future.state.name for future in waiting]

    assert main() == ["UpstreamFailed"] * 3
    task_runs, _ = record()
    sent_out = Counter(e.task_run_id for e in events() if isinstance(e, UpstreamsMet))
    assert {run.stage for run in task_runs.values()} == {Stage.CRASHED, Stage.FAILED}
    assert max(sent_out.values()) <= 4


@threads_at_exit
def test_work_left_open_outside_of_a_flow_is_cancelled(tmp_path: Path) -> None:
    """A script that ends without waiting for what it submitted leaves it Cancelled, and says nothing odd."""
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from dflow import task\n"
        "@task\n"
        "def slow(x):\n"
        "    time.sleep(0.2)\n"
        "    return x\n"
        "slow.submit(0).result()\n"
        "slow.map(range(50))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""
    task_runs, _ = record()
    states = Counter(run.state_name for run in task_runs.values())
    assert states["Completed"] >= 1
    assert set(states) <= {"Completed", "Cancelled"}
    assert runs.find("latest").state_name == "Completed"
