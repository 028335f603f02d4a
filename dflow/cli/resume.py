"""``dflow resume``: goes on with a run that was interrupted, or that failed."""

from __future__ import annotations

from dflow import runs
from dflow.cli import exits, streams, text
from dflow.cli.options import Flag
from dflow.engine import process, taking_up


def resume(run: str, /, *, rerun_changed: Flag = False) -> int:
    """Resume a run: what has completed is kept, the rest is done.

    A run that has completed stays as it is: see dflow rerun. One whose driver lives is refused.

    Args:
        run: an id, the start of one, a name, or latest
        rerun_changed: run again what has completed with code that has changed since, and what follows from it
    """
    listed = runs.find(run)
    if listed.state_name == "Completed" and not listed.alive:
        entry = listed.entry
        name = taking_up.handle(process.process().journal.catalog, entry.id, entry.name)
        streams.say(
            f"{text.name(entry.name)} has completed: there is nothing to resume.\n"
            f"To run it again: dflow rerun {name} [--from TASK | --failed]"
        )
        return exits.COMPLETED
    from dflow.cli import driving  # lazy: commands that only look need no progress

    return driving.drive(lambda: runs.resume(listed.entry.id, rerun_changed=rerun_changed))
