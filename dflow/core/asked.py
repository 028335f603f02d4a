"""What the last pass of a flow has made of recorded work: what it was given again, what it has left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dflow.core.records import FlowRun, Need, Stage, TaskRun


def given_again(run: TaskRun, flow_run: FlowRun) -> bool:
    """Tell whether the value of a task run was given, not made, in the last pass of its flow run."""
    return 0 < run.reused == flow_run.generation


def left_behind(
    task_runs: Mapping[str, TaskRun], flow_runs: Mapping[str, FlowRun]
) -> Iterator[TaskRun]:
    """Yield the finished task runs that nobody asked for in the last pass of their flow run.

    What a task called whose own value was given again was not left: nobody could ask for it.
    """
    for run in task_runs.values():
        flow_run = flow_runs.get(run.flow_run_id)
        if flow_run is None or not _finished(run) or not 0 < run.asked < flow_run.generation:
            continue
        caller = task_runs.get(run.parent_id)
        if caller is None or _ran(caller, flow_run):
            yield run


def made_from_lost(
    task_runs: Mapping[str, TaskRun], flow_runs: Mapping[str, FlowRun]
) -> Iterator[tuple[TaskRun, TaskRun]]:
    """Yield what was given again in the last pass, and what it was made from, if that was lost and ran again.

    Whether it has given the same value as before, nobody knows.
    """
    for run in task_runs.values():
        flow_run = flow_runs.get(run.flow_run_id)
        if flow_run is None or not given_again(run, flow_run):
            continue
        for upstream in run.upstreams:
            source = task_runs.get(upstream.task_run_id)
            around = None if source is None else flow_runs.get(source.flow_run_id)
            if source is None or around is None or upstream.need is Need.WAIT:
                continue
            if _ran(source, around):
                yield run, source
                break


def _finished(run: TaskRun) -> bool:
    """Tell whether a body has come to its end, well or not, and nobody cancelled it."""
    ended = run.stage in (Stage.COMPLETED, Stage.FAILED, Stage.CRASHED)
    return ended and (bool(run.attempts) or run.stage is Stage.COMPLETED)


def _ran(run: TaskRun, flow_run: FlowRun) -> bool:
    return run.asked == flow_run.generation and not given_again(run, flow_run)
