"""Random histories: mostly what could happen, with news that is late, doubled or refused in between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from hypothesis import strategies as st

from dflow.core import events as ev
from dflow.core.records import Cause, ErrorInfo, Held, Policy, TaskRun, Upstream
from dflow.core.replay import Table
from tests.journal.world import RUN, flow_created

TASK_RUNS = ("a", "b", "c", "d")
POLICY = Policy(retries=2, retry_delays=(0.0, 1.5), jitter=0.25, max_worker_losses=1)

texts = st.text(max_size=20) | st.just("a lone surrogate: \udce9") | st.just("nul: \0")
errors = st.builds(ErrorInfo, texts, texts, texts, st.none() | st.binary(max_size=20))
values = st.none() | st.binary(max_size=20)


def _event(draw: st.DrawFn, task_run_id: str, run: TaskRun | None, at: float) -> ev.Event:
    """Return something that may happen to a task run."""
    dispatch = draw(st.sampled_from([0, 0, 0, -1])) + (run.dispatch if run else 1)
    generation = run.generation if run else 1
    value = draw(values)
    held = Held.RUNNER if value is None else Held.JOURNAL
    error = draw(errors)
    upstreams = draw(st.sampled_from([(), (Upstream("a"),)]))
    makers: list[Callable[..., ev.Event]] = [
        lambda **k: ev.TaskCreated(
            flow_run_id=RUN,
            parent_id=RUN,
            task_name="odd\udce9",
            name="n",
            policy=POLICY,
            upstreams=upstreams,
            **k,
        ),
        ev.UpstreamsMet,
        ev.UpstreamsMet,
        lambda **k: ev.AttemptStarted(dispatch=dispatch, worker="w", **k),
        lambda **k: ev.AttemptSucceeded(
            dispatch=dispatch, started_at=at, seconds=0.5, held=held, value=value, **k
        ),
        lambda **k: ev.AttemptRaised(
            dispatch=dispatch, started_at=at, seconds=0.5, error=error, luck=0.25, **k
        ),
        lambda **k: ev.AttemptTimedOut(
            dispatch=dispatch, started_at=at, seconds=0.5, error=error, retriable=False, **k
        ),
        lambda **k: ev.WorkerLost(dispatch=dispatch, cause=Cause.WORKER_DIED, **k),
        lambda **k: ev.RetryDue(generation=generation, attempt=1, **k),
        lambda **k: ev.CacheHit(held=held, value=value, **k),
        lambda **k: ev.UpstreamFailed(cause_id="a", chain="b ← a", **k),
        ev.CancelRequested,
        lambda **k: ev.Reopened(generation=generation + 1, policy=POLICY, **k),
    ]
    make = makers[0] if run is None else draw(st.sampled_from(makers))
    return make(at=at, task_run_id=task_run_id)


@st.composite
def histories(draw: st.DrawFn) -> list[list[ev.Event]]:
    """Return a history, cut into what is written together."""
    table = Table()
    history: list[ev.Event] = [flow_created()]
    items = tuple(
        ev.MapItem(task_run_id=f"m{n}", name=f"m{n}") for n in range(draw(st.integers(0, 3)))
    )
    history.append(
        ev.MapCreated(at=1.5, flow_run_id=RUN, parent_id=RUN, task_name="score", items=items)
    )
    for event in history:
        table.apply(event)
    for number in range(draw(st.integers(0, 25))):
        task_run_id = draw(st.sampled_from([*TASK_RUNS, *(item.task_run_id for item in items)]))
        event = _event(draw, task_run_id, table.task_runs.get(task_run_id), 2.0 + number)
        table.apply(event)
        history.append(event)
    cuts = sorted(draw(st.sets(st.integers(1, len(history)), max_size=4)) | {0, len(history)})
    return [history[start:end] for start, end in pairwise(cuts)]
