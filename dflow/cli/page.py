"""What ``dflow show`` prints of a run, from the facts that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dflow.cli import measures, streams, text
from dflow.cli.attempts import AttemptFacts, ErrorFacts
from dflow.cli.facts import (
    FlowRunFacts,
    LinkFacts,
    Recorded,
    TaskRunFacts,
)
from dflow.cli.failures import without_our_frames
from dflow.states import TYPE_OF_NAME, StateType

FIRST = 20
"""How many task runs are listed, besides those that failed."""
EXPLAINED = 20
"""How many failures are explained."""

_FAILED = {StateType.FAILED, StateType.CRASHED}
_WELL = ("succeeded", "open")
_Used = Literal["seconds", "cpu", "memory", "bytes"]
_USED: dict[_Used, tuple[str, Callable[[Any], str]]] = {
    "seconds": ("took", text.took),
    "cpu": ("cpu", text.took),
    "memory": ("memory", text.size),
    "bytes": ("value", text.size),
}
"""What is shown of what the bodies of a task took: the heading, and how it is written."""


class Page:
    """One run on a page; `asked` is what the user called it."""

    def __init__(self, recorded: Recorded, asked: str, *, every: bool, tracebacks: bool) -> None:
        self._recorded = recorded
        self._asked = asked
        self._every = every
        self._tracebacks = tracebacks
        self._console = streams.out()

    def print(self) -> None:
        """Print it."""
        self._head()
        if len(self._recorded["flow_runs"]) > 1:
            self._title("Subflows")
            self._subflows()
        if self._recorded["groups"]:
            self._title("Tasks")
            self._groups()
            self._title("Task runs")
            self._task_runs()
        self._failures()

    def _title(self, title: str) -> None:
        self._console.print()
        self._console.print(Text(title, "bold"))

    # The run --------------------------------------------------------------------------------------------

    def _head(self) -> None:
        run = self._recorded["run"]
        title = Text.assemble((text.name(run["name"]), "bold"), "  ", streams.state(run["state"]))
        self._console.print(title)
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, value in self._lines():
            if value:
                grid.add_row(label, Text(value))
        self._console.print(Padding.indent(grid, 2))

    def _lines(self) -> Iterator[tuple[str, str]]:
        run, recorded = self._recorded["run"], self._recorded
        yield "flow", text.name(run["flow"])
        yield "id", run["id"]
        took = f", took {text.took(run['seconds'])}" if run["seconds"] is not None else ""
        yield "started", text.local(run["created_at"]) + took
        if run["driver"]:
            driver = run["driver"]
            yield "driver", text.line(f"process {driver['pid']} on {driver['host']}")
        root = recorded["flow_runs"][0] if recorded["flow_runs"] else None
        yield "tags", text.line(", ".join(root["tags"])) if root else ""
        yield "message", text.line(run["message"])
        parameters = [
            f"{text.name(k)}={text.line(v, 100)}" for k, v in recorded["parameters"].items()
        ]
        yield "parameters", text.line(", ".join(parameters), 1000)
        yield "command", text.line(recorded["command"], 1000)
        yield "folder", text.line(recorded["folder"], 1000)
        versions = ", ".join(f"{name} {version}" for name, version in recorded["versions"].items())
        yield "versions", text.line(versions)
        yield "runner", text.line(_in_short(recorded["runner"]), 1000)
        if recorded["rerun_of"]:
            yield "rerun of", _linked(recorded["rerun_of"])
        yield "rerun as", ", ".join(map(_linked, recorded["reruns"]))
        yield "git commit", text.line(recorded["git"] or "")
        yield "size", _sizes(run["sizes"] or {})

    def _subflows(self) -> None:
        tasks = {run["id"]: run for run in self._recorded["task_runs"]}
        root, *below = self._recorded["flow_runs"]
        trees = {root["id"]: Tree(_flow_line(root))}
        for run in below:
            parent, caller = run["parent_id"] or "", None
            while parent in tasks:
                caller = caller or tasks[parent]
                parent = tasks[parent]["parent_id"]
            around = trees.get(parent, trees[root["id"]])
            trees[run["id"]] = around.add(_flow_line(run, caller))
        self._console.print(Padding.indent(trees[root["id"]], 2))

    # Its task runs ----------------------------------------------------------------------------------------

    def _groups(self) -> None:
        several = len(self._recorded["flow_runs"]) > 1
        used = [name for name in _USED if any(g["usage"][name] for g in self._recorded["groups"])]
        table = streams.table(
            "task",
            *(["flow run"] if several else []),
            ">total",
            "states",
            *(f">{_USED[name][0]}" for name in used),
        )
        for group in self._recorded["groups"]:
            states = Text(", ").join(
                Text.assemble(f"{number} ", streams.state(name))
                for name, number in sorted(group["states"].items(), key=lambda item: -item[1])
                if number
            )
            if group["reused"]:
                states.append(f", {group['reused']} of them reused", "dim")
            table.add_row(
                Text(text.name(group["task"])),
                *([Text(text.name(group["flow_run"]))] if several else []),
                str(group["total"]),
                states,
                *(Text(measures.shown(group["usage"][name], _USED[name][1])) for name in used),
            )
        self._console.print(Padding.indent(table, 2))

    def _task_runs(self) -> None:
        listed, count = [], 0
        for run in self._recorded["task_runs"]:
            count += not _bad(run)
            if self._every or _bad(run) or count <= FIRST:
                listed.append(run)
        flows = {run["id"]: run["name"] for run in self._recorded["flow_runs"]}
        passes = {run["id"]: run["generation"] for run in self._recorded["flow_runs"]}
        left = set(self._recorded["left_behind"])
        column = ["flow run"] if len(flows) > 1 else []
        stored = [">stored"] if any(map(_stored, self._recorded["task_runs"])) else []
        table = streams.table("task run", *column, "state", ">attempts", ">took", *stored, "worker")
        for run in listed:
            last = run["attempts"][-1] if run["attempts"] else None
            table.add_row(
                Text(text.name(run["name"])),
                *([Text(text.name(flows.get(run["flow_run_id"], "")))] if column else []),
                _state(run, passes.get(run["flow_run_id"], 0), run["id"] in left),
                str(len(run["attempts"]) or ""),
                Text(text.took(run["seconds"])),
                *([Text(_stored(run))] if stored else []),
                Text(text.name(last["worker"]) if last else "", "dim"),
            )
        self._console.print(Padding.indent(table, 2))
        self._and_more(len(self._recorded["task_runs"]) - len(listed), "more", "--all")
        if left:
            said = f"  {text.several(len(left), 'finished task run')} of an earlier pass not asked for again"
            self._console.print(Text(said, "dim"), soft_wrap=True)

    def _and_more(self, count: int, what: str, option: str) -> None:
        if count > 0:
            self._hint(f"… and {count} {what}", option)

    def _hint(self, what: str, option: str) -> None:
        line = f"  {what}: dflow show {text.name(self._asked)} {option}"
        self._console.print(Text(line, "dim"), soft_wrap=True)

    # What went wrong ----------------------------------------------------------------------------------------

    def _failures(self) -> None:
        failed = [run for run in self._recorded["task_runs"] if _gone_wrong(run)]
        upstream = [run for run in self._recorded["task_runs"] if _never_ran(run)]
        known = {_in_words(a["error"], a) for run in failed for a in _gone_wrong(run)}
        flows = [run for run in self._recorded["flow_runs"] if run["error"]]
        flows = [run for run in flows if _in_words(run["error"]) not in known]
        if not (failed or upstream or flows):
            return
        self._title("What went wrong")
        shown = failed if self._every or self._tracebacks else failed[:EXPLAINED]
        for run in shown:
            *earlier, last = _gone_wrong(run)
            for attempt in earlier:
                self._explain(
                    _which(run, attempt), _in_words(attempt["error"], attempt), attempt["error"]
                )
            alone = len(failed) == 1
            self._explain(
                _which(run, last), _in_words(last["error"], last), last["error"], alone=alone
            )
        self._and_more(len(failed) - len(shown), "task runs that failed", "--all")
        chains = upstream if self._every else upstream[:EXPLAINED]
        for run in chains:
            self._explain(text.name(run["name"]), text.line(f"did not run. {run['message']}", 1000))
        self._and_more(len(upstream) - len(chains), "that did not run", "--all")
        for flow in flows:
            alone = not failed and len(flows) == 1
            what = f"flow run {text.name(flow['name'])}"
            self._explain(what, _in_words(flow["error"]), flow["error"], alone=alone)
        told = any(attempt["error"] for run in failed for attempt in _gone_wrong(run))
        if len(failed) > 1 and told and not self._tracebacks:
            self._hint("Tracebacks", "--tracebacks")

    def _explain(
        self, what: str, why: str, error: ErrorFacts | None = None, *, alone: bool = False
    ) -> None:
        line = Text.assemble((what, "bold"), ": ", (why, "red"))
        self._console.print(Padding.indent(line, 2))
        if error and error["traceback"] and (self._tracebacks or alone):
            shown = text.block(without_our_frames(error["traceback"])).rstrip()
            self._console.print(Padding.indent(Text(shown), 4))


def _flow_line(run: FlowRunFacts, caller: TaskRunFacts | None = None) -> Text:
    """Return the line of a flow run in the tree; `caller` is the task run that called it, if one did."""
    what = f" ({text.name(run['flow'])})"
    if caller is not None:
        what += f" in {text.name(caller['name'])}"
    return Text.assemble(text.name(run["name"]), f"{what}  ", streams.state(run["state"]))


def _sizes(sizes: Mapping[str, int]) -> str:
    """Return what a run takes, and of what that consists if there is more than one thing."""
    parts = [f"{kind} {text.size(number)}" for kind, number in sizes.items() if number]
    total = text.size(sum(sizes.values()))
    return f"{total} ({', '.join(parts)})" if len(parts) > 1 else total


def _state(run: TaskRunFacts, last_pass: int, left: bool) -> Text:
    """Return the state of a task run, and whether it is of an earlier pass."""
    state = streams.state(run["state"])
    if left:
        state.append(" (not asked for)", "dim")
    elif 0 < run["reused"] == last_pass:
        state.append(" (reused)", "dim")
    return state


def _in_short(runner: dict[str, Any]) -> str:
    """Return a runner as it was described: its kind, and what was set."""
    kind = runner.get("kind") or runner.get("name") or ""
    known = {k: v for k, v in runner.items() if k not in ("kind", "name", "by_default") and v}
    more = ", ".join(f"{key}={value!r}" for key, value in known.items())
    return f"{kind} ({more})" if more else str(kind)


def _linked(link: LinkFacts) -> str:
    if not link["name"]:
        return f"{link['id']} (deleted)"
    return f"{text.name(link['name'])} ({link['id']}, {link['state']})"


def _stored(run: TaskRunFacts) -> str:
    """Return the size of a value that is in a result store."""
    kept = run["kept"]
    return "" if kept is None or kept["bytes"] is None else text.size(kept["bytes"])


def _bad(run: TaskRunFacts) -> bool:
    return TYPE_OF_NAME.get(run["state"]) in _FAILED


def _never_ran(run: TaskRunFacts) -> bool:
    return run["state"] in ("UpstreamFailed", "UpstreamLost")


def _which(run: TaskRunFacts, attempt: AttemptFacts) -> str:
    which = f"{text.name(run['name'])}, attempt {attempt['number']}"
    if run["generation"] > 1:
        which += f" of generation {attempt['generation']}"
    return f"{which} @ {text.name(attempt['worker'])}" if attempt["worker"] else which


def _gone_wrong(run: TaskRunFacts) -> list[AttemptFacts]:
    return [attempt for attempt in run["attempts"] if attempt["ending"] not in _WELL]


def _in_words(error: ErrorFacts | None, attempt: AttemptFacts | None = None) -> str:
    if error is not None:
        return text.line(f"{error['type']}: {error['text']}")
    if attempt is None:
        return "unknown"
    cause = (attempt["cause"] or "").replace("_", " ")
    return f"{attempt['ending'].replace('_', ' ')}" + (f" ({cause})" if cause else "")
