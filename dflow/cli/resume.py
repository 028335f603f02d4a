"""``dflow resume``: goes on with a run that was interrupted, or that failed."""

from __future__ import annotations

from dflow import runs
from dflow.cli import exits, streams, text


def resume(run: str, /) -> int:
    """Resume a run: what has completed is kept, the rest is done.

    A run that has completed stays as it is. One whose driver lives is refused.

    Args:
        run: an id, the start of one, a name, or latest
    """
    listed = runs.find(run)
    if listed.state_name == "Completed":
        streams.say(f"{text.name(listed.entry.name)} has completed: there is nothing to resume.")
        return exits.COMPLETED
    from dflow.cli import driving  # lazy: commands that only look need no progress

    return driving.drive(lambda: runs.resume(listed.entry.id))
