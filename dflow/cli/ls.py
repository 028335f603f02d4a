"""``dflow ls``: lists the runs that are recorded."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from dflow import runs
from dflow.cli import facts, streams, text
from dflow.cli.options import AsJson, Flag
from dflow.engine import process

LIMIT = 20
SHORT_ID = 12


def ls(
    *,
    limit: Annotated[int, Parameter(("--limit", "-n"), validator=Number(gte=0))] = LIMIT,
    sizes: Flag = False,
    as_json: AsJson = False,
) -> int:
    """List runs, the newest first.

    Args:
        limit: how many are listed; 0 lists all of them
        sizes: tell how much each run takes on the disk
        as_json: print JSON: a list of runs
    """
    now = process.process().clock.now()
    listed = runs.list_runs(limit + 1 if limit > 0 else None)
    more = limit > 0 and len(listed) > limit
    listed = listed[:limit] if more else listed
    found = [facts.of_listed(run, now, runs.sizes(run) if sizes else None) for run in listed]
    if as_json:
        streams.print_json(found)
        return 0
    if not found:
        streams.say("No runs are recorded yet. Run a flow with: dflow run FILE.py:FLOW")
        return 0
    size = [">size"] if sizes else []
    table = streams.table("run", "flow", "state", "started", ">took", *size, "id")
    for run, fact in zip(listed, found, strict=True):
        table.add_row(
            Text(text.name(fact["name"]), "bold"),
            Text(text.name(fact["flow"])),
            streams.state(fact["state"]),
            Text(text.when(run.entry.created_at)),
            Text(text.took(fact["seconds"])),
            *([Text(text.size(sum(fact["sizes"].values())))] if fact["sizes"] is not None else []),
            Text(fact["id"][:SHORT_ID], "dim"),
        )
    streams.out().print(table)
    if more:
        streams.say("There are more. List all of them with: dflow ls --limit 0", "dim")
    return 0
