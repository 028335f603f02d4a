"""What must hold of records by themselves, whatever their history. ``invariants.py`` says how it is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dflow.core.records import Ending, FlowRun, Stage, TaskRun
from dflow.core.replay import Table
from dflow.states import TYPE_OF_NAME, StateType

Run = TaskRun | FlowRun


def replay_agrees(replayed: Table, kept: Table) -> list[str]:
    """Return where the records that were kept differ from those that the history leaves."""
    before: dict[str, Run] = {**kept.flow_runs, **kept.task_runs}
    after: dict[str, Run] = {**replayed.flow_runs, **replayed.task_runs}
    broken = []
    for run_id in dict.fromkeys([*before, *after]):
        is_kept, is_replayed = before.get(run_id), after.get(run_id)
        if is_kept is None or is_replayed is None:
            where = "only in the replay" if is_kept is None else "only in the records"
            broken.append(f"Run '{run_id}' is {where}.")
        elif is_kept != is_replayed:
            names = [n for n in is_kept.__struct_fields__ if _differ(is_kept, is_replayed, n)]
            broken.append(
                f"Run '{run_id}' is not what its replay gives: {', '.join(names)} differ."
            )
    return broken


def _differ(one: Run, other: Run, name: str) -> bool:
    return bool(getattr(one, name, None) != getattr(other, name, None))


_TYPES_OF_STAGE = {
    "waiting": {StateType.SCHEDULED, StateType.PENDING},
    "pending": {StateType.SCHEDULED, StateType.PENDING},
    "dispatched": {StateType.PENDING},
    "awaiting_retry": {StateType.SCHEDULED},
    "interrupted": {StateType.PAUSED},
}


def states_fit_stages(runs: Iterable[Run]) -> list[str]:
    """Return the runs whose state is not one of their stage, or whose error or time does not fit it."""
    broken = []
    for run in runs:
        types = _TYPES_OF_STAGE.get(run.stage) or {StateType(run.stage.upper())}
        if TYPE_OF_NAME.get(run.state_name) not in types:
            broken.append(f"Run '{run.id}' is {run.stage} and shows the state '{run.state_name}'.")
        if isinstance(run, TaskRun) and run.stage is Stage.COMPLETED and run.error is not None:
            broken.append(f"Task run '{run.id}' completed, and has an error.")
        if (run.due is not None) != (run.stage == "awaiting_retry") and run.stage != "interrupted":
            broken.append(f"Run '{run.id}' is {run.stage}, with the next attempt due at {run.due}.")
    return broken


def attempts_in_order(task_runs: Iterable[TaskRun]) -> list[str]:
    """Return the task runs whose attempts are not 1..n in each generation, or not one after the other."""
    return [f"Task run '{run.id}': {fault}." for run in task_runs for fault in _attempt_faults(run)]


def _attempt_faults(run: TaskRun) -> Iterator[str]:
    generation, number, dispatch = 0, 0, 0
    for attempt in run.attempts:
        if attempt.generation < generation:
            yield f"generation {attempt.generation} comes after {generation}"
        due = 1 if attempt.generation != generation else number + 1
        generation, number = attempt.generation, attempt.number
        if number != due:
            yield f"attempt {number} of generation {generation} stands where {due} is due"
        if not dispatch < attempt.dispatch <= run.dispatch:
            yield f"attempt {number} of generation {generation} has dispatch {attempt.dispatch}"
        dispatch = attempt.dispatch
    if generation > run.generation:
        yield f"an attempt of generation {generation} in generation {run.generation}"
    if any(attempt.ending is Ending.OPEN for attempt in run.attempts[:-1]):
        yield "an attempt is open, and another came after it"
    if run.stage is Stage.RUNNING and run.open_attempt is None:
        yield "it is running without an open attempt"
    if run.stage not in (Stage.RUNNING, Stage.CANCELLING) and run.open_attempt is not None:
        yield f"it is {run.stage} with an open attempt"


def completed_once(task_runs: Iterable[TaskRun]) -> list[str]:
    """Return the task runs for which COMPLETED ⇔ one succeeded attempt, or a cache hit, is untrue."""
    broken = []
    for run in task_runs:
        wins = Counter(a.generation for a in run.attempts if a.ending is Ending.SUCCEEDED)
        if any(count > 1 for count in wins.values()):
            broken.append(f"Task run '{run.id}' succeeded more than once in a generation.")
        cached = run.state_name == "Cached"
        if cached and run.attempts_now:
            broken.append(f"Task run '{run.id}' has an attempt and was taken from the cache.")
        completed = run.stage is Stage.COMPLETED and not cached
        if completed != bool(wins[run.generation]):
            count = wins[run.generation]
            broken.append(f"Task run '{run.id}' is {run.stage} with {count} succeeded attempts.")
    return broken


_ENDS_OF_A_STATE = (Stage.FAILED, Stage.CRASHED, Stage.CANCELLED)


def returned_ends_it(task_runs: Iterable[TaskRun]) -> list[str]:
    """Return the task runs that went on, or completed, after their body had returned another state.

    And those that crashed, though their last attempt was neither lost nor returned such a state.
    """
    return [f"Task run '{run.id}' {fault}." for run in task_runs for fault in _end_faults(run)]


def _end_faults(run: TaskRun) -> Iterator[str]:
    by_hand = [a for a in run.attempts if a.ending is Ending.RETURNED]
    generations = Counter(a.generation for a in run.attempts)
    if any(a.number != generations[a.generation] for a in by_hand):
        yield "was tried again after it had returned its state"
    if any(a.generation == run.generation for a in by_hand) and run.stage not in _ENDS_OF_A_STATE:
        yield f"is {run.stage} after it had returned its state"
    endings = [a.ending for a in run.attempts_now[-1:]]
    if run.stage is Stage.CRASHED and endings not in ([Ending.LOST], [Ending.RETURNED]):
        yield "crashed, and its last attempt does not say why"


def no_negative_durations(task_runs: Iterable[TaskRun]) -> list[str]:
    """Return the task runs and attempts that ended before they began."""
    broken = []
    for run in task_runs:
        if run.changed_at < run.created_at:
            broken.append(f"Task run '{run.id}' changed before it was created.")
        for attempt in run.attempts:
            ended_at = attempt.started_at if attempt.ended_at is None else attempt.ended_at
            if ended_at < attempt.started_at or (attempt.seconds or 0.0) < 0.0:
                name = f"{attempt.number} of generation {attempt.generation}"
                broken.append(f"Task run '{run.id}': attempt {name} took less than no time.")
    return broken
