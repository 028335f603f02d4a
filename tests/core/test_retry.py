"""Budgets and delays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.core.records import Policy
from dflow.core.retry import (
    MAX_DELAY,
    delay,
    exponential_delays,
    losses_left,
    retries_left,
)

luck = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0, 1e12)


def test_the_last_delay_repeats() -> None:
    """Each retry has its delay, and those beyond the list have the last one."""
    policy = Policy(retries=5, retry_delays=(1.0, 10.0))
    assert [delay(policy, retry, 0.5) for retry in (1, 2, 3, 5)] == [1.0, 10.0, 10.0, 10.0]


@pytest.mark.parametrize(("luck", "expected"), [(0.0, 5.0), (0.5, 10.0), (0.75, 12.5)])
def test_jitter_spreads_evenly(luck: float, expected: float) -> None:
    """Luck chooses between the delay less its share and the delay plus its share."""
    assert delay(Policy(retry_delays=(10.0,), jitter=0.5), 1, luck) == expected


@given(st.lists(seconds, min_size=1, max_size=5), st.floats(0, 10), st.integers(1, 1000), luck)
def test_a_delay_has_bounds(delays: list[float], jitter: float, retry: int, luck: float) -> None:
    """No delay is negative or longer than a year, whatever the policy and the luck."""
    policy = Policy(retry_delays=tuple(delays), jitter=jitter)
    assert 0.0 <= delay(policy, retry, luck) <= MAX_DELAY


def test_exponential_delays_double() -> None:
    """Delays double from the factor, up to a year, for as many retries as there are, and at least one."""
    assert exponential_delays(2.0, 4) == (2.0, 4.0, 8.0, 16.0)
    assert exponential_delays(2.0, 0) == (2.0,)
    assert exponential_delays(1.0, 2000)[-1] == MAX_DELAY


@pytest.mark.parametrize("budget", range(4))
def test_budgets_are_spent_one_by_one(budget: int) -> None:
    """A budget of n allows n more attempts, of either kind."""
    policy = Policy(retries=budget, max_worker_losses=budget)
    spent = range(6)
    assert sum(retries_left(policy, raised) for raised in spent) == budget
    assert sum(losses_left(policy, losses) for losses in spent) == budget
