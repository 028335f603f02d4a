"""Budgets and delays: whether a task run or a flow run may be tried again, and when."""

from __future__ import annotations

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import Policy

MAX_DELAY = 365 * 86_400.0
"""The longest delay between two attempts, in seconds: a year. Backoff beyond it is clamped."""


def delay(policy: Policy, retry: int, luck: float) -> float:
    """Return the seconds to wait before retry number `retry` (from 1).

    The last of `policy.retry_delays` repeats. Jitter spreads the delay evenly over
    ``delay × (1 ± jitter)``; `luck` in [0, 1) chooses where, 0.5 is the middle.
    """
    base = policy.retry_delays[min(retry, len(policy.retry_delays)) - 1]
    spread = 1.0 + policy.jitter * (2.0 * luck - 1.0)
    return min(max(base * spread, 0.0), MAX_DELAY)


def retry_due(order: do.SetTimer) -> ev.RetryDue:
    """Return what is to be reported when the time of a retry has come."""
    return ev.RetryDue(
        at=order.due,
        task_run_id=order.run_id,
        generation=order.generation,
        attempt=order.attempt,
    )


def exponential_delays(factor: float, retries: int) -> tuple[float, ...]:
    """Return ``factor × 2^r`` seconds for r = 0 … retries - 1, clamped to `MAX_DELAY`."""
    return tuple(min(factor * 2.0 ** min(r, 64), MAX_DELAY) for r in range(max(retries, 1)))


def retries_left(policy: Policy, raised: int) -> bool:
    """Tell whether one more attempt is allowed after `raised` attempts have failed before this one."""
    return raised < policy.retries


def losses_left(policy: Policy, losses: int) -> bool:
    """Tell whether one more attempt is allowed after `losses` workers were lost before this one."""
    return losses < policy.max_worker_losses
