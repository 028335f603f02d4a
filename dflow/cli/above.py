"""Keeping the terminal in order while a table is drawn in it: whatever is printed goes above the table.

Prints do not come from this process alone: worker processes write to the terminal that they inherit, into
the middle of the table. So standard output and standard error are led, for a while and for all who inherit
them, into a pipe; a thread prints each line that comes out of it.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.ansi import AnsiDecoder
from rich.console import Console, ConsoleDimensions

PATIENCE = 0.5
"""Seconds after which half a line is printed though its end has not come: it may be a question."""
MARK = b"\0dflow: all until here\0\n"
"""Goes through the pipe behind what must have been printed."""


class Terminal(Console):
    """The console on a terminal that standard error may no longer lead to."""

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        """The present size of the terminal."""
        columns, lines = os.get_terminal_size(self.file.fileno())
        return ConsoleDimensions(columns or 80, lines or 24)


@contextmanager
def kept_in_order() -> Iterator[Prints]:
    """Lead what is printed, here or by children, to the terminal in whole lines."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    reading, writing = os.pipe()
    saved = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
    for number in saved:
        os.dup2(writing, number)
    console = Terminal(file=file, markup=False, highlight=False, emoji=False)
    prints = Prints(console, reading, writing)
    prints.start()
    try:
        yield prints
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in saved.items():
            os.dup2(original, number)
            os.close(original)
        prints.drain()
        os.close(writing)


class Prints(threading.Thread):
    """Prints what comes out of the pipe, as long as anybody may write into it."""

    def __init__(self, console: Console, reading: int, writing: int) -> None:
        super().__init__(name="dflow-prints", daemon=True)
        self.console = console
        self._reading = reading
        self._writing = writing
        self._decoder = AnsiDecoder()
        self._reached = threading.Semaphore(0)

    def drain(self) -> None:
        """Wait until all that was printed so far is on the terminal."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(self._writing, MARK)
        self._reached.acquire()

    def run(self) -> None:
        """Print lines until the last writer is gone."""
        rest = b""
        while True:
            if select.select([self._reading], [], [], PATIENCE)[0]:
                data = os.read(self._reading, 65_536)
                if not data:
                    break
                rest = self._print_lines(rest + data)
            elif rest and b"\r" not in rest:
                self._print(rest)
                rest = b""
        os.close(self._reading)

    def _print_lines(self, data: bytes) -> bytes:
        """Print the whole lines, and what stands before a mark; return what is left."""
        *marked, data = data.split(MARK)
        for text in marked:
            if text:
                self._print(text.removesuffix(b"\n"))
            self._reached.release()
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._print(whole)
        return rest

    def _print(self, text: bytes) -> None:
        for line in text.decode(errors="replace").split("\n"):
            with suppress(OSError):  # the terminal was closed; who prints must not be held up
                self.console.print(self._decoder.decode_line(line), soft_wrap=True)
