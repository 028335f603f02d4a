"""``dflow clean``: deletes runs that ended long ago, with all that belongs to them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, TypedDict

from cyclopts import Parameter
from rich.text import Text

from dflow import runs
from dflow.cli import exits, facts, streams, text
from dflow.cli.durations import Duration
from dflow.cli.options import AsJson, Flag
from dflow.engine import process, retention
from dflow.errors import DflowError, RunNotFound
from dflow.runs import Listed


class Cleaned(TypedDict):
    """What ``dflow clean --json`` prints: the runs that are old enough, and how many bytes were deleted.

    `deleted` has the ids of those that were deleted, `cached` is how many cached values went, and `problems`
    says why others did not.
    """

    runs: list[facts.RunFacts]
    deleted: list[str]
    cached: int
    bytes: int
    problems: list[str]


def clean(
    *,
    older_than: Annotated[Duration, Parameter(("--older-than",))],
    dry_run: Flag = False,
    yes: Annotated[bool, Parameter(("--yes", "-y"), negative="")] = False,
    as_json: AsJson = False,
) -> int:
    """Delete runs whose end, or last sign of life, is long ago: records, results, checkpoints.

    Cached values that are as old go too, and those that have expired. Runs whose driver lives stay. It lists
    the runs that it will delete and asks first.

    Args:
        older_than: how long ago: a number with s, m, h, d or w, as in 30d
        dry_run: only list what would be deleted
        yes: do not ask
        as_json: print JSON: the runs, and what became of them
    """
    now = process.process().clock.now()
    old = [run for run in runs.list_runs() if not run.alive and now - run.last_seen > older_than]
    sizes = {run.entry.id: runs.sizes(run) for run in old}
    found = [facts.of_listed(run, now, sizes[run.entry.id]) for run in old]
    cleaned = Cleaned(runs=found, deleted=[], cached=0, bytes=0, problems=[])
    if not as_json:
        _print(old, cleaned)
    if old and not dry_run:
        if not (yes or _agreed(len(old))):
            return exits.WRONG_USAGE
        for run in old:
            _delete(run, sum(sizes[run.entry.id].values()), cleaned)
    if not dry_run:
        _clean_cache(older_than, cleaned)
    if as_json:
        streams.print_json(cleaned)
    else:
        _print_end(cleaned, dry_run=dry_run)
    return exits.FAILED if cleaned["problems"] else exits.COMPLETED


def _agreed(number: int) -> bool:
    """Ask whether the runs shall be deleted."""
    if not sys.stdin.isatty():
        streams.complain(
            "Nothing was deleted: there is nobody to ask.",
            "To delete without being asked, add: --yes",
        )
        return False
    streams.say(f"Delete {text.several(number, 'run')}? This cannot be undone. [y/N]")
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    streams.say("Nothing was deleted.")
    return False


def _delete(run: Listed, size: int, cleaned: Cleaned) -> None:
    try:
        runs.delete(run.entry.id)
    except RunNotFound:
        return  # somebody else has deleted it
    except DflowError as error:
        cleaned["problems"].append(str(error))
    else:
        cleaned["deleted"].append(run.entry.id)
        cleaned["bytes"] += size


def _clean_cache(older_than: float, cleaned: Cleaned) -> None:
    try:
        found = retention.clean_cache(process.process(), older_than)
    except DflowError as error:
        cleaned["problems"].append(str(error))
    else:
        cleaned["cached"] = found.keys
        cleaned["bytes"] += found.size


# On a page --------------------------------------------------------------------------------------------


def _print(old: list[Listed], cleaned: Cleaned) -> None:
    if not old:
        return
    kinds = list(cleaned["runs"][0]["sizes"] or {})
    table = streams.table("run", "flow", "state", "last seen", *(f">{kind}" for kind in kinds))
    for run, fact in zip(old, cleaned["runs"], strict=True):
        table.add_row(
            Text(text.name(fact["name"]), "bold"),
            Text(text.name(fact["flow"])),
            streams.state(fact["state"]),
            Text(text.when(run.last_seen)),
            *(Text(text.size(number)) for number in (fact["sizes"] or {}).values()),
        )
    streams.out().print(table)
    streams.out().print(Text(f"{text.several(len(old), 'run')}, {text.size(_total(cleaned))}"))


def _total(cleaned: Cleaned) -> int:
    sizes: list[Mapping[str, int]] = [fact["sizes"] or {} for fact in cleaned["runs"]]
    return sum(sum(size.values()) for size in sizes)


def _print_end(cleaned: Cleaned, *, dry_run: bool) -> None:
    for problem in cleaned["problems"]:
        streams.complain(problem)
    if not (cleaned["runs"] or cleaned["cached"]):
        streams.say("No run is as old as that.")
    elif dry_run:
        streams.say("Nothing was deleted.")
    else:
        number = text.several(len(cleaned["deleted"]), "run")
        if cleaned["cached"]:
            number += f" and {text.several(cleaned['cached'], 'cached value')}"
        streams.say(f"Deleted {number}: {text.size(cleaned['bytes'])} are free again.")
