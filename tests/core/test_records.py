"""What records say of themselves to users."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dflow.core.records import Attempt, FlowRun, TaskRun
from dflow.errors import MissingResult
from dflow.states import State, StateType

TASK_RUN = TaskRun("t", "f", "f", "work", "work-0", 0.0, state_name="Cached", message="m")
FLOW_RUN = FlowRun("f", "f", None, "main", "name", 0.0, state_name="TimedOut", message="m")


@pytest.mark.parametrize(
    ("run", "kind"), [(TASK_RUN, StateType.COMPLETED), (FLOW_RUN, StateType.FAILED)]
)
def test_a_record_gives_its_state(run: TaskRun | FlowRun, kind: StateType) -> None:
    """Type, name, message and time, but not the result, which is elsewhere."""
    state: State = run.state
    assert (state.type, state.name, state.message) == (kind, run.state_name, "m")
    assert state.timestamp == datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(MissingResult):
        state.result()


def test_a_record_counts_how_often_its_body_has_begun() -> None:
    """A task run by its attempts, in all generations; a flow run by its generations."""
    attempts = (Attempt(1, 1, 1, 0.0), Attempt(1, 2, 2, 0.0), Attempt(2, 1, 3, 0.0))
    run = TaskRun("t", "f", "f", "work", "work-0", 0.0, generation=2, attempts=attempts)
    assert (run.run_count, len(run.attempts_now)) == (3, 1)
    assert FlowRun("f", "f", None, "main", "name", 0.0, generation=2).run_count == 2
