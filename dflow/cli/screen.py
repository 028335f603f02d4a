"""Live progress in a terminal: a table below what is printed, refreshed in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dflow.cli import above, groups, text
from dflow.engine.session import Session

REFRESH = 8
"""How often a second the table is drawn."""
MARGIN = 4
"""Lines of the terminal that the table leaves free."""

_STYLES = {"running": "cyan", "retrying": "yellow", "failed": "red", "cancelled": "magenta"}


@contextmanager
def shown() -> Iterator[Screen]:
    """Show how far a run is; the last table stays, when the runners have let go of everything."""
    with above.kept_in_order() as prints:
        screen = Screen(prints.console)
        live = Live(
            get_renderable=screen.draw,
            console=prints.console,
            refresh_per_second=REFRESH,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with live:
            try:
                yield screen
            finally:
                screen.closing = False
                prints.drain()


class Screen:
    """Draws one table of the groups."""

    def __init__(self, console: Console) -> None:
        self.closing = False
        self._seconds: float | None = None
        self._console = console
        self._groups: groups.Groups | None = None

    def begin(self, session: Session) -> None:
        """Take the session of a run that begins; only the first counts."""
        self._groups = self._groups or groups.Groups(session)

    def end(self) -> None:
        """Draw the run as ended from now on, and say that it is being closed."""
        self.closing = True
        if self._groups is not None:
            self._seconds = self._groups.seconds()

    @property
    def _over(self) -> bool:
        return self._seconds is not None

    def draw(self) -> RenderableType:
        """Return the table as it is now."""
        if self._groups is None:
            return Group()
        rows = self._groups.now()
        kept, hidden = _fitting(rows, max(1, self._console.size.height - MARGIN))
        if self._over and not self.closing:
            kept, hidden = rows, []
        drawn = Table.grid(padding=(0, 2, 0, 0))
        drawn.add_column(no_wrap=True, overflow="ellipsis", max_width=32)
        drawn.add_column(width=24)
        drawn.add_column(justify="right", no_wrap=True)
        drawn.add_column(overflow="ellipsis", no_wrap=True)
        for row in kept:
            drawn.add_row(Text(text.name(row.label)), _bar(row), _number(row), self._words(row))
        seconds = self._groups.seconds() if self._seconds is None else self._seconds
        head = Text.assemble(
            (text.name(self._groups.flow_name), "bold"),
            f"  {text.name(self._groups.run_name)}  ",
            (text.took(seconds), "dim"),
        )
        if self.closing:
            head.append("  closing …", "dim")
        if hidden:
            head.append(f"  and {text.several(len(hidden), 'task')} that ended", "dim")
        return Group(head, drawn)

    def _words(self, group: groups.Group) -> Text:
        words = []
        for word, number in group.exceptions():
            unfinished = self._over and word in ("running", "retrying")
            style = _STYLES.get(word, "")
            words.append(Text(f"{number} {'unfinished' if unfinished else word}", style))
        if group.over:
            words.append(Text(text.took(group.seconds) if group.seconds else "", "dim"))
        elif not self._over and group.rate and group.left is not None:
            words.append(Text(f"{group.rate:.1f}/s", "dim"))
            words.append(Text(text.left(group.left), "dim"))
        return Text(", ").join(word for word in words if word)


def _fitting(
    rows: list[groups.Group], height: int
) -> tuple[list[groups.Group], list[groups.Group]]:
    """Return the rows that fit into the terminal, and those that do not: the earliest that ended."""
    too_many = len(rows) - height
    hidden = [row for row in rows if row.over][: max(0, too_many)]
    out = set(map(id, hidden))
    return [row for row in rows if id(row) not in out][-height:], hidden


def _bar(group: groups.Group) -> ProgressBar:
    style = "red" if group.failed else "green"
    return ProgressBar(
        total=max(1, group.total),
        completed=group.ended,
        width=24,
        complete_style=style,
        finished_style=style,
    )


def _number(group: groups.Group) -> Text:
    return Text(f"{group.done}/{group.total}")
