"""Who may drive a run, and who holds a share: the one rule by which a process counts as alive or dead.

Also what those are told who are refused, or who find less than was written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dflow.errors import RunHeld, RunNotFound, RunTakenOver
from dflow.ports import Holder, Missing, RunEntry

HEARTBEAT_GRACE = 60.0
"""Seconds without a heartbeat after which a driver that cannot be seen from here counts as dead."""

Probe = Callable[[Holder], bool | None]
"""Tells whether a process lives; None where that cannot be seen from here, as on another host."""


def lives(entry: RunEntry, probe: Probe, at: float) -> bool:
    """Tell whether a run has a driver that lives.

    The probe is believed; only where it cannot tell does the heartbeat count.
    """
    if entry.holder is None:
        return False
    verdict = probe(entry.holder)
    if verdict is None:
        return at - entry.heartbeat <= HEARTBEAT_GRACE
    return verdict


def known_dead(holder: Holder | None, probe: Probe) -> bool:
    """Tell whether what this process holds can be had by others at once."""
    return holder is not None and probe(holder) is False


def held(entry: RunEntry) -> RunHeld:
    """Return the error for somebody who wants a run that a live driver has."""
    assert entry.holder is not None
    pid, host = entry.holder.pid, entry.holder.host
    return RunHeld(
        f"The run '{entry.name}' ({entry.id}) is driven by process {pid} on '{host}', which lives. "
        "Wait until it ends, or stop that process.",
        pid=pid,
        host=host,
    )


def taken_over(run_id: str, epoch: int) -> RunTakenOver:
    """Return the error for a driver whose epoch is over."""
    return RunTakenOver(
        f"The run '{run_id}' has been taken over by another driver, or deleted, since this one claimed "
        f"it (epoch {epoch}). Nothing was written. End this driver."
    )


def not_found(text: str) -> RunNotFound:
    """Return the error for a text that no run answers to."""
    return RunNotFound(f"No run has the id or name '{text}'. See the runs with `dflow ls`.")


def no_record(run_id: str) -> RunNotFound:
    """Return the error for a run of which nothing was recorded."""
    return RunNotFound(
        f"Nothing has been recorded of the run '{run_id}'. See the runs with `dflow ls`."
    )


def ambiguous(text: str, ids: Sequence[str]) -> RunNotFound:
    """Return the error for a text that several runs answer to."""
    listed = ", ".join(f"'{run_id}'" for run_id in ids[:10]) + (", …" if len(ids) > 10 else "")
    return RunNotFound(f"'{text}' fits {len(ids)} runs: {listed}. Name one of them by its id.")


def in_words(missing: Missing) -> str:
    """Say what is missing, as in 'its last 12 events and its last log line'."""
    parts = [(missing.events, "event"), (missing.logs, "log line")]
    return " and ".join(
        f"its last {number} {what}s" if number > 1 else f"its last {what}"
        for number, what in parts
        if number
    )
