"""What a campaign is asked for, and what it answers: figures, and every promise that was broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Figures = dict[str, object]
"""One row of a table: what stands under each heading."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How thorough a campaign is to be: `full`, or short enough for the test suite.

    `seed` is where its luck begins; `rounds`, if given, how often it tries each case. `say` shows how far it
    is.
    """

    full: bool = False
    seed: int = 1
    rounds: int | None = None
    say: Callable[[str], None] = lambda _: None

    def count(self, short: int, full: int) -> int:
        """Return how often to try each case."""
        return self.rounds or (full if self.full else short)


@dataclass(slots=True)
class Report:
    """What a campaign found. `skipped` says why it could not be held here."""

    title: str
    rows: list[Figures] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign: `hold` holds it. One that has a `short` form takes some seconds in it."""

    hold: Callable[[Asked], Report]
    short: bool = True


def table(rows: Sequence[Figures]) -> list[str]:
    """Return rows as lines of text, the first column to the left, the others to the right."""
    if not rows:
        return []
    heads = list(dict.fromkeys(head for row in rows for head in row))
    texts = [heads, *([_shown(row.get(head, "")) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in texts) for column in range(len(heads))]
    return [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in texts
    ]


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def printed(report: Report) -> str:
    """Return a report as it is printed."""
    lines = [f"\n{report.title}"]
    if report.skipped:
        lines.append(f"  skipped: {report.skipped}")
    lines += [f"  {line}" for line in table(report.rows)]
    lines += [f"  {note}" for note in report.notes]
    lines += [f"  VIOLATION: {violation}" for violation in report.violations]
    return "\n".join(lines)
