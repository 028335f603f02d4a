"""Taking up a recorded run: which one is meant, with what it goes on, and what is said of it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from dflow.core.records import FlowStage, Stage, TaskRun
from dflow.engine import origins, process, recorded, run_logs
from dflow.engine.identity import RULE
from dflow.engine.recorded import AnyFlow, Arguments, ChosenRunner
from dflow.engine.renewal import Again, named
from dflow.engine.session import Session
from dflow.errors import DefinitionError, DflowError, NotResumable
from dflow.ports import Catalog, RunEntry
from dflow.settings import origins as origins_of_settings


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run as it was begun: its entry, its arguments, and its runner."""

    entry: RunEntry
    arguments: Arguments
    runner: ChosenRunner


def look_up(flow: AnyFlow, run: str) -> Recorded:
    """Return a run of this flow. Raises `RunNotFound` and `NotResumable`."""
    entry = process.process().journal.catalog.find(run)
    place = entry.details.get("entrypoint") or {}
    if entry.flow_name != flow.name and not origins.is_same(place, flow):
        raise NotResumable(
            f"Run '{entry.name}' is of flow '{entry.flow_name}', not of '{flow.name}'. "
            f'If that flow has another name now, give it the old one: @flow(name="{entry.flow_name}").'
        )
    if entry.details.get("identity", 0) != RULE:
        name = run_logs.one_line(entry.name, run_logs.NAME)
        run_logs.show(
            logging.WARNING,
            f"WARNING {name} | It was recorded by a dflow that named task runs by another rule: what has "
            "finished is not found, and is done again.",
        )
    set_now = origins_of_settings()["task_runner"] != "default"
    return Recorded(
        entry,
        recorded.arguments_of(entry.details, flow, entry.name),
        ChosenRunner(flow._options.task_runner, entry.details, set_now),
    )


def again_of(
    from_task: str | None, failed: bool, new: bool, parameters: Mapping[str, Any]
) -> Again:
    """Return how a run is to be run again. Raises `DefinitionError` for what contradicts itself."""
    if from_task is not None and failed:
        raise DefinitionError(
            "from_task= runs again what follows from a task, failed= only what has not completed. "
            "Give one of them."
        )
    if (from_task is not None or failed) and (new or parameters):
        what = "new=True" if new else f"Other parameters ('{next(iter(parameters))}')"
        raise DefinitionError(
            f"{what} make another run, in which everything is done; from_task= and failed= are for the same "
            "run. Give one or the other."
        )
    return Again(rerun=True, from_task=from_task, failed=failed)


def changed(arguments: Arguments, parameters: Mapping[str, Any]) -> Arguments:
    """Return recorded arguments with some changed by name. Raises `DefinitionError` if they have no names."""
    args, kwargs = arguments
    if args and parameters:
        raise DefinitionError(
            "The parameters of this flow were given by position, as it takes *args: call it with others."
        )
    return args, {**kwargs, **parameters}


def handle(catalog: Catalog, run_id: str, name: str) -> str:
    """Return what to call a run on the command line: its name if that is unique and plain, else its id."""
    plainly = name.replace("-", "").replace("_", "")
    if (plainly.isascii() and plainly.isalnum()) and not name.startswith("-"):
        with suppress(DflowError):
            if catalog.find(name).id == run_id:
                return name
    return run_id


def check(session: Session) -> None:
    """Raise `NotResumable` if there is nothing to resume, `RunNotFound` for a task that is not there.

    Nothing of the run has been touched yet.
    """
    table, again = session.ledger.table, session.again
    run = table.flow_runs.get(session.root.flow_run_id)
    if again is None:
        return
    if again.from_task is not None:
        named(table.task_runs.values(), again.from_task)
    elif not again.rerun and run is not None and run.stage is FlowStage.COMPLETED:
        raise NotResumable(
            f"Run '{run.name}' has completed: there is nothing to resume. "
            f"To run it again: dflow rerun {run.name}"
        )


_warned: WeakSet[Any] = WeakSet()
"""The functions of flows of which it was said, in this process, that their runs cannot be resumed."""


def say_at_start(session: Session, flow: AnyFlow, details: Mapping[str, Any]) -> None:
    """Show how far a run is that is taken up, or of a new one that nobody will be able to resume it."""
    if session.again is not None:
        _announce(session, session.again, details)
    warning = recorded.warning(flow, details, session.root.flow_run_name)
    if warning is not None and flow.function not in _warned:
        _warned.add(flow.function)
        name = run_logs.one_line(session.root.flow_run_name, run_logs.NAME)
        run_logs.show(logging.WARNING, f"WARNING {name} | {warning}")


@contextmanager
def saying_how_to_resume(
    session: Session, flow: AnyFlow, details: Mapping[str, Any]
) -> Iterator[None]:
    """Show how the run goes on, if its body is interrupted in here."""
    try:
        yield
    finally:
        run = session.tracker.shown.get(session.root.flow_run_id)
        if run is not None and run.state_name == "Interrupted":
            name = handle(process.process().journal.catalog, run.id, run.name)
            how = recorded.how_to_resume(flow, details, name)
            run_logs.show_interrupted(run.name, how)


def _announce(session: Session, again: Again, details: Mapping[str, Any]) -> None:
    root = session.root
    doing = "RERUNNING" if again.rerun else "RESUMING"
    runs = session.ledger.table.task_runs.values()
    flow = run_logs.one_line(root.flow_name, run_logs.NAME)
    name = run_logs.one_line(root.flow_run_name, run_logs.NAME)
    what = f" from '{again.from_task}'" if again.from_task else ""
    run_logs.show(logging.INFO, f"{doing} {name}{what} | flow '{flow}': {progress(list(runs))}.")
    folder = (details.get("trigger") or {}).get("folder")
    if folder and folder != os.getcwd():
        run_logs.show(
            logging.INFO,
            f"{doing} {name} | It began in '{folder}'; relative paths lead from '{os.getcwd()}' now.",
        )


def progress(runs: list[TaskRun]) -> str:
    """Say how far a run was, from its task runs."""
    counts = Counter(map(_kind, runs))
    kept = f"{counts.pop('kept', 0):,} of {len(runs):,} task runs are completed and kept"
    return ", ".join([kept, *(f"{counts[kind]:,} {kind}" for kind in _KINDS if counts[kind])])


_KINDS = ("completed and are not kept", "failed", "cancelled", "did not end")


def _kind(run: TaskRun) -> str:
    if run.stage is Stage.COMPLETED:
        return "kept" if run.held.kept else _KINDS[0]
    if run.stage in (Stage.FAILED, Stage.CRASHED):
        return "failed"
    return "cancelled" if run.stage is Stage.CANCELLED else "did not end"
