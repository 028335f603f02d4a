"""``dflow show``: what is recorded of one run."""

from __future__ import annotations

from dflow import runs
from dflow.cli import facts, streams, text
from dflow.cli.options import AsJson, Flag
from dflow.cli.page import Page
from dflow.core.records import FlowRun, TaskRun
from dflow.engine import process
from dflow.errors import RunNotFound
from dflow.journal.holding import in_words
from dflow.ports import Missing, RunReader
from dflow.runs import Listed


def show(
    run: str, /, *, all: Flag = False, tracebacks: Flag = False, as_json: AsJson = False
) -> int:
    """Show what became of a run: its task runs, and why those that failed did.

    Args:
        run: an id, the start of one, a name, or latest
        all: list all task runs, and not only the first and those that failed
        tracebacks: print the traceback of every failed attempt
        as_json: print JSON: the run with all that is recorded of it
    """
    recorded = read(run)
    if as_json:
        streams.print_json(recorded)
    else:
        Page(recorded, run, every=all, tracebacks=tracebacks).print()
    return 0


def read(run: str) -> facts.Recorded:
    """Return what is recorded of a run. Raises `RunNotFound` and errors of `JournalError`."""
    listed = runs.find(run)
    flow_runs: list[FlowRun] = []
    task_runs: list[TaskRun] = []
    try:
        with runs.opened(listed) as reader:
            warn_of_missing(reader, listed.entry.name)
            flow_runs, task_runs = list(reader.flow_runs()), list(reader.task_runs())
    except RunNotFound:
        pass  # it ended before anything but its entry in the catalog was written
    links, now = _linked(listed), process.process().clock.now()
    return facts.of_record(listed, flow_runs, task_runs, links, now, runs.sizes(listed))


def _linked(listed: Listed) -> tuple[facts.LinkFacts | None, list[facts.LinkFacts]]:
    """Return the run of which this one is a rerun, and the reruns of this one."""
    before: facts.LinkFacts | None = None
    old = listed.entry.details.get("rerun_of")
    if old is not None:
        try:
            before = facts.link(runs.find(old))
        except RunNotFound:  # it has been deleted
            before = facts.LinkFacts(id=old, name="", state="")
    return before, [facts.link(each) for each in runs.reruns_of(listed)]


def warn_of_missing(reader: RunReader, name: str) -> None:
    """Say so if the end of a record is known to be missing."""
    if missing := reader.missing():
        streams.warn(lacks(name, missing))


def lacks(name: str, missing: Missing) -> str:
    """Return what to say of a record whose end is missing."""
    return (
        f"The record of run '{text.name(name)}' lacks {in_words(missing)}: the machine lost power, or a "
        "file of the record was cut. When the run is resumed, what they told is done again."
    )
