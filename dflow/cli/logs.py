"""``dflow logs``: what a run said."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from dflow import runs
from dflow.cli import facts, streams, text
from dflow.cli.options import AsJson
from dflow.cli.show import warn_of_missing
from dflow.core.records import TaskRun
from dflow.errors import RunNotFound
from dflow.messages import LogEntry
from dflow.ports import RunReader

SHORTEST_ID = 4
"""How many characters the start of a task run's id has at least."""

_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red", "DEBUG": "dim"}


def logs(run: str, task: str = "", /, *, as_json: AsJson = False) -> int:
    """Print the log lines of a run, or of some of its task runs.

    Args:
        run: an id, the start of one, a name, or latest
        task: the name of a task run, the name of a task, or the start of a task run's id
        as_json: print JSON: a list of lines
    """
    listed = runs.find(run)
    with runs.opened(listed) as reader:
        warn_of_missing(reader, listed.entry.name)
        names = {flow_run.id: flow_run.name for flow_run in reader.flow_runs()}
        names |= {task_run.id: task_run.name for task_run in reader.task_runs()}
        entries = _entries(reader, listed.entry.name, task)
        if as_json:
            streams.print_json([facts.of_log(entry, _name(entry, names)) for entry in entries])
            return 0
        console = streams.out()
        for entry in entries:
            _print(console, entry, names)
    if not entries:
        streams.say("Nothing was logged.")
    return 0


def _entries(reader: RunReader, name: str, task: str) -> list[LogEntry]:
    if not task:
        return list(reader.logs())
    wanted = {found.id for found in matching(list(reader.task_runs()), name, task)}
    if len(wanted) == 1:
        return list(reader.logs(wanted.pop()))
    return [entry for entry in reader.logs() if entry.task_run_id in wanted]


def matching(task_runs: list[TaskRun], name: str, task: str) -> list[TaskRun]:
    """Return the task runs that `task` names in the run `name`. Raises `RunNotFound`."""
    found = (
        [run for run in task_runs if run.name == task]
        or [run for run in task_runs if run.task_name == task]
        or [run for run in task_runs if len(task) >= SHORTEST_ID and run.id.startswith(task)]
    )
    if found:
        return found
    tasks = ", ".join(
        f"'{text.name(task)}'" for task in dict.fromkeys(r.task_name for r in task_runs)
    )
    has = f"Its tasks are: {tasks}." if tasks else "It has no task runs."
    raise RunNotFound(f"Run '{text.name(name)}' has no task or task run '{text.name(task)}'. {has}")


def _print(console: Console, entry: LogEntry, names: Mapping[str, str]) -> None:
    level = logging.getLevelName(entry.level)
    first, *more = text.block(entry.message).split("\n")
    shown = Text.assemble(
        (f"{text.when(entry.at)} ", "dim"),
        (f"{level:<7} ", _STYLES.get(level, "")),
        (_who(entry, names), "bold"),
        f" | {first}",
    )
    for further in more:
        shown.append(f"\n    {further}")
    console.print(shown, soft_wrap=True)


def _who(entry: LogEntry, names: Mapping[str, str]) -> str:
    who = text.name(_name(entry, names))
    if entry.attempt > 1:
        who += f" (attempt {entry.attempt})"
    return f"{who} @ {text.name(entry.worker)}" if entry.worker else who


def _name(entry: LogEntry, names: Mapping[str, str]) -> str:
    run_id = entry.task_run_id or entry.flow_run_id
    return names.get(run_id, run_id)
