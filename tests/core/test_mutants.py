"""A table that is wrong in one place is caught by the invariants, in histories played from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import pytest

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core import machine
from dflow.core.history import TaskChange, unroll
from dflow.core.machine import ROWS, Row, always, tabulate
from dflow.core.records import Cause, Stage
from dflow.core.retry import losses_left, retries_left
from tests.core.playing import play, play_a_partition, play_second_thoughts
from tests.core.simulation import Hangs, Simulation

SEEDS = range(150)


def histories(rules: machine.Table) -> Iterator[Simulation]:
    """Yield all histories, played with a table of rules."""
    yield play_second_thoughts(rules)
    yield play_a_partition(rules)
    for seed in SEEDS:
        yield play(seed, rules)


def catches(rules: machine.Table) -> str:
    """Return the first thing that is found to be broken with a table of rules, or nothing."""
    try:
        broken = (driver.broken() for driver in histories(rules))
        return next((sentences[0] for sentences in broken if sentences), "")
    except Hangs as hang:
        return str(hang)


# The mutants -----------------------------------------------------------------------------------------

Mutant = Callable[[Row], Row | None]


def reporting(*kinds: type[ev.Event], at: Stage, **changed: object) -> Mutant:
    """Return the mutant that changes the rows of these events at a stage."""
    return lambda row: (
        replace(row, **changed) if row.stage is at and row.event in kinds else row  # type: ignore[arg-type]  # of the row's own fields
    )


def without(event: type[ev.TaskEvent], at: Stage) -> Mutant:
    """Return the mutant that drops the rows of an event at a stage."""
    return lambda row: None if (row.stage, row.event) == (at, event) else row


def guarded(before: machine.Guard, after: machine.Guard) -> Mutant:
    """Return the mutant in which one guard stands for another, wherever it is."""
    return lambda row: replace(row, guard=after) if row.guard is before else row


def obeying(before: machine.Effect, after: machine.Effect) -> Mutant:
    """Return the mutant in which one effect stands for another, wherever it is."""
    return lambda row: replace(row, effect=after) if row.effect is before else row


def silent(effect: machine.Effect) -> Mutant:
    """Return the mutant in which an effect forgets what is to be done."""
    return obeying(effect, lambda run, event: (effect(run, event)[0], ()))


def same_number(run, event):
    """Dispatch without a new number."""
    changes, orders = machine.dispatch(run, event)
    return changes | {"dispatch": run.dispatch or 1}, orders


def one_retry_more(run, event):
    """Allow one retry too many."""
    return machine.current(run, event) and event.retriable and run.raised <= run.policy.retries


def one_retry_less(run, event):
    """Allow one retry too few."""
    return (
        machine.current(run, event) and event.retriable and retries_left(run.policy, run.raised + 1)
    )


def retry_anything(run, event):
    """Retry what the condition refused."""
    return machine.current(run, event) and retries_left(run.policy, run.raised)


def one_loss_more(run, event):
    """Allow one loss too many."""
    return machine.current(run, event) and losses_left(run.policy, run.losses - 1)


def one_loss_less(run, event):
    """Allow one loss too few."""
    return machine.current(run, event) and losses_left(run.policy, run.losses + 1)


def rename_and_more(run, event):
    """Rename, and forget what the run is doing."""
    return machine.rename(run, event)[0] | {"message": "?"}, ()


def no_name(*_):
    """Do not rename."""
    return {}, ()


def counted(run, event):
    """Count a state made by hand as a failure."""
    changes, orders = machine.end_as_returned(run, event)
    return changes | {"raised": run.raised + 1}, orders


def always_late(run, event):
    """Set a deadline for a dispatch that was."""
    changes, _ = machine.start(run, event)
    return changes, (do.SetDeadline(run.id, run.dispatch - 1, 5.0),)


def no_loss_is_free(*_):
    """Charge every loss."""
    return False


def death_is_free(run, event):
    """Charge only what is nobody's fault."""
    return machine.current(run, event) and event.cause is Cause.WORKER_DIED


