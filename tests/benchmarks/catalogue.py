"""All lines of the benchmarks, in the order of the table."""

from __future__ import annotations

from tests.benchmarks import data, edges, growth, heavy, local, pieces, small

_FOUND = [
    *small.LINES,
    *heavy.LINES,
    *local.LINES,
    *data.LINES,
    *growth.LINES,
    *edges.LINES,
    *pieces.LINES,
]
LINES = {line.name: line for line in sorted(_FOUND, key=lambda line: not line.target)}
