"""Outcomes as rows: what goes in comes out."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from dflow.attempts.rows import outcome_in, row_of, weight_of
from dflow.core.events import AttemptRaised, AttemptSucceeded, Outcome
from dflow.core.records import ErrorInfo, Held

told = st.fixed_dictionaries(
    {
        "at": st.just(3.0),
        "task_run_id": st.just("a"),
        "dispatch": st.just(2),
        "started_at": st.just(1.0),
        "seconds": st.just(2.0),
        "worker": st.sampled_from(["here", "elsewhere"]),
        "cpu": st.none() | st.floats(0, 1),
        "memory": st.none() | st.integers(0, 2),
    }
)
"""What every outcome says."""

returned = st.fixed_dictionaries(
    {
        "held": st.sampled_from([Held.RUNNER, Held.JOURNAL, Held.STORED]),
        "value": st.none() | st.binary(),
        "message": st.text(),
        "size": st.none() | st.integers(0),
    }
)
errors = st.builds(ErrorInfo, st.text(), st.text(), st.text(), st.none() | st.binary(max_size=2000))
raised = st.fixed_dictionaries(
    {"error": errors, "retriable": st.booleans(), "luck": st.floats(0, 1)}
)
outcomes = st.builds(
    lambda common, more: AttemptSucceeded(**common, **more), told, returned
) | st.builds(lambda common, more: AttemptRaised(**common, **more), told, raised)


@given(outcomes, st.integers(0, 1000))
def test_outcomes_travel_as_rows(outcome: Outcome, place: int) -> None:
    """What comes out of a row is what went in, and what is long in it counts."""
    row = pickle.loads(pickle.dumps(row_of(place, outcome, "here")))
    assert row[0] == place
    assert outcome_in(row, ("a", 2), "here") == outcome
    if isinstance(outcome, AttemptRaised):
        assert weight_of(row) >= len(outcome.error.traceback) + len(outcome.error.blob or b"")
    elif isinstance(outcome, AttemptSucceeded) and outcome.worker == "here":
        assert weight_of(row) >= len(outcome.value or b"")