waiting, dispatched, running, cancelling = (
    Stage.WAITING,
    Stage.DISPATCHED,
    Stage.RUNNING,
    Stage.CANCELLING,
)
MUTANTS: dict[str, Mutant] = {
    "a stale start counts": reporting(ev.AttemptStarted, at=dispatched, guard=always),
    "a stale success counts": reporting(ev.AttemptSucceeded, at=running, guard=always),
    "a stale failure counts": reporting(ev.AttemptRaised, at=dispatched, guard=always),
    "a stale void counts": reporting(ev.DispatchVoided, at=dispatched, guard=always),
    "a stale loss counts": reporting(ev.WorkerLost, at=dispatched, guard=always),
    "a stale end of a cancelled one counts": reporting(
        ev.AttemptSucceeded, at=cancelling, guard=always
    ),
    "one retry more": guarded(machine.may_retry, one_retry_more),
    "one retry less": guarded(machine.may_retry, one_retry_less),
    "the condition is not heeded": guarded(machine.may_retry, retry_anything),
    "one loss more": guarded(machine.may_lose, one_loss_more),
    "one loss less": guarded(machine.may_lose, one_loss_less),
    "every loss is charged": guarded(machine.free_loss, no_loss_is_free),
    "dying workers are free": guarded(machine.free_loss, death_is_free),
    "a loss before the start is charged": obeying(machine.void_lost, machine.lose_charged),
    "upstreams fail what was tried": reporting(
        ev.UpstreamFailed, at=waiting, guard=always, effect=machine.upstream_failed
    ),
    "what was tried hangs on its upstream": reporting(
        ev.UpstreamFailed, at=waiting, guard=machine.untried
    ),
    "the cache serves what was tried": reporting(ev.CacheHit, at=waiting, guard=always),
    "a lost attempt stays open": reporting(ev.DispatchVoided, at=running, effect=machine.void),
    "cancelling does not stick": reporting(ev.WorkerLost, at=cancelling, target=waiting),
    "what was cancelled goes on": reporting(ev.CancelRequested, at=dispatched, target=dispatched),
    "a late start runs on": obeying(machine.start_and_stop, machine.start),
    "a dispatch number comes twice": obeying(machine.dispatch, same_number),
    "no fresh budgets": obeying(machine.reopen, machine.take_up),
    "budgets are fresh too often": obeying(machine.take_up, machine.reopen),
    "cancelling hangs": without(ev.DispatchVoided, cancelling),
    "a lost worker hangs": without(ev.WorkerLost, running),
    "a retry hangs": without(ev.RetryDue, Stage.AWAITING_RETRY),
    "no timer is set": silent(machine.retry_later),
    "no timer is set again": silent(machine.keep_waiting),
    "a voided dispatch is forgotten": silent(machine.void),
    "a rename does more": obeying(machine.rename, rename_and_more),
    "a rename does nothing": obeying(machine.rename, no_name),
    "a state made by hand counts as a failure": obeying(machine.end_as_returned, counted),
    "a state made by hand is another one": guarded(
        machine.TABLE[running, ev.StateReturned][0].guard, machine.current
    ),
    "a state made by hand is taken for stopped": obeying(
        machine.end_as_returned, machine.TABLE[running, ev.AttemptStopped][0].effect
    ),
    "a stale state made by hand counts": reporting(ev.StateReturned, at=cancelling, guard=always),
    "a state made by hand may be tried again": reporting(
        ev.StateReturned, at=running, target=waiting
    ),
    "no deadline is set": silent(machine.start),
    "a deadline of another attempt": obeying(machine.start, always_late),
}

SECOND_OUTCOMES = {
    "an abandoned body completes": Row(
        Stage.CANCELLED, ev.AttemptSucceeded, machine.current, Stage.COMPLETED, machine.succeed
    ),
    "a second outcome counts": Row(
        Stage.COMPLETED, ev.AttemptSucceeded, machine.current, Stage.COMPLETED, machine.succeed
    ),
    "being asked to end counts twice": Row(
        Stage.CANCELLING, ev.CancelRequested, always, Stage.CANCELLING, machine.stop
    ),
    "what crashed completes": Row(
        Stage.CRASHED, ev.AttemptSucceeded, machine.current, Stage.COMPLETED, machine.succeed
    ),
}


def mutated(mutant: Mutant) -> Iterator[Row]:
    """Yield the rows of a mutant."""
    return (row for row in map(mutant, ROWS) if row is not None)


@cache
def fired() -> frozenset[Row]:
    """Return the rows that fire when the seeds are played by the right table."""
    found = set()
    for driver in histories(machine.TABLE):
        for change in unroll(driver.history)[0]:
            if isinstance(change, TaskChange) and change.before is not None:
                before, event = change.before, change.event
                rows = machine.TABLE[before.stage, type(event)]  # type: ignore[index]  # it is a TaskEvent
                found.add(next(row for row in rows if row.guard(before, event)))
    return frozenset(found)


def test_the_right_table_passes() -> None:
    """With the table as it is, the same histories break nothing."""
    assert catches(machine.TABLE) == ""


def test_the_histories_reach_everything() -> None:
    """Each row of the table fires somewhere in the histories, so that its mutants may be seen."""
    assert [(row.stage, row.event) for row in ROWS if row not in fired()] == []


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_row_is_caught(name: str) -> None:
    """A row with another guard, effect or target, or without it, breaks an invariant or hangs."""
    assert catches(tabulate(mutated(MUTANTS[name])))


@pytest.mark.parametrize("name", SECOND_OUTCOMES)
def test_a_row_too_many_is_caught(name: str) -> None:
    """A row that lets something count twice or too late breaks an invariant."""
    assert catches(tabulate((*ROWS, SECOND_OUTCOMES[name])))
