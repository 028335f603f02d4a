"""How the benchmarks are told: lines on a terminal, sections of ``BENCHMARKS.md``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.catalogue import LINES
from tests.benchmarks.machine import ROOT, described
from tests.benchmarks.results import Outcome

PAGE = ROOT / "BENCHMARKS.md"

HOW = (
    "`python -m tests.benchmarks --write`, {rounds} rounds that alternate, medians; in parentheses the "
    "lowest and the highest ratio of two rounds that followed each other"
)
RAW = (
    "Raw Dask is `LocalCluster` as it comes, whose scheduler lives in the driver. The memory is that of the "
    "round in which the driver grew most; `driver memory` has it before, with the futures of a first map, "
    "without them, with those of a second one, and without them:"
)

Row = tuple[str, ...]

HEADS = ("work (2 worker processes × 1 thread)", "target", "dflow", "raw Dask", "found", "")
MEMORY_HEADS = ("MB before → peak → after", "dflow's driver", "its scheduler", "raw Dask's driver")


def printed(outcome: Outcome) -> str:
    """Return an outcome as lines for a terminal."""
    line, result = LINES[outcome.name], outcome.result
    head = f"{line.work}{': ' if line.target else ''}{line.target}"
    if result is None:
        return f"{head}\n    {outcome.verdict}\n{outcome.error}"
    found = (
        f"    dflow {result.dflow}  raw {result.dask}  {result.figure}  {outcome.verdict}".rstrip()
    )
    told = [head, found]
    if result.memory:
        told.append("    MB: " + ", ".join(f"{k} {v}" for k, v in result.memory.items()))
    if result.note:
        told.append(f"    {result.note}")
    told += [f"    BROKEN: {sentence}" for sentence in outcome.broken]
    told.append(
        f"    {outcome.seconds:.0f} s; {outcome.runs} runs, {outcome.task_runs:,} task runs: "
        f"{len(outcome.broken)} invariants broken"
    )
    return "\n".join(told)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return one line on all."""
    verdicts = [outcome.verdict for outcome in outcomes]
    counted = {name: verdicts.count(name) for name in ("met", "missed", "FAILED", "BROKEN")}
    return ", ".join(f"{count} {name}" for name, count in counted.items())


def section(outcomes: Sequence[Outcome], rounds: int) -> str:
    """Return the tables of all lines, as a section of the page."""
    rows, memory = [], []
    for outcome in outcomes:
        line, result = LINES[outcome.name], outcome.result
        if result is None:
            rows.append((line.work, line.target, "", "", "", outcome.verdict))
            continue
        found = "; ".join(text for text in (result.figure, result.note) if text)
        rows.append((line.work, line.target, result.dflow, result.dask, found, outcome.verdict))
        if result.memory:
            columns = (result.memory.get(name, "") for name in ("driver", "scheduler", "raw"))
            memory.append((line.work, *columns))
    return "\n".join(
        [
            *(f"- {text}" for text in (*described(), HOW.format(rounds=rounds), _sound(outcomes))),
            "",
            *table(HEADS, rows),
            "",
            RAW,
            "",
            *table(MEMORY_HEADS, memory),
        ]
    )


def _sound(outcomes: Sequence[Outcome]) -> str:
    runs, task_runs = (sum(getattr(o, name) for o in outcomes) for name in ("runs", "task_runs"))
    broken = sum(len(outcome.broken) for outcome in outcomes)
    return (
        f"{summary(outcomes)}; invariants over the journals of {runs:,} runs with {task_runs:,} "
        f"task runs: {broken} broken"
    )


def table(heads: Row, rows: Sequence[Row]) -> list[str]:
    """Return rows as a table of the page."""
    return [_row(heads), _row(("---",) * len(heads)), *map(_row, rows)]


def _row(cells: Row) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def replaced(name: str, text: str, page: Path = PAGE) -> None:
    """Put a section in the place of the one with its name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    whole = page.read_text(encoding="utf-8")
    head, found, rest = whole.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"'{page.name}' has no section '{name}'.")
    page.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
